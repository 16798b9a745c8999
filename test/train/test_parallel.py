"""Two processes against one at equal global batch, and against themselves when they were not killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import processes
import pytest
import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).parent))
import joint
import toy

from asrllm.console import UserError
from asrllm.train import parallel

WAYS = ("ddp", "fsdp2")
ALONE = [  # other parts learn in every phase; the first does not reach the encoder
    {"steps": 4, "train": {"head": 0.02}, "losses": {"far": 1.0}},
    toy.BOTH | {"steps": 6},
    {"steps": 4, "train": {"encoder": 0.02}, "losses": {"near": 1.0}, "schedule": "cosine"},
]
SETTINGS = {"accumulate": 2, "average_best": 1, "valid_every_steps": 100}


def weights(exp: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(exp / "weights.safetensors")


def stored(exp: Path) -> dict[str, dict[str, torch.Tensor]]:
    """All weights below an experiment: final, checkpoints, snapshots."""
    return {str(path.relative_to(exp)): safetensors.torch.load_file(path) for path in exp.rglob("*.safetensors")}


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=atol, msg=name)


def assert_same_figures(one: Path, two: Path) -> None:
    """Losses, norms of gradients (AdamW's steps tell little of their size) and FLOPs of every step and validation."""
    lines = [[json.loads(line) for line in (exp / "metrics.jsonl").open()] for exp in (one, two)]
    for left, right in zip(*lines, strict=True):
        same = {key for key in left if "norm" in key or "loss" in key or key == "step_tflops"}
        assert {key: left[key] for key in same} == pytest.approx({key: right[key] for key in same}, rel=1e-4, abs=1e-6)


def train(
    exp: Path,
    way: str,
    phases: list[dict] = ALONE,
    count: int = 2,
    kill_at: int = -1,
    rough: bool = False,
    **more: object,
) -> list[int | None]:
    settings = {"parallel": {"type": way}, **SETTINGS, **more}
    return processes.run(toy.train, exp, kill_at, phases, rough, settings, count=count)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains."""
    exp = tmp_path_factory.mktemp("alone")
    assert train(exp, "ddp", count=1) == [0]
    return exp


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_equal_one(alone: Path, tmp_path: Path, way: str) -> None:
    """Weights, figures, and the very same checkpoint, the moments of the optimizer in it."""
    assert train(tmp_path / "two", way) == [0, 0]
    assert_close(weights(alone), weights(tmp_path / "two"), 1e-6)
    one, two = (torch.load(exp / "checkpoints/step-14/state.pt") for exp in (alone, tmp_path / "two"))
    assert one["optimizer"]["param_groups"] == two["optimizer"]["param_groups"]
    for number, moments in one["optimizer"]["state"].items():
        assert_close(moments, two["optimizer"]["state"][number], 1e-6)
    assert_same_figures(alone, tmp_path / "two")


def test_a_checkpoint_is_that_of_any_number_of_processes(alone: Path, tmp_path: Path) -> None:
    """One process begins, two go on with shares of the model, then two with all of it, and one ends."""
    assert train(tmp_path, "ddp", count=1, kill_at=5) == [-signal.SIGKILL]
    assert -signal.SIGKILL in train(tmp_path, "fsdp2", kill_at=7)
    assert -signal.SIGKILL in train(tmp_path, "ddp", kill_at=7)
    assert train(tmp_path, "fsdp2", count=1) == [0]
    assert_close(weights(alone), weights(tmp_path), 1e-6)


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Phases with encoders of a pretraining in turn, then of all parts."""
    pretraining = tmp_path_factory.mktemp("pretraining") / "encoder"
    assert train(pretraining, "ddp", [toy.PRETRAINING], 1, rough=True, snapshot_every_steps=4) == [0]
    (pretraining / "config.yaml").touch()
    swaps = toy.swapping(pretraining, mode="fixed", fractions=[0.4, 0.7, 1.0], cka={"utterances": 5})
    return [swaps, {"steps": 4, "train": {"encoder": 0.01, "head": 0.02}, "losses": {"near": 1.0}}]


@pytest.mark.parametrize("way", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp2"])
def test_killed_across_swaps_of_the_encoder_ends_as_if_nothing_had_been(
    swapping: list[dict], tmp_path: Path, way: str
) -> None:
    """Bit for bit, with dropout and batch norm; in the second turn, and in the phase after the swaps."""
    settings: dict = {"rough": True, "accumulate": 1, "snapshot_every_steps": 5}
    assert train(tmp_path / "whole", way, swapping, **settings) == [0, 0]
    for kill_at in (4, 8):
        assert -signal.SIGKILL in train(tmp_path / "cut", way, swapping, kill_at=kill_at, **settings)
    assert train(tmp_path / "cut", way, swapping, **settings) == [0, 0]
    names = sorted(path.relative_to(tmp_path / "whole") for path in tmp_path.glob("whole/**/*.safetensors"))
    assert names == sorted(path.relative_to(tmp_path / "cut") for path in tmp_path.glob("cut/**/*.safetensors"))
    for name in names:
        assert_close(
            safetensors.torch.load_file(tmp_path / "whole" / name), safetensors.torch.load_file(tmp_path / "cut" / name)
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adapters", "recomputed", "cross"])
def test_a_speech_llm_with_frozen_parts(tmp_path: Path, kind: str) -> None:
    """Its parts learn in turn: one process, two with all weights, two with shares."""
    assert processes.run(joint.train, tmp_path / "one", "ddp", kind, count=1) == [0]
    for way in WAYS:
        assert processes.run(joint.train, tmp_path / way, way, kind) == [0, 0]
        assert_close(weights(tmp_path / "one"), weights(tmp_path / way), 1e-6)
        assert_same_figures(tmp_path / "one", tmp_path / way)


@pytest.mark.slow
def test_in_bf16_the_weights_stay_fp32(swapping: list[dict], tmp_path: Path) -> None:
    """Blocks are put together in bf16: near to what is trained in fp32."""
    assert processes.run(joint.train, tmp_path / "bf16", "fsdp2", "adapters", "bf16") == [0, 0]
    assert processes.run(joint.train, tmp_path / "fp32", "ddp") == [0, 0]
    found = weights(tmp_path / "bf16")
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert_close(weights(tmp_path / "fp32"), found, 2e-3)
    assert train(tmp_path / "swaps", "fsdp2", swapping, rough=True, precision="bf16") == [0, 0]


def test_what_cannot_be_split_is_a_sentence() -> None:
    model = toy.ToyModel()
    model.head.scale = torch.nn.Parameter(torch.tensor(1.0))
    stage = toy.make_stage(ALONE)
    with pytest.raises(UserError, match="weight head.scale is a single number, which fsdp2 cannot split: choose ddp"):
        parallel.Fsdp2(model, stage, "fp32", torch.device("cpu"))
    model = toy.ToyModel()
    model.head.bfloat16()
    said = (
        "phases.1.train: the weights are of types torch.bfloat16, torch.float32, but fsdp2 trains weights of one type"
    )
    with pytest.raises(UserError, match=said):
        parallel.Fsdp2(model, stage, "fp32", torch.device("cpu"))


DIES = """
import sys
from pathlib import Path
import toy
from asrllm import dist
toy.train(Path(sys.argv[1]), 3 if dist.rank() == 1 else -1, toy.TWO_PHASES, False, {"parallel": {"type": sys.argv[2]}})
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_dies_ends_the_job_and_the_log_is_named(root: Path, tmp_path: Path, way: str) -> None:
    (tmp_path / "dies.py").write_text(DIES)
    paths = [str(root), str(root / "test/train"), str(Path(sys.executable).parent)]
    environment = os.environ | {"PYTHONPATH": ":".join(paths[:2]), "PATH": f"{paths[2]}:{os.environ['PATH']}"}
    torchrun = [
        "torchrun",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(tmp_path / "dies.py"),
        str(tmp_path / "exp"),
        way,
    ]
    line = [str(root / "utils/run.sh"), str(tmp_path / "train.log"), *torchrun]
    done = subprocess.run(line, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert f"log is in {tmp_path}/train.log" in done.stderr
    assert "Signal 9 (SIGKILL) received by PID" in (tmp_path / "train.log").read_text()
