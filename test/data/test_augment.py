"""Speed perturbation: a tone's pitch tells the speed."""

import math
from collections import Counter

import pytest
import torch

from asrllm.data.augment import draw_factor, speed


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1, 1.25])
def test_a_tone_is_raised_by_the_factor(factor: float) -> None:
    tone = torch.sin(2 * math.pi * 440 * torch.arange(16000) / 16000)
    played = speed(tone, factor)
    assert len(played) == math.ceil(16000 / factor)
    spectrum = torch.fft.rfft(played, n=160000).abs()
    assert spectrum.argmax().item() / 10 == pytest.approx(440 * factor, abs=0.5)
    assert played[500:-500].abs().max() == pytest.approx(1.0, abs=0.01)


def test_factors_are_drawn_evenly_and_the_same_every_time() -> None:
    factors = (0.9, 1.0, 1.1)
    state = torch.get_rng_state()
    drawn = [draw_factor(factors, 1, epoch, f"utt{number}") for epoch in range(3) for number in range(1000)]
    assert drawn == [draw_factor(factors, 1, epoch, f"utt{number}") for epoch in range(3) for number in range(1000)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(900 < count < 1100 for count in Counter(drawn).values())
    assert drawn[:1000] != drawn[1000:2000]
