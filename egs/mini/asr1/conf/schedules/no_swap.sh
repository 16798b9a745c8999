# shellcheck shell=bash disable=SC2034
# Control: adapters on the final encoder from the start, no swap.
train_encoder=conf/train_encoder.yaml
train_iasft=conf/schedules/train_no_swap.yaml
