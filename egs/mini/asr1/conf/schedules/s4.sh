# shellcheck shell=bash disable=SC2034
# S4: encoder, projector, then projector and adapters (E0, E1, E2).
train_encoder=conf/schedules/train_e0.yaml
train_align=conf/schedules/train_e1.yaml
train_iasft=conf/schedules/train_s4_lora.yaml
