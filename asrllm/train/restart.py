"""exp/<name>/run.sh: the command that made an experiment, to start it again from any directory.

It knows a command line; not what it trains.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from asrllm import dist
from asrllm.console import write_atomically


def command(program: str, arguments: Sequence[str]) -> str:
    """How to start `program`, a module, as it was started: by torchrun where there are several processes."""
    here = os.environ.get("LOCAL_WORLD_SIZE", "1")  # processes of this machine
    launcher = ["python"] if dist.world_size() == 1 else ["torchrun", "--standalone", "--nproc_per_node", here]
    return shlex.join([*launcher, "-m", program, *arguments])


def write(exp: Path, line: str) -> None:
    """Write run.sh, which goes to the present directory by the way from `exp` and runs `line` there."""
    way = shlex.quote(os.path.relpath(Path.cwd(), exp.absolute()))
    text = f"""#!/usr/bin/env bash
# Starts this experiment again where it stopped; more options may follow.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
cd {way}
if [[ -f path.sh ]]; then . ./path.sh; else PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH; fi
exec {line} "$@"
"""
    with write_atomically(exp / "run.sh") as temporary:
        temporary.write_text(text)
        temporary.chmod(0o755)
