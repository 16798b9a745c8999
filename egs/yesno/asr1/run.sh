#!/usr/bin/env bash
# yesno (OpenSLR 1): two words by one speaker; the smallest recipe that learns anything.
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
    --decode "conf/decode_ctc.yaml conf/decode_joint.yaml" \
    --command "$(../../../utils/print_args.sh ./run.sh "$@")" \
    "$@"
