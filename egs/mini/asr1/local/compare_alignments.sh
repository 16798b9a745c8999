#!/usr/bin/env bash
# Aligns variants of SLAM-ASR's set-up with the same FLOPs, decodes dev, prints and writes a table (docs/schedules.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../path.sh
. ./path.sh
# shellcheck source=../cmd.sh
. ./cmd.sh

help_message="usage: local/compare_alignments.sh [options]; stages 1 to 4 of run.sh come first
  --alignments \"A B\"   conf/train_align_A.yaml and so on, posterior: conf/train_align.yaml (all of them); the first is
                       the one that the others are compared with
  --flops F            training FLOPs of each, forward and backward, of all parts (8e13)
  --every N            steps between two validations (25)
  --expdir DIR         where the experiments go, and alignments.md, the table (exp_alignments)
  --ngpu N             GPUs (0)
  --nproc N            training processes on the CPU (2)
  --dry_run            print the commands, run nothing
A run that is started again continues where it stopped."
alignments="linear linear_trained_encoder linear_random_llm"
alignments+=" linear_no_prompt linear_long_prompt linear_random_prompt linear_stride2 linear_stride4"
alignments+=" fbank whisper moonshine posterior conv transformer window_qformer segment_qformer"
flops=8e13
every=25
expdir=exp_alignments
ngpu=0
nproc=2
dry_run=false
# shellcheck source=../../../../utils/parse_options.sh
. ../../../utils/parse_options.sh
# shellcheck source=../../../../utils/supervise.sh
. ../../../utils/supervise.sh
supervise_runners
! $dry_run || train_cmd=../../../utils/print_args.sh decode_cmd=../../../utils/print_args.sh

(( ngpu == 0 )) || nproc=$ngpu
experiments=()
for name in $alignments; do
    exp=$expdir/$name
    config=conf/train_align_$name.yaml
    [[ $name != posterior ]] || config=conf/train_align.yaml
    $train_cmd --gpu "$ngpu" "$exp/log/train.log" \
        torchrun --standalone --nproc_per_node "$nproc" -m asrllm.bin.train --config "$config" \
        --train_data dump/train --valid_data dump/dev --tokenizer exp/tokenizer --exp "$exp" --ngpu "$ngpu" \
        --set stage.phases.0.steps=null --set "stage.phases.0.flops=$flops" \
        --set "train.valid_every_steps=$every" --set train.log_every_steps=5
    $decode_cmd --gpu "$ngpu" "$exp/decode_greedy/dev/log/decode.log" \
        python -m asrllm.bin.decode --config conf/decode_greedy.yaml --exp "$exp" --data dump/dev \
        --out "$exp/decode_greedy/dev" --ngpu "$ngpu"
    $train_cmd "$exp/decode_greedy/dev/log/score.log" \
        python -m asrllm.bin.score --config conf/score.yaml --ref dump/dev --hyp "$exp/decode_greedy/dev"
    experiments+=("$exp")
done
$dry_run || python local/alignment_table.py "${experiments[@]}" --out "$expdir/alignments.md"
