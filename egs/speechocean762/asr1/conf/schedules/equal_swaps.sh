# shellcheck shell=bash disable=SC2034
# Control: encoders swapped at equal distances, without CKA.
train_encoder=conf/train_encoder.yaml
train_iasft=conf/schedules/train_equal_swaps.yaml
