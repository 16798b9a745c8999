#!/usr/bin/env bash
# Kaldi's data tools. Each of Kaldi's names is a link to this file: utils/subset_data_dir.sh ... runs
# python -m asrllm.bin.data_dir subset_data_dir ... (--help lists the options).
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../tools/activate.sh"
name=$(basename "$0")
exec python -m asrllm.bin.data_dir "${name%.*}" "$@"
