# shellcheck shell=bash disable=SC2034
# S3: encoder, then projector (E0, E1).
train_encoder=conf/schedules/train_e0.yaml
train_align=conf/schedules/train_s3_align.yaml
