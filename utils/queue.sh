#!/usr/bin/env bash
# shellcheck disable=SC2016,SC2034 # what the batch expands; what submit.sh reads
# Runs a command, or an array of jobs, through Grid Engine; arguments, logs and exit code are those of run.sh.
#   utils/queue.sh --mem 8G --gpu 1 JOB=1:4 exp/log/x.JOB.log command --part JOB/4 ...
# What an option asks the queue for is said by conf/queue.conf (format: submit.sh), else by the rules below.
set -uo pipefail

default_rules='command qsub
option mem=0
option mem=* -l mem_free=$0,ram_free=$0
option time=* -l h_rt=$0
option num_threads=1
option num_threads=* -pe smp $0
option gpu=0
option gpu=* -l gpu=$0' any_option=true
# shellcheck source=submit.sh
. "$(dirname "${BASH_SOURCE[0]}")/submit.sh"

submit() { # submit NUMBER ...
    write_batch SGE_TASK_ID "$@"
    "${queue_words[@]}" -sync y -t "1-$#" ${max_jobs:+-tc "$max_jobs"} -cwd -V -S /bin/bash -j y -o "$folder/q" \
        -N "j_$name" "$batch" >"$batch.id" 2>&1 &
    wait $!
    [[ -n $(job_id) ]] || fail "Grid Engine did not take the job: $(tr '\n' ' ' <"$batch.id")"
}

job_id() { sed -n 's/^Your job\(-array\)\{0,1\} \([0-9]*\).*/\2/p' "$batch.id" | head -n 1; }
cancel() { [[ -z $(job_id) ]] || qdel "$(job_id)"; }

run_array
