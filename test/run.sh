#!/usr/bin/env bash
# All checks and tests; sets up what it needs. Arguments go to pytest: `test/run.sh test/data -k segments`.
# Tests that take long are left out: `test/run.sh -m slow` runs these, `-m ""` all. Each core takes a share of them, up to 4.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../tools/activate.sh
. tools/activate.sh
tools/install.sh --dev

ruff check .
ruff format --check .
mypy
find . \( -path ./tools/venv -o -path ./downloads -o -path './egs/*/*/exp*' -o -path ./.git \) -prune \
    -o \( -name '*.sh' -o -path ./.ci/run \) -print0 | xargs -0 shellcheck

if [[ -z ${ASRLLM_PRETRAINED:-} ]]; then
    while read -r program part; do
        [[ -d downloads/$part ]] || python "tools/pretrained/$program.py" --out "downloads/$part" ||
            echo "run.sh: no downloads/$part: the tests that need it are skipped" >&2
    done <<'END'
smollm2 smollm2-135m-instruct
moonshine moonshine-base
whisper_tiny whisper-tiny.en
END
fi

exec python -m pytest -n auto --maxprocesses 4 -m "not slow" "$@"
