#!/usr/bin/env bash
# Runs a command, or an array of jobs, on this machine, with Kaldi's arguments and log format.
#   utils/run.sh [--max_jobs N] [JOB=1:4] exp/log/x.JOB.log command --part JOB/4 ...
# JOB becomes the job's number in the log's name and in the arguments. Logs are appended to, so that the log of a long
# training outlives a second start that finds it finished.
set -uo pipefail

me=$(basename "$0")
usage="usage: $me [--max_jobs N] [JOB=FIRST:LAST] LOG COMMAND [ARGUMENT ...]"
max_jobs=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 1) # nproc counts threads of OpenMP where it may
fail() { echo "$me: $1" >&2; exit 2; }

while [[ ${1:-} == --* ]]; do
    [[ $# -ge 2 ]] || fail "option $1 wants a value; $usage"
    case $1 in
        --max_jobs | --max-jobs | --max-jobs-run) max_jobs=$2 ;;
        --gpu | --mem | --time | --num_threads | --num-threads) ;; # for queues; one machine has what it has
        *) fail "unknown option $1; $usage" ;;
    esac
    shift 2
done
[[ $max_jobs =~ ^[1-9][0-9]*$ ]] || fail "--max_jobs takes a number from 1, not '$max_jobs'"

variable='' first=1 last=1
if [[ ${1:-} =~ ^([A-Za-z_]+)=([0-9]+)(:([0-9]+))?$ ]]; then
    variable=${BASH_REMATCH[1]} first=${BASH_REMATCH[2]} last=${BASH_REMATCH[4]:-${BASH_REMATCH[2]}}
    (( first <= last )) || fail "$1 names no job: the first is above the last"
    shift
fi
[[ $# -ge 2 ]] || fail "$usage"
log=$1
shift
[[ -z $variable || $first == "$last" || $log == *"$variable"* ]] || fail "the log's name '$log' must hold $variable"

in_job() { # in_job NUMBER TEXT: TEXT with the job's number in place of its name
    if [[ -n $variable ]]; then printf '%s' "${2//$variable/$1}"; else printf '%s' "$2"; fi
}

run_job() { # run_job LOG COMMAND ...: the command between the log's head and tail
    local file=$1 start code
    shift
    exec >>"$file" 2>&1 </dev/null || exit 1
    start=$(date +%s)
    printf '#'; printf ' %q' "$@"; printf '\n'
    printf '# Running on %s\n# Started at %s\n#\n' "$(uname -n)" "$(date)"
    "$@"
    code=$?
    printf '# Accounting: time=%d threads=1\n' $(( $(date +%s) - start ))
    printf '# Ended (code %d) at %s, elapsed time %ds\n' $code "$(date)" $(( $(date +%s) - start ))
    exit $code
}

last_lines() { # last_lines LOG: the last five that the job itself wrote
    tac "$1" | sed -e '/^# Started at /Q' -e '/^# Accounting: /d' -e '/^# Ended (/d' -e '/^#$/d' | head -n 5 | tac
}

pids=()
stop_jobs() { # each job is a process group of its own: what it started goes with it
    exec 2>/dev/null # bash would report each job that it sees killed
    local pid seconds
    for pid in "${pids[@]}"; do kill -TERM -- "-$pid" 2>/dev/null; done
    for seconds in 0.1 0.4 1 2 2; do
        [[ -n $(jobs -rp) ]] || return 0
        sleep $seconds
    done
    for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null; done
}
trap 'exit 130' INT
trap 'exit 143' TERM HUP
trap stop_jobs EXIT
set -m

# The log takes stdout and stderr: a single job may draw its progress bar on the terminal itself.
if (( first == last )) && [[ -t 2 && -z ${ASRLLM_PROGRESS:-} ]] && terminal=$(tty <&2); then
    export ASRLLM_PROGRESS=$terminal
fi

for (( job = first; job <= last; job++ )); do
    while (( $(jobs -rp | wc -l) >= max_jobs )); do wait -n; done
    file=$(in_job "$job" "$log")
    mkdir -p "$(dirname "$file")" || exit 1
    command=()
    for argument in "$@"; do
        command+=("$(in_job "$job" "$argument"; printf x)") # the x keeps newlines at the end
        command[-1]=${command[-1]%x}
    done
    run_job "$file" "${command[@]}" &
    pids+=($!)
done

failed=0
for (( job = first; job <= last; job++ )); do
    wait "${pids[job - first]}"
    code=$?
    (( code == 0 )) && continue
    failed=$((failed + 1))
    file=$(in_job "$job" "$log")
    what="job"
    (( first == last )) || what="job $job of $last"
    (( code != 137 )) || what+=" (killed: out of memory?)"
    echo "$me: $what failed, log is in $file" >&2
    (( failed > 1 )) || last_lines "$file" >&2
done
pids=()
(( failed == 0 ))
