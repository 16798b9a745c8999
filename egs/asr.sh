#!/usr/bin/env bash
# The one stage driver of every recipe: which program runs in which order on which files. A recipe's run.sh names its
# data sets and YAML files and calls this from its own folder. What a stage does is Python, with what numbers is YAML.
set -euo pipefail

help_message="usage: ./run.sh [--stage N] [--stop_stage N] [--nj N] [--ngpu N] [--dry_run] [other options]

 stage  1 prepare the corpus          5 projector alignment
        2 check and format the data   6 iterative asynchronous fine-tuning
        3 tokenizer                   7 joint fine-tuning
        4 encoder pretraining         8 decode   9 score   10 report

  --stage N, --stop_stage N   first and last stage to run (1, 10)
  --nj N                      decoding jobs (1)
  --ngpu N                    GPUs for training and decoding; 0 is the CPU (0)
  --nproc N                   training processes on the CPU, with a thread each (1); max_seconds of a batch is for each
  --dry_run                   print the commands, run nothing
  --quick                     a tiny encoder, a few steps and CTC alone, in minutes on a CPU and in folders of its own
                              (data_quick dump_quick exp_quick): shows that all stages run, not what the recipe can do
  --train_set --valid_set     names of directories under data/
  --test_sets \"A B\"           names of directories under data/
  --tokenizer --train_encoder --train_align --train_iasft --train_joint
                              YAML file of the stage; without one the stage is skipped
  --schedule FILE             shell file that sets these four anew, such as conf/schedules/s5.sh (docs/schedules.md)
  --decode \"A.yaml B.yaml\"    decodings of the last experiment that is trained, or of --decode_exp \"EXP EXP\", or of
                              every one that has an LLM: --decode_exp all
  --baseline \"A.yaml\"         recognisers decoded as they come, without training
  --score FILE                YAML file of the scoring (conf/score.yaml)
  --format BOOL               false: train on the data directories as they are, without a formatted copy (true)
  --datadir, --dumpdir, --expdir
                              where data directories, formatted data and experiments go (data, dump, exp)
  --results FILE              where the report goes (RESULTS.md)
  --prepare_args \"...\"        more arguments for local/prepare.py
  --config FILE               shell file that sets these options
A run that is started again continues where it stopped."

stage=1
stop_stage=10
nj=1
ngpu=0
nproc=1
dry_run=false
quick=false
format=true
train_set=
valid_set=
test_sets=
tokenizer=
train_encoder=
train_align=
train_iasft=
train_joint=
schedule=
decode=
decode_exp=
baseline=
score=conf/score.yaml
datadir=data
dumpdir=dump
expdir=exp
results=RESULTS.md
prepare_args=
command=./run.sh # what the user typed, for the report
# shellcheck source=../utils/parse_options.sh
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
# shellcheck source=../utils/supervise.sh
. "$(dirname "${BASH_SOURCE[0]}")/../utils/supervise.sh"

if [[ -n $schedule ]]; then
    train_encoder='' train_align='' train_iasft='' train_joint=''
    [[ -f $schedule ]] || { echo "asr.sh: no such schedule: $schedule" >&2; exit 2; }
    # shellcheck disable=SC1090
    . "$schedule"
fi
if $quick; then
    small=$(dirname "${BASH_SOURCE[0]}")/quick
    tokenizer=$small/tokenizer.yaml train_encoder=$small/train_encoder.yaml train_align='' train_iasft='' train_joint=''
    decode=$small/decode_ctc.yaml decode_exp='' baseline=''
    [[ $datadir != data ]] || datadir=data_quick
    [[ $dumpdir != dump ]] || dumpdir=dump_quick
    [[ $expdir != exp ]] || expdir=exp_quick
    [[ $results != RESULTS.md ]] || results=$expdir/RESULTS.md
fi

$format || dumpdir=$datadir

runner=$(dirname "${BASH_SOURCE[0]}")/../utils/run.sh
train_cmd=${train_cmd:-$runner} # cmd.sh of the recipe sets these two
decode_cmd=${decode_cmd:-$runner}

say() { echo "$(date '+%F %T') $*" >&2; }
refuse() { echo "asr.sh: $*" >&2; exit 2; }

