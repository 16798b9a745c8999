# shellcheck shell=bash disable=SC2034
# S2: joint post-training of an encoder that was pretrained briefly.
train_encoder=conf/schedules/train_s2_encoder.yaml
train_joint=conf/schedules/train_s2_joint.yaml
