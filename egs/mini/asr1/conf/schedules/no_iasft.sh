# shellcheck shell=bash disable=SC2034
# Control: alignment, then joint, no iterative asynchronous SFT.
train_encoder=conf/train_encoder.yaml
train_joint=conf/schedules/train_no_iasft.yaml
