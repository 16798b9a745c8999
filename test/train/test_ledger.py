"""Roles by hand, totals over a run; the model's own counts are held against torch's in test/models/test_flops.py."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from toy import BOTH, ToyLoader, ToyModel, make_batch, make_trainer

from asrllm.flops import Flops, Work
from asrllm.train.ledger import step_cost

CPU = torch.device("cpu")


def test_roles() -> None:
    """By hand: 10 forward for each part; encoder before projector before llm, whose attention is 4 of its 10."""
    plain, mixed = Flops(weights=10.0), Flops(weights=6.0, products=4.0)
    work = [
        Work("encoder", plain, plain),
        Work("projector", Flops(first=4.0, weights=6.0), Flops(first=8.0, weights=12.0), frozenset({"encoder"})),
        Work("llm", mixed, mixed + plain, frozenset({"encoder", "projector"})),
    ]
    names = ("encoder", "projector", "llm")

    def cost(*trained: str, recomputed: tuple[str, ...] = ()) -> tuple[dict[str, float], float, float]:
        made = step_cost(work, names, trained, CPU, recomputed)
        return dict(made.parts), made.padding, made.recomputation

    assert cost("projector") == ({"encoder": 10, "projector": 4 * 2 + 6 * 3, "llm": 6 * 2 + 4 * 3}, 26 + 20, 0)
    assert cost("llm")[0] == {"encoder": 10, "projector": 10, "llm": 30}
    assert cost(*names)[0] == {"encoder": 30, "projector": 30, "llm": 30}
    assert cost("encoder")[0] == {"encoder": 30, "projector": 20, "llm": 24}
    assert cost("projector", recomputed=("encoder", "llm"))[2] == 20  # no gradient passes the encoder


def order(epoch: int) -> list[int]:
    """The toy loader's."""
    return torch.randperm(24, generator=torch.Generator().manual_seed(epoch)).tolist()


def test_a_run_adds_up_its_steps(tmp_path: Path) -> None:
    """The toy's 8 + 8 weights, two FLOPs each forward; trained, three times that."""
    phases = [BOTH | {"steps": 6}, {"steps": 6, "train": {"head": 0.1}, "losses": {"near": 1.0}}]
    summary = make_trainer(tmp_path, ToyModel(), ToyLoader(), phases).run()["flops"]
    samples = sum(len(make_batch([number]).waves[0]) for number in range(24))  # six batches are an epoch
    one = 2 * 8 * samples
    assert summary["phases"] == [6 * one, one + 3 * one]
    assert summary["parts"] == {"encoder": 4 * one, "head": 6 * one}
    assert summary["model"] == 10 * one and summary["recomputation"] == 0
    assert summary["hardware"] == summary["model"] + summary["padding"] > summary["model"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["tflops"] for line in lines if line["kind"] == "train"][-1] == pytest.approx(10 * one / 1e12)
    steps = [line for line in lines if line["kind"] == "train" and line["step"] == 2]  # four utterances, 8 weights
    real = sum(len(make_batch([number]).waves[0]) for number in order(0)[4:8])
    longest = max(len(make_batch([number]).waves[0]) for number in order(0)[4:8])
    assert steps[0]["step_tflops"] == pytest.approx(2 * 3 * 2 * 8 * real / 1e12)
    assert steps[0]["step_padding_tflops"] == pytest.approx(2 * 3 * 2 * 8 * (4 * longest - real) / 1e12)
    assert json.loads((tmp_path / "summary.json").read_text())["flops"] == summary
