"""Linear CKA against its form over N x N kernels; which frames are pooled."""

import math

import pytest
import torch

from asrllm.train.cka import linear_cka, linear_ckas, pool


def by_kernels(one: torch.Tensor, other: torch.Tensor) -> float:
    """<CKC, CLC> / sqrt(<CKC, CKC> <CLC, CLC>) with K = one one' and C the centring matrix."""
    size = len(one)
    centre = torch.eye(size, dtype=torch.float64) - 1 / size
    left, right = (centre @ each.double() @ each.double().T @ centre for each in (one, other))
    return float((left * right).sum() / ((left * left).sum() * (right * right).sum()).sqrt())


@pytest.mark.parametrize("widths", [(5, 5), (3, 8)])
def test_equals_the_form_over_kernels(widths: tuple[int, int]) -> None:
    one, other = (torch.randn(40, width) + 3 for width in widths)
    assert linear_cka(one, other) == pytest.approx(by_kernels(one, other), abs=1e-12)
    near = one + 0.1 * torch.randn_like(one)
    assert linear_cka(one, near) == pytest.approx(by_kernels(one, near), abs=1e-12)
    assert 0 < linear_cka(one, other) < linear_cka(one, near) < 1


def test_rotation_scale_and_shift_do_not_change_it() -> None:
    one = torch.randn(50, 6, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    assert linear_cka(one, 7 * one @ turn + 2) == pytest.approx(1.0, abs=1e-12)


def test_float32_outputs_far_from_zero_are_measured_in_float64() -> None:
    one = torch.randn(2000, 8) + 1000
    assert linear_cka(one, one.clone()) == pytest.approx(1.0, abs=1e-9)


def test_pooled_frames_are_real_and_the_same_at_every_time() -> None:
    frames = torch.arange(24.0).view(2, 4, 3)
    lens = torch.tensor([3, 2])
    whole = pool([(frames, lens)], 100, 0)
    assert whole.tolist() == [*frames[0, :3].tolist(), *frames[1, :2].tolist()]
    drawn = pool([(frames[:1], lens[:1]), (frames[1:], lens[1:])], 3, 1)
    assert len(drawn) == 3 and all(row in whole.tolist() for row in drawn.tolist())
    assert drawn.equal(pool([(frames, lens)], 3, 1))
    assert not drawn.equal(pool([(frames, lens)], 3, 3))


def test_a_table_is_every_pair() -> None:
    ones, others = [torch.randn(30, 3), torch.randn(30, 5)], [torch.randn(30, 4), torch.ones(30, 2)]
    found = linear_ckas(ones, others)
    assert found[1][0] == linear_cka(ones[1], others[0]) == pytest.approx(by_kernels(ones[1], others[0]))
    assert math.isnan(found[0][1])
