# shellcheck shell=bash disable=SC2034
# S6: as S5 with iterative asynchronous SFT between encoder and joint stage.
train_encoder=conf/schedules/train_e0.yaml
train_iasft=conf/schedules/train_s6_iasft.yaml
train_joint=conf/schedules/train_s6_joint.yaml
