#!/usr/bin/env bash
# shellcheck disable=SC2016,SC2034 # what the batch expands; what submit.sh reads
# Runs a command, or an array of jobs, through Slurm; arguments, logs and exit code are those of run.sh.
#   utils/slurm.sh --mem 8G --gpu 1 --time 4:00:00 JOB=1:4 exp/log/x.JOB.log command --part JOB/4 ...
# What an option asks Slurm for is said by conf/slurm.conf (format: submit.sh), else by the rules below.
# --nodes N runs a command that begins `torchrun --standalone` on N nodes that meet each other; other commands take one.
set -uo pipefail

default_rules='command sbatch
option mem=* --mem=$0
option time=* --time=$0
option num_threads=* --cpus-per-task=$0
option nodes=* --nodes=$0 --ntasks-per-node=1
option gpu=0
option gpu=* --gres=gpu:$0' any_option=true
# shellcheck source=submit.sh
. "$(dirname "${BASH_SOURCE[0]}")/submit.sh"

submit() { # submit NUMBER ...
    write_batch SLURM_ARRAY_TASK_ID "$@"
    "${queue_words[@]}" --parsable --wait --array="1-$#${max_jobs:+%$max_jobs}" --job-name="$name" \
        --output="$folder/q/$name.%a.out" "$batch" >"$batch.id" 2>"$batch.err" &
    wait $!
    [[ -s $batch.id ]] || fail "Slurm did not take the job: $(tr '\n' ' ' <"$batch.err")"
}

cancel() { [[ ! -s $batch.id ]] || scancel "$(head -n 1 "$batch.id" | cut -d ';' -f 1)"; }

if [[ ${options[nodes]:-1} != 1 ]]; then
    batch_setup() { # on the first node; below 32768 systems hand out no ports by themselves
        printf 'head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
        printf 'port=$(( 20000 + SLURM_JOB_ID %% 12000 ))\n'
        printf 'while (exec 3<>"/dev/tcp/localhost/$port") 2>/dev/null; do (( port++ )); done # taken\n'
    }
    batch_command() {
        printf 'srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_JOB_NUM_NODES" --rdzv_id "$SLURM_JOB_ID" '
        printf -- '--rdzv_backend c10d --rdzv_endpoint "$head_node:$port" '
        printf '%q ' "${command[@]:2}"
    }
fi
run_array
