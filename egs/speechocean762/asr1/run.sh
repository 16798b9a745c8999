#!/usr/bin/env bash
# speechocean762 (OpenSLR 101): read English of 250 non-native speakers, a pretrained encoder, SmolLM2-135M. Stages 6 and 7
# are not part of the short run: ./run.sh --train_iasft conf/train_iasft.yaml --train_joint conf/train_joint.yaml --decode_exp all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./path.sh
. ./cmd.sh

exec ../../asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "test" \
    --tokenizer conf/tokenizer.yaml \
    --train_encoder conf/train_encoder.yaml \
    --train_align conf/train_align.yaml \
    --decode "conf/decode_ctc.yaml conf/decode_fusion.yaml conf/decode_greedy.yaml conf/decode_joint.yaml" \
    --baseline conf/zero_shot.yaml \
    --nproc 2 \
    --nj 2 \
    --command "$(../../../utils/print_args.sh ./run.sh "$@")" \
    "$@"
