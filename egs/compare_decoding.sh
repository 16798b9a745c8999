#!/usr/bin/env bash
# Decodes with one model in every way, weights tuned on dev and applied to test, and writes one table (docs/decoding.md).
set -euo pipefail

help_message="usage: ../../compare_decoding.sh [options], in the folder of a recipe, after its run.sh
  --exp EXP            a speech LLM; all searches use its encoder and CTC head (exp/train_align)
  --train_set NAME     formatted data directory for the label prior (train)
  --valid_set NAME     that weights are tuned on (dev)
  --test_sets \"A B\"    that they are applied to: the columns of the table (test)
  --dumpdir DIR        where these lie (dump)
  --expdir DIR         where the decodings go (exp_decoding)
  --results FILE       where the table goes (DECODING.md); it is written anew after each kind of search
  --ngpu N             GPUs (0)
  --dry_run            print the commands, run nothing
A run that is started again continues where it stopped."
exp=exp/train_align
train_set=train
valid_set=dev
test_sets="test"
dumpdir=dump
expdir=exp_decoding
results=DECODING.md
ngpu=0
dry_run=false
print_args() { "$(dirname "${BASH_SOURCE[0]}")/../utils/print_args.sh" "$@"; }
command=$(print_args ../../compare_decoding.sh "$@")
# shellcheck source=../utils/parse_options.sh
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"

refuse() { echo "compare_decoding.sh: $*" >&2; exit 2; }
[[ $# -eq 0 ]] || refuse "unexpected argument '$1': options begin with --"
[[ -f path.sh && -f cmd.sh ]] || refuse "no path.sh and cmd.sh here: start it in the folder of a recipe"
# shellcheck source=mini/asr1/path.sh
. ./path.sh
# shellcheck source=mini/asr1/cmd.sh
. ./cmd.sh
# shellcheck source=../utils/supervise.sh
. "$(dirname "${BASH_SOURCE[0]}")/../utils/supervise.sh"
supervise_runners
! $dry_run || train_cmd=print_args decode_cmd=print_args

out=$expdir/$(basename "$exp")
tuned=$out/conf
fusion=conf/decode_ctc_llm_every10.yaml
sets=$test_sets

decode() { # decode SEARCH YAML [OPTION ...]
    local search=$1 config=$2 set
    shift 2
    for set in $sets; do
        $decode_cmd --gpu "$ngpu" "$out/decode_$search/$set/log/decode.log" \
            python -m asrllm.bin.decode --config "$config" --exp "$exp" --data "$dumpdir/$set" \
            --out "$out/decode_$search/$set" --ngpu "$ngpu" "$@"
    done
    score "$search"
}

rescore() { # rescore SEARCH YAML LISTS [OPTION ...]: the n-best lists that another search has found
    local search=$1 config=$2 lists=$3 set
    shift 3
    for set in $sets; do
        $decode_cmd --gpu "$ngpu" "$out/decode_$search/$set/log/rescore.log" \
            python -m asrllm.bin.rescore --config "$config" --in "$out/decode_$lists/$set" \
            --out "$out/decode_$search/$set" --ngpu "$ngpu" "$@"
    done
    score "$search"
}

score() { # score SEARCH: its row of the table
    local set
    for set in $test_sets; do
        $train_cmd "$out/decode_$1/$set/log/score.log" \
            python -m asrllm.bin.score --config conf/score.yaml --ref "$dumpdir/$set" --hyp "$out/decode_$1/$set"
    done
}

tune() { # tune NAME YAML LISTS [OPTION ...]: the best weights for dev's lists, into $tuned/NAME.yaml
    local name=$1 config=$2 lists=$3
    shift 3
    $train_cmd "$tuned/log/$name.log" \
        python -m asrllm.bin.tune --config "$config" --in "$out/decode_$lists/$valid_set" \
        --ref "$dumpdir/$valid_set" --out "$tuned/$name.yaml" "$@"
}

report() { # with the model's own summary beside its decodings, for the commit that it was trained with
    $dry_run || cp "$exp/summary.json" "$out/summary.json"
    $train_cmd "$out/log/report.log" \
        python -m asrllm.bin.report --exp "$expdir" --searches "$results" --command "$command"
}

prior=(--set "weights.prior={low: -0.5, high: -0.05, points: 10}") # of tuning: divided out, be it for good or ill
[[ -f $exp/prior.json ]] || $train_cmd --gpu "$ngpu" "$exp/log/estimate_prior.log" \
    python -m asrllm.bin.estimate_prior --exp "$exp" --data "$dumpdir/$train_set" --ngpu "$ngpu"

# CTC alone; then a language model over text orders its lists anew, by the weights of the YAML and by tuned ones.
decode ctc conf/decode_ctc.yaml
sets="$valid_set $test_sets" decode ctc_prefix conf/decode_ctc_prefix.yaml
sets="$valid_set $test_sets" rescore ctc_llm_rescored conf/rescore_lm.yaml ctc_prefix \
    --exp "$exp" --set "scorers.prior={type: prior}"
tune rescored conf/tune_lm.yaml ctc_llm_rescored
rescore ctc_llm_rescored_tuned "$tuned/rescored.yaml" ctc_llm_rescored
report

# The speech LLM, alone and jointly with CTC. A weight of 0 only puts the score into the lists.
decode llm_beam1 conf/decode_beam.yaml --set search.beam=1 --set search.nbest=1
sets="$valid_set $test_sets" decode joint conf/decode_joint.yaml \
    --set search.weights.length=0 --set search.weights.prior=0
tune joint conf/tune_joint.yaml joint --base conf/decode_joint.yaml
decode joint_tuned "$tuned/joint.yaml"
decode llm_beam4 conf/decode_beam.yaml --set search.beam=4 --set search.nbest=1
decode llm_beam4_per_token conf/decode_beam.yaml --set search.beam=4 --set search.nbest=1 \
    --set search.length_exponent=1
report

# CTC and the language model in one search, delayed or label by label, with the weights tuned on the lists.
tune fused conf/tune_lm.yaml ctc_llm_rescored --base "$fusion"
for frames in 10 20 5 1; do
    decode "ctc_llm_every$frames" "$tuned/fused.yaml" --set "search.trigger={type: interval, frames: $frames}"
done
for trigger in end shortest; do
    decode "ctc_llm_$trigger" "$tuned/fused.yaml" --set "search.trigger={type: $trigger}"
done
decode ctc_llm_label "$tuned/fused.yaml" --set "search.trigger={type: label}" --set search.units=labels
report

# The label prior divided out
tune rescored_prior conf/tune_lm.yaml ctc_llm_rescored "${prior[@]}"
rescore ctc_llm_rescored_tuned_prior "$tuned/rescored_prior.yaml" ctc_llm_rescored
tune fused_prior conf/tune_lm.yaml ctc_llm_rescored --base "$fusion" "${prior[@]}"
decode ctc_llm_every10_prior "$tuned/fused_prior.yaml"
tune joint_prior conf/tune_joint.yaml joint --base conf/decode_joint.yaml "${prior[@]}"
decode joint_tuned_prior "$tuned/joint_prior.yaml"
report

# Beams
for beam in 2 8 16; do
    decode "llm_beam$beam" conf/decode_beam.yaml --set "search.beam=$beam" --set search.nbest=1
done
report
$dry_run || cat "$results"
