# shellcheck shell=bash disable=SC2034
# S1: joint from the start; 1e14 FLOPs in all, as in S2 to S6.
train_joint=conf/schedules/train_s1_joint.yaml
