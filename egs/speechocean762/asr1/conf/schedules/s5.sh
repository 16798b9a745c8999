# shellcheck shell=bash disable=SC2034
# S5: as S4, then all parts for a short while (E0 to E3).
train_encoder=conf/schedules/train_e0.yaml
train_align=conf/schedules/train_e1.yaml
train_iasft=conf/schedules/train_s5_lora.yaml
train_joint=conf/schedules/train_s5_joint.yaml
