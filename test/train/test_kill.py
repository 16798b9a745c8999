"""kill -9 between any two file operations, several times in a row; then the same end as an uninterrupted run.

The points are drawn with a seed from all that touch the experiment, so that files are left empty and folders
half-written, in pretraining with snapshots, across swaps of the encoder and across phases.
"""

import json
import multiprocessing
import random
import signal
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).parent))
import killed


def run(exp: Path, pretraining: Path | None, kill_at: int = -1) -> int:
    """The exit code of a training in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["asrllm.train.trainer"])
    child = context.Process(target=killed.train, args=(exp, pretraining, kill_at))
    child.start()
    child.join(120)
    return child.exitcode


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An uninterrupted pretraining, and a training on its encoders."""
    folder = tmp_path_factory.mktemp("whole")
    pretraining, swaps = folder / "pretraining", folder / "swaps"
    assert run(pretraining, None) == 0
    assert run(swaps, pretraining) == 0
    return pretraining, swaps


def stored(exp: Path) -> dict[str, dict[str, torch.Tensor]]:
    """All weights below an experiment: final, checkpoints, snapshots."""
    return {str(path.relative_to(exp)): safetensors.torch.load_file(path) for path in exp.rglob("*.safetensors")}


def told(exp: Path) -> list[dict]:
    """What its metrics say but for speeds and means, which begin anew with a process."""
    lines = [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] != "train"]


CASES = [(what, seed) for what in ("swaps", "pretraining") for seed in range(20)]


@pytest.mark.parametrize(
    ("what", "seed"), [CASES[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES[1:])]
)
def test_killed_anywhere_ends_as_if_nothing_had_been(
    wholes: tuple[Path, Path], tmp_path: Path, what: str, seed: int
) -> None:
    whole = wholes[what == "swaps"]
    source = wholes[0] if what == "swaps" else None
    events = int(Path(f"{whole}.events").read_text())
    draw = random.Random(seed)
    exp = tmp_path / what
    codes = [run(exp, source, draw.randrange(events // 2)) for _ in range(3)]
    assert codes[0] == -signal.SIGKILL and set(codes) <= {0, -signal.SIGKILL}  # 0: fewer events were left than drawn
    assert run(exp, source) == 0
    left, right = stored(whole), stored(exp)
    assert left.keys() == right.keys()
    assert [name for name in left for key in left[name] if not left[name][key].equal(right[name][key])] == []
    assert list(exp.rglob(".*")) == []
    assert told(whole) == told(exp)
