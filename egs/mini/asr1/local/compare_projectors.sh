#!/usr/bin/env bash
# Aligns each projector to the encoder of stage 4 with the same FLOPs, decodes dev, prints a table (docs/schedules.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../path.sh
. ./path.sh
# shellcheck source=../cmd.sh
. ./cmd.sh

help_message="usage: local/compare_projectors.sh [options]; stages 1 to 4 of run.sh come first
  --projectors \"A B\"   train_align_A.yaml and so on; the first is the one that the others are compared with
  --flops F            training FLOPs of each, forward and backward, of all parts (8e13)
  --every N            steps between two validations (25)
  --encoder EXP        the experiment of stage 4 (exp/train_encoder)
  --tokenizer DIR      the units it was trained with (exp/tokenizer)
  --expdir DIR         where the experiments go (exp_projectors)
  --ngpu N             GPUs (0)
  --nproc N            training processes on the CPU (2)
A run that is started again continues where it stopped."
projectors="posterior linear conv transformer window_qformer segment_qformer"
flops=8e13
every=25
encoder=exp/train_encoder
tokenizer=exp/tokenizer
expdir=exp_projectors
ngpu=0
nproc=2
# shellcheck source=../../../../utils/parse_options.sh
. ../../../utils/parse_options.sh
# shellcheck source=../../../../utils/supervise.sh
. ../../../utils/supervise.sh
train_cmd="supervise $train_cmd" decode_cmd="supervise $decode_cmd"

(( ngpu == 0 )) || nproc=$ngpu
experiments=()
for name in $projectors; do
    exp=$expdir/$name
    config=conf/train_align_$name.yaml
    [[ $name != posterior ]] || config=conf/train_align.yaml
    phase="{flops: $flops, train: {projector: 1.0e-3}, losses: {llm: 1.0}, warmup_steps: 20, schedule: cosine}"
    $train_cmd --gpu "$ngpu" "$exp/log/train.log" \
        torchrun --standalone --nproc_per_node "$nproc" -m asrllm.bin.train --config "$config" \
        --train_data dump/train --valid_data dump/dev \
        --tokenizer "$tokenizer" --exp "$exp" --ngpu "$ngpu" --set "stage.phases=[$phase]" \
        --set "stage.init={encoder: $encoder, ctc: $encoder}" \
        --set "train.valid_every_steps=$every" --set train.log_every_steps=5
    $decode_cmd --gpu "$ngpu" "$exp/decode_greedy/dev/log/decode.log" \
        python -m asrllm.bin.decode --config conf/decode_greedy.yaml --exp "$exp" --data dump/dev \
        --out "$exp/decode_greedy/dev" --ngpu "$ngpu"
    $train_cmd "$exp/decode_greedy/dev/log/score.log" \
        python -m asrllm.bin.score --config conf/score.yaml --ref dump/dev --hyp "$exp/decode_greedy/dev"
    experiments+=("$exp")
done
python local/projector_table.py "${experiments[@]}"
