#!/usr/bin/env bash
# shellcheck disable=SC2034 # for those who source this
# Source this in a job runner, with its arguments in "$@": what run.sh, slurm.sh and queue.sh have in common.
# It sets variable first last (of JOB=first:last), log, command, and the options below; wrong arguments end the runner.

me=$(basename "$0")
usage="usage: $me [--max_jobs N] [--tries N] [--only_failed true] [--mem M] [--gpu N] [--num_threads N] [--time T]
    [--nodes N] [--config FILE] [JOB=FIRST:LAST] LOG COMMAND [ARGUMENT ...]"
fail() { echo "$me: $1" >&2; exit 2; }

declare -A options=() # what a queue is asked for, by name: mem gpu num_threads time nodes and those of --config
max_jobs='' tries=1 only_failed=false config=
while [[ ${1:-} == --* ]]; do
    [[ $# -ge 2 ]] || fail "option $1 wants a value; $usage"
    name=${1#--} && name=${name//-/_}
    case $name in
        max_jobs | max_jobs_run) max_jobs=$2 ;;
        tries) tries=$2 ;;
        only_failed) only_failed=$2 ;;
        config) config=$2 ;;
        gpu | mem | time | num_threads | nodes) options[$name]=$2 ;;
        *) [[ -n ${any_option:-} ]] || fail "unknown option $1; $usage"; options[$name]=$2 ;;
    esac
    shift 2
done
[[ -z $max_jobs || $max_jobs =~ ^[1-9][0-9]*$ ]] || fail "--max_jobs takes a number from 1, not '$max_jobs'"
[[ $tries =~ ^[1-9][0-9]*$ ]] || fail "--tries takes a number from 1, not '$tries'"
[[ $only_failed =~ ^(true|false)$ ]] || fail "--only_failed takes true or false, not '$only_failed'"

variable='' first=1 last=1
if [[ ${1:-} =~ ^([A-Za-z_]+)=([0-9]+)(:([0-9]+))?$ ]]; then
    variable=${BASH_REMATCH[1]} first=${BASH_REMATCH[2]} last=${BASH_REMATCH[4]:-${BASH_REMATCH[2]}}
    (( first <= last )) || fail "$1 names no job: the first is above the last"
    shift
fi
[[ $# -ge 2 ]] || fail "$usage"
log=$1
shift
command=("$@")
[[ -z $variable || $first == "$last" || $log == *"$variable"* ]] || fail "the log's name '$log' must hold $variable"

in_job() { # in_job NUMBER TEXT: TEXT with the job's number in place of its name
    if [[ -n $variable ]]; then printf '%s' "${2//$variable/$1}"; else printf '%s' "$2"; fi
}

job_command() { # job_command NUMBER: sets job_words to the job's own command
    local word
    job_words=()
    for word in "${command[@]}"; do
        job_words+=("$(in_job "$1" "$word"; printf x)") # the x keeps newlines at the end
        job_words[-1]=${job_words[-1]%x}
    done
}

head_line() { # head_line COMMAND ...: first line of a log
    printf '#'; printf ' %q' "$@"; printf '\n'
}

ended_well() { # ended_well LOG: its last run came to an end, without error
    [[ -f $1 && $(tail -n 1 "$1") == '# Ended (code 0)'* ]]
}

done_before() { # done_before NUMBER: its log ended well, and its last run was of this very command
    local file
    file=$(in_job "$1" "$log")
    job_command "$1"
    ended_well "$file" && [[ $(tac "$file" | sed -n '/^# Running on /{n;p;q}') == "$(head_line "${job_words[@]}")" ]]
}

jobs_to_run() { # prints the numbers of the jobs to start with
    local job
    for (( job = first; job <= last; job++ )); do
        if ! $only_failed || ! done_before "$job"; then echo "$job"; fi
    done
}

last_lines() { # last_lines LOG: the last five that the job itself wrote
    tac "$1" | sed -e '/^# Started at /Q' -e '/^# Accounting: /d' -e '/^# Ended (/d' -e '/^#$/d' | head -n 5 | tac
}

tell_failures() { # tell_failures NUMBER=WHY ...: names the logs and shows the end of the first
    local each file what shown=false
    for each in "$@"; do
        file=$(in_job "${each%%=*}" "$log")
        what="job"
        (( first == last )) || what="job ${each%%=*} of $last"
        echo "$me: $what failed${each#*=}, log is in $file" >&2
        $shown || { [[ ! -f $file ]] || last_lines "$file" >&2; }
        shown=true
    done
}
