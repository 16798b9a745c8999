#!/usr/bin/env bash
# How jobs are run: a runner with Kaldi's arguments, [JOB=1:N] LOG COMMAND. This one runs them on this machine.
export train_cmd="../../../utils/run.sh"
export decode_cmd="../../../utils/run.sh"
