#!/usr/bin/env bash
# LibriSpeech (OpenSLR 12): read English; 100 hours, or all 960 by the options in README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./path.sh
. ./cmd.sh

exec ../../asr.sh \
    --train_set train_clean_100 \
    --valid_set dev \
    --test_sets "test_clean test_other" \
    --tokenizer conf/tokenizer.yaml \
    --train_encoder conf/train_encoder.yaml \
    --train_align conf/train_align.yaml \
    --train_iasft conf/train_iasft.yaml \
    --train_joint conf/train_joint.yaml \
    --decode "conf/decode_ctc.yaml conf/decode_beam.yaml conf/decode_joint.yaml" \
    --command "$(../../../utils/print_args.sh ./run.sh "$@")" \
    "$@"