[[ $# -eq 0 ]] || refuse "unexpected argument '$1': options begin with --"
for option in train_set valid_set test_sets; do
    [[ -n ${!option} ]] || refuse "--$option is required"
done
for option in stage stop_stage nj ngpu nproc; do
    [[ ${!option} =~ ^(0|[1-9][0-9]*)$ ]] || refuse "--$option takes a whole number, not '${!option}'"
done
for option in nj nproc; do
    (( ${!option} >= 1 )) || refuse "--$option takes a number from 1, not '${!option}'"
done
(( ngpu == 0 )) || nproc=$ngpu # a process for each GPU
for file in $tokenizer $train_encoder $train_align $train_iasft $train_joint $decode $baseline $score; do
    [[ -f $file ]] || refuse "no such configuration file: $file"
done

experiment() { echo "$expdir/$(basename "$1" .yaml)"; }
if [[ $decode_exp == all ]]; then
    decode_exp=$(for file in $train_align $train_iasft $train_joint; do experiment "$file"; done)
fi
for file in $train_joint $train_iasft $train_align $train_encoder; do
    decode_exp=${decode_exp:-$(experiment "$file")}
done
[[ -z $decode || -n $decode_exp ]] || refuse "--decode needs an experiment: no training stage has a file; name one with --decode_exp"

run() { # run RUNNER ... LOG COMMAND ...: under the runner, which writes the log and names it on failure
    local log
    for log in "$@"; do [[ $log != *.log ]] || break; done
    if $dry_run; then
        "$(dirname "${BASH_SOURCE[0]}")/../utils/print_args.sh" "$@"
    else
        say "log: $log"
        supervise "$@"
    fi
}

prepare() {
    # shellcheck disable=SC2086 # the extra arguments are words
    run $train_cmd "$expdir/log/prepare.log" python local/prepare.py --out "$datadir" $prepare_args
}

check_and_format() {
    local set out=()
    for set in $train_set $valid_set $test_sets; do
        ! $format || out=(--format "$dumpdir/$set")
        run $train_cmd "$expdir/log/check_data.$set.log" \
            python -m asrllm.bin.check_data "$datadir/$set" --nj "$nj" "${out[@]}"
    done
}

train_units() {
    run $train_cmd "$expdir/log/train_tokenizer.log" \
        python -m asrllm.bin.train_tokenizer --config "$1" --text "$dumpdir/$train_set/text" --out "$expdir/tokenizer"
}

train() {
    local launcher=(python)
    (( nproc == 1 )) || launcher=(torchrun --standalone --nproc_per_node "$nproc")
    run $train_cmd --gpu "$ngpu" "$(experiment "$1")/log/train.log" \
        "${launcher[@]}" -m asrllm.bin.train --config "$1" --train_data "$dumpdir/$train_set" \
        --valid_data "$dumpdir/$valid_set" --tokenizer "$expdir/tokenizer" --exp "$(experiment "$1")" --ngpu "$ngpu"
}

results() { # CONFIG EXPERIMENT SET FOLDER, a line for each decoding
    local exp file set
    for file in $baseline; do for set in $test_sets; do
        echo "$file $expdir/zero_shot $set $expdir/zero_shot/$(basename "$file" .yaml)/$set"
    done; done
    for exp in $decode_exp; do for file in $decode; do for set in $test_sets; do
        echo "$file $exp $set $exp/$(basename "$file" .yaml)/$set"
    done; done; done
}

decode_sets() {
    local file exp set out
    while read -r -u 4 file exp set out; do
        run $decode_cmd --gpu "$ngpu" JOB=1:"$nj" "$out/log/decode.JOB.log" \
            python -m asrllm.bin.decode --config "$file" --exp "$exp" --data "$dumpdir/$set" --out "$out" \
            --shard "JOB/$nj" --ngpu "$ngpu"
    done 4< <(results)
}

score_sets() { # local/wer_output_filter and local/score.sh of the recipe have their say, as in Kaldi
    local file exp set out filter=()
    [[ ! -x local/wer_output_filter ]] || filter=(--filter local/wer_output_filter)
    while read -r -u 4 file exp set out; do
        run $train_cmd "$out/log/score.log" \
            python -m asrllm.bin.score --config "$score" --ref "$dumpdir/$set" --hyp "$out" --audio "$datadir/$set" \
            "${filter[@]}"
        [[ ! -x local/score.sh ]] || run $train_cmd "$out/log/local_score.log" local/score.sh "$dumpdir/$set" "$out"
    done 4< <(results)
}

report() {
    run $train_cmd "$expdir/log/report.log" \
        python -m asrllm.bin.report --exp "$expdir" --out "$results" --command "$command"
}

number=
ended() {
    local code=$? what='failed; when it is mended'
    (( code <= 128 )) || what='was stopped' # by a signal
    [[ $code == 0 || -z $number ]] || say "stage $number $what, go on with: ./run.sh --stage $number"
}
trap ended EXIT

run_stage() { # run_stage NUMBER TITLE FUNCTION [CONFIG ...]: a stage that takes files is skipped if it is given none
    (( stage <= $1 && $1 <= stop_stage )) || return 0
    local begin=$SECONDS title=$2 function=$3
    number=$1
    shift 3
    if [[ $# -gt 0 && -z $* ]]; then
        say "stage $number: $title: skipped, no configuration file is given"
        return 0
    fi
    say "stage $number: $title"
    "$function" "$@"
    $dry_run || say "stage $number: done in $(( SECONDS - begin )) s"
}

$dry_run || supervise "$(dirname "${BASH_SOURCE[0]}")/../tools/install.sh" || exit

run_stage 1 "prepare the corpus" prepare
run_stage 2 "check and format the data" check_and_format
run_stage 3 "tokenizer" train_units "$tokenizer"
run_stage 4 "encoder pretraining" train "$train_encoder"
run_stage 5 "projector alignment" train "$train_align"
run_stage 6 "iterative asynchronous fine-tuning" train "$train_iasft"
run_stage 7 "joint fine-tuning" train "$train_joint"
run_stage 8 "decode" decode_sets "$decode$baseline"
run_stage 9 "score" score_sets "$decode$baseline"
run_stage 10 "report" report
number=
