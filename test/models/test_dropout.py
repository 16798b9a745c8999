"""Dropout against its definition and PyTorch's."""

import pytest
import torch
from torch import nn

from asrllm.models.dropout import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_zeros_are_as_many_as_asked_for_and_the_mean_stays(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(501, 401, dtype=dtype, requires_grad=True)
    out = Dropout(share)(values)
    out.sum().backward()
    spread = 5 * (share * (1 - share) / values.numel()) ** 0.5  # five standard deviations of the share of zeros
    assert float((out == 0).double().mean()) == pytest.approx(share, abs=spread)
    kept = out[out != 0]
    assert len(kept.unique()) == 1 and float(kept[0]) == pytest.approx(1 / (1 - share), rel=1e-2)
    assert out.dtype == dtype and torch.equal(values.grad, out.detach())  # the gradient has the same mask and scale


def test_neighbours_fall_independently() -> None:
    """Four values share a draw of 64 bits; no two places of it may agree more often than by chance."""
    torch.manual_seed(0)
    zeros = (Dropout(0.3)(torch.ones(100_000, 4)) == 0).double().T
    assert (torch.corrcoef(zeros) - torch.eye(4)).abs().max() < 0.02
    assert zeros.mean(1) == pytest.approx([0.3] * 4, abs=0.01)


def test_the_seed_decides_and_evaluation_changes_nothing() -> None:
    layer, values = Dropout(0.2), torch.randn(7, 5)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(layer(values))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    assert torch.equal(layer.eval()(values), values) and torch.equal(Dropout(0.0)(values), values)
    assert torch.equal(Dropout(1.0)(values), nn.Dropout(1.0)(values)) and not len(Dropout(0.5)(torch.ones(0, 3)))
