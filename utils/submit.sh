#!/usr/bin/env bash
# shellcheck disable=SC2016,SC2154 # what the batch expands; what the runner sets
# Source this in the runner of a queue. Before: the rules of the queue in $default_rules, the function submit (below) and
# any_option=true. It reads the arguments (jobs.sh) and the rules, then submits an array, waits and tells what failed.
#
# A rule is a line, as in Kaldi's conf/slurm.conf and conf/queue.conf: `command WORDS` is what submits, `default NAME=VALUE`
# sets an option, `option NAME=VALUE WORDS` and `option NAME=* WORDS` say what an option adds; $0 in WORDS is its value.
# The file is --config, else conf/<runner's name>.conf where there is one, else $default_rules.

# shellcheck source=jobs.sh
. "$(dirname "${BASH_SOURCE[0]}")/jobs.sh"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

[[ ${command[*]:0:2} == 'torchrun --standalone' ]] || unset 'options[nodes]' # one process needs one node

if [[ -n $config ]]; then
    [[ -r $config ]] || fail "--config: no such file: '$config'"
elif [[ -f conf/${me%.*}.conf ]]; then
    config=conf/${me%.*}.conf
fi
rules=$default_rules
[[ -z $config ]] || rules=$(<"$config")

queue_words=() # the submitting command
declare -A exact=() any=()
while read -r kind name words; do
    case $kind in
        '' | '#'*) ;;
        command) read -r -a queue_words <<<"$name $words" ;;
        default) [[ -n ${options[${name%%=*}]+set} ]] || options[${name%%=*}]=${name#*=} ;;
        option) if [[ $name == *'=*' ]]; then any[${name%=\*}]=$words; else exact[$name]=$words; fi ;;
        *) fail "${config:-rules}: found '$kind', expected command, option or default at the beginning of a line" ;;
    esac
done <<<"$rules"
(( ${#queue_words[@]} > 0 )) || fail "$config: no line begins with command, such as 'command sbatch'"
for name in $(printf '%s\n' "${!options[@]}" | LC_ALL=C sort); do
    value=${options[$name]}
    if [[ -n ${exact[$name=$value]+set} ]]; then
        words=${exact[$name=$value]}
    else
        [[ -n ${any[$name]+set} ]] || fail "unknown option --$name $value: ${config:-the built-in rules} have no line for it"
        words=${any[$name]//'$0'/$value}
    fi
    read -r -a words <<<"$words"
    queue_words+=("${words[@]}")
done

folder=$(dirname "$(in_job 0 "$log")")
mkdir -p "$folder/q" || exit 1
name=$(basename "$log" .log) && name=${name//[^A-Za-z0-9_.-]/_} # of the job in the queue
batch=$folder/q/$name.sh

write_batch() { # write_batch VARIABLE NUMBER ...: the script that the queue starts, for task N (in VARIABLE) the N-th job
    local number=$1 words=()
    shift
    [[ -z ${options[num_threads]:-} ]] || words=(--num_threads "${options[num_threads]}")
    {
        printf '#!/usr/bin/env bash\n# Written by %s. Task N of the array is the N-th of these jobs.\n' "$me"
        printf 'cd %q || exit 1\n' "$PWD"
        printf 'numbers=(%s)\njob=${numbers[${%s:-1}-1]}\n' "$*" "$number"
        batch_setup
        printf 'exec '
        printf '%q ' "$here/run.sh" "${words[@]}"
        printf '"%s=$job" ' "${variable:-JOB}"
        printf '%q ' "$log"
        batch_command
        printf '\n'
    } >"$batch"
    chmod +x "$batch"
}

batch_setup() { :; }
batch_command() { printf '%q ' "${command[@]}"; }

stop() { # stop CODE: takes the jobs out of the queue
    trap - INT TERM HUP
    cancel
    exit "$1"
}

run_array() {
    trap 'stop 130' INT
    trap 'stop 143' TERM HUP
    local waiting failed again job try file
    mapfile -t waiting < <(jobs_to_run)
    failed=()
    for (( try = 1; try <= tries && ${#waiting[@]} > 0; try++ )); do
        submit "${waiting[@]}" # writes the batch, waits until the queue has no job of it
        again=()
        failed=()
        for job in "${waiting[@]}"; do
            file=$(in_job "$job" "$log")
            [[ $file -nt $batch ]] && ended_well "$file" && continue # an older log is of an earlier run
            again+=("$job")
            failed+=("$job=")
        done
        waiting=("${again[@]}")
        (( ${#again[@]} == 0 || try == tries )) || echo "$me: try $try of $tries: ${#again[@]} job(s) failed, once more" >&2
    done
    tell_failures "${failed[@]}"
    (( ${#failed[@]} == 0 )) || echo "$me: what the queue itself said is in $folder/q" >&2
    (( ${#failed[@]} == 0 ))
}
