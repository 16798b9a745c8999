#!/usr/bin/env bash
# AISHELL-1 (OpenSLR 33): read Mandarin; characters as units, scored in characters.
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
    --train_iasft conf/train_iasft.yaml \
    --train_joint conf/train_joint.yaml \
    --decode "conf/decode_ctc.yaml conf/decode_beam.yaml conf/decode_joint.yaml" \
    --command "$(../../../utils/print_args.sh ./run.sh "$@")" \
    "$@"
