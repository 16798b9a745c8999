#!/usr/bin/env bash
# The Markdown tables of all decodings below exp/, as ESPnet users paste them.
set -euo pipefail

if [[ $# -gt 1 || ${1:-} == -* ]]; then
    echo "usage: utils/show_result.sh [EXP]   (exp)" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=python
[[ ! -x $root/tools/venv/bin/python ]] || python=$root/tools/venv/bin/python
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m asrllm.bin.report --exp "${1:-exp}" --tables
