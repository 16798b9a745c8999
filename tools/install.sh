#!/usr/bin/env bash
# Makes the Python environment of asrllm, or completes it; needs no root, no compiler. Quick when all is there.
set -euo pipefail

help_message="usage: tools/install.sh [--active] [--dev] [--python PYTHON]
  --active         install into the active virtual or conda environment instead of tools/venv
  --dev            also what the tests need: pytest, ruff, mypy, shellcheck, and the extras import, phonemes, vad
  --python PYTHON  make tools/venv with this Python, 3.10 or newer (default: python3)
An installed torch is kept. Without a torch: one with CUDA where there is an NVIDIA GPU, else a CPU build."
active=false
dev=false
python=python3
# shellcheck source=../utils/parse_options.sh
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { echo "install.sh: $*"; }
die() { echo "install.sh: $*" >&2; exit 1; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
[[ $# -eq 0 ]] || { echo "install.sh: unexpected argument $1" >&2; exit 2; }

environment=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
if $active || [[ -n $environment && -e $environment/.asrllm_installed ]]; then
    [[ -n $environment ]] || die "--active, but no virtual or conda environment is active: activate one, or leave --active out"
else
    environment=$PWD/tools/venv
    if [[ ! -x $environment/bin/python ]]; then
        is_new_enough "$python" || die "'$python' is not a Python of version 3.10 or newer: name one with --python"
        say "making tools/venv"
        "$python" -m venv --clear "$environment" || {
            rm -rf "$environment"
            die "'$python -m venv' failed: on Debian and Ubuntu install python3-venv, or name another Python with --python"
        }
    fi
fi
py=$environment/bin/python
[[ -x $py ]] || die "the active environment has no $py"
is_new_enough "$py" || die "$py is older than 3.10: activate another environment, or leave --active out"

if $dev; then stamp=$environment/.asrllm_installed_dev check=(--dev); else stamp=$environment/.asrllm_installed check=(); fi
check=("$py" tools/check_install.py --stamp "$stamp" ${check[@]+"${check[@]}"})
"${check[@]}" --quiet && exit 0

pip() { "$py" -m pip "$1" -qq --disable-pip-version-check "${@:2}"; }
has_gpu() { nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }
torch_version() { "$py" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null; }

# The range whose CUDA is that of torchaudio's wheel; a CPU build of the same range has been tested.
tested="torch>=2.11,<2.15"
if version=$(torch_version); then
    say "keeping torch $version"
    "$py" -c 'import sys; sys.exit(tuple(int(n) for n in sys.argv[1].split(".")[:2]) < (2, 6))' "$version" ||
        die "torch $version is older than 2.6: install a newer one, or leave --active out"
elif has_gpu; then
    say "installing torch with CUDA"
    pip install "$tested"
else
    say "no NVIDIA GPU: installing a CPU build of torch"
    pip install "torch==2.13.0+cpu" 2>/dev/null || {
        pip install uv
        "$py" -m uv pip install --quiet --python "$py" --torch-backend=cpu "$tested"
    }
fi
version=$(torch_version) || die "torch was not installed"

extras=pretrained
if $dev; then extras+=,dev,import,phonemes,vad; fi
say "installing asrllm and what it needs beside torch $version"
pip install "setuptools>=64" wheel
pip install --no-build-isolation --constraint <(echo "torch==$version") --editable ".[$extras]"

# torchaudio up to 2.10 fits only the torch of its own version; 2.11 fits every later one.
torchaudio=$("$py" - "$version" <<'END'
import sys

major, minor = (int(number) for number in sys.argv[1].split(".")[:2])
print(f"torchaudio=={major}.{minor}.*" if (major, minor) < (2, 11) else "torchaudio>=2.11")
END
)
pip install --no-deps "$torchaudio"
if has_gpu && ! compgen -G "$("$py" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/torchaudio/lib/*.so" >/dev/null; then
    pip install --no-deps --force-reinstall "$torchaudio" # mended once for a CPU torch: the libraries come back
fi
"$py" tools/mend_torchaudio.py

"${check[@]}"
