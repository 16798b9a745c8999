"""The estimate of a phase's memory against what a whole batch leaves for its backward pass."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from toy import ToyModel, make_batch

from asrllm.train import memory
from asrllm.train.stage import Phase

CPU = torch.device("cpu")


@pytest.mark.parametrize("trained", [("encoder", "head"), ("head",)])
def test_rows_weigh_what_they_weigh_together(trained: tuple[str, ...]) -> None:
    phase = Phase(steps=1, train=dict.fromkeys(trained, 0.1), losses={"near": 1.0})
    model, row = ToyModel(), make_batch([3])
    size = memory.estimate(model, phase, row, 20, "fp32", CPU)
    assert size.weights == 4 * 25
    assert size.training == 3 * 4 * (25 if "encoder" in trained else 9)
    assert size.activations == memory._saved(model, ("near",), row.repeat(20), "fp32", CPU)
    shared = memory.estimate(model, phase, row, 20, "fp32", CPU, processes=4)
    assert (shared.weights, shared.training) == (size.weights // 4, size.training // 4)
    assert shared.activations == size.activations
    samples = 20 * row.waves.shape[1]
    # Of each sample: itself, 8 values after the tanh, twice (dropout by 0 hands on a view), the guess, its error.
    assert size.activations <= 4 * samples * 24


def test_frozen_parts_before_all_others_keep_nothing() -> None:
    model, row = ToyModel(), make_batch([3])
    sizes = [
        memory.estimate(model, Phase(steps=1, train={part: 0.1}, losses={"near": 1.0}), row, 20, "fp32", CPU)
        for part in ("encoder", "head")
    ]
    assert sizes[0].activations > sizes[1].activations > 0
