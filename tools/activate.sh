#!/usr/bin/env bash
# Source this: puts the project and its environment first on the paths. The environment is tools/venv, or the active
# one where `tools/install.sh --active` has been run.

_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
if [[ -z $_active || ! -e $_active/.asrllm_installed ]]; then
    export VIRTUAL_ENV=$_root/tools/venv
    unset PYTHONHOME
fi
[[ -z ${VIRTUAL_ENV:-} ]] || export PATH=$VIRTUAL_ENV/bin:$PATH
export PYTHONPATH=$_root${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1        # a log shows what happens when it happens
export LC_ALL=C.UTF-8            # text is UTF-8 everywhere, order is that of bytes
export OMP_WAIT_POLICY=PASSIVE   # spinning threads of two jobs on the same cores starve each other
unset _root _active
