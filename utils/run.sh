#!/usr/bin/env bash
# Runs a command, or an array of jobs, on this machine, with Kaldi's arguments and log format.
#   utils/run.sh [--max_jobs N] [JOB=1:4] exp/log/x.JOB.log command --part JOB/4 ...
# JOB becomes the job's number in the log's name and in the arguments. Logs are appended to, so that the log of a long
# training outlives a second start that finds it finished. --tries N starts failed jobs, and only these, up to N times;
# --only_failed true leaves out jobs whose log tells that this very command has succeeded before.
set -uo pipefail

# shellcheck source=jobs.sh
. "$(dirname "${BASH_SOURCE[0]}")/jobs.sh"
cores=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 1) # nproc counts threads of OpenMP where it may
max_jobs=${max_jobs:-$cores}
at_once=$(( last - first + 1 < max_jobs ? last - first + 1 : max_jobs ))
if (( at_once > 1 )); then # jobs at the same time share the cores
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(( cores > at_once ? cores / at_once : 1 ))}
fi

run_job() { # run_job LOG COMMAND ...: the command between the log's head and tail
    local file=$1 start code
    shift
    exec >>"$file" 2>&1 </dev/null || exit 1
    start=$(date +%s)
    head_line "$@"
    printf '# Running on %s\n# Started at %s\n#\n' "$(uname -n)" "$(date)"
    "$@"
    code=$?
    printf '# Accounting: time=%d threads=%s\n' $(( $(date +%s) - start )) "${options[num_threads]:-1}"
    printf '# Ended (code %d) at %s, elapsed time %ds\n' $code "$(date)" $(( $(date +%s) - start ))
    exit $code
}

declare -A pids=()
stop_jobs() { # each job is a process group of its own: what it started goes with it
    exec 2>/dev/null # bash would report each job that it sees killed
    local groups=("${pids[@]/#/-}") seconds
    kill -TERM -- "${groups[@]}"
    for seconds in 0.1 0.4 1 2 2; do # torchrun takes a while
        kill -0 -- "${groups[@]}" || return 0 # nobody is left in any of them
        sleep $seconds
    done
    kill -KILL -- "${groups[@]}"
}
trap 'exit 130' INT
trap 'exit 143' TERM HUP
trap stop_jobs EXIT
set -m

# The log takes stdout and stderr: a single job may draw its progress bar on the terminal itself.
if (( first == last )) && [[ -t 2 && -z ${ASRLLM_PROGRESS:-} ]] && terminal=$(tty <&2); then
    export ASRLLM_PROGRESS=$terminal
fi

start_jobs() { # start_jobs NUMBER ...
    local job file
    for job in "$@"; do
        while (( $(jobs -rp | wc -l) >= max_jobs )); do wait -n; done
        file=$(in_job "$job" "$log")
        mkdir -p "$(dirname "$file")" || exit 1
        job_command "$job"
        run_job "$file" "${job_words[@]}" &
        pids[$job]=$!
    done
}

mapfile -t waiting < <(jobs_to_run)
failed=()
for (( try = 1; try <= tries && ${#waiting[@]} > 0; try++ )); do
    start_jobs "${waiting[@]}"
    failed=()
    again=()
    for job in "${waiting[@]}"; do
        wait "${pids[$job]}"
        code=$?
        unset "pids[$job]"
        (( code == 0 )) && continue
        again+=("$job")
        why=
        (( code != 137 )) || why=" (killed: out of memory?)"
        failed+=("$job=$why")
    done
    waiting=("${again[@]}")
    (( ${#again[@]} == 0 || try == tries )) || echo "$me: try $try of $tries: ${#again[@]} job(s) failed, once more" >&2
done
tell_failures "${failed[@]}"
(( ${#failed[@]} == 0 ))
