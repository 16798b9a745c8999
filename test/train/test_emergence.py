"""The emergence step of curves made by hand: rise, plateau, jump."""

import numpy as np
import pytest

from asrllm.train.emergence import find


def curve(steps: np.ndarray, jump: float, width: float, end: float = 0.9) -> np.ndarray:
    """A fast rise to 0.4 in the first tenth, then a logistic jump to `end` around step `jump`."""
    return 0.4 * np.minimum(1, steps / (0.1 * steps[-1])) + (end - 0.4) / (1 + np.exp(-(steps - jump) / width))


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize(("count", "every"), [(600, 10), (300, 20), (100, 5)])
@pytest.mark.parametrize("place", [0.4, 0.6])
def test_the_middle_of_the_jump_is_found(noise: float, count: int, every: int, place: float) -> None:
    """A logistic function crosses the middle of its two levels where it is centred."""
    steps = np.arange(1, count + 1) * every
    jump = place * steps[-1]
    accuracies = curve(steps, jump, 0.01 * steps[-1]) + noise * np.random.default_rng(0).standard_normal(count)
    found = find(steps.tolist(), accuracies.tolist(), warmup_steps=int(0.12 * steps[-1]))
    assert found is not None and found.step is not None
    assert abs(found.step - jump) <= 0.02 * steps[-1] + every
    assert found.height == pytest.approx(0.5, abs=0.03)
    assert 0 < found.max_slope <= 1.2 * 0.5 / (4 * 0.01 * steps[-1])  # the logistic's own is its height / (4 width)


def test_one_spike_is_no_jump() -> None:
    steps = np.arange(1, 401)
    accuracies = 0.4 * np.minimum(1, steps / 40)
    accuracies[200:210] = 1.0
    found = find(steps.tolist(), accuracies.tolist(), 60)
    assert found is not None and found.step is None and found.height == pytest.approx(0, abs=1e-9)


def test_a_low_jump_is_none_and_few_points_say_nothing() -> None:
    steps = np.arange(1, 401)
    found = find(steps.tolist(), curve(steps, 200, 4, end=0.45).tolist(), 60)
    assert found is not None and found.step is None and found.height == pytest.approx(0.05, abs=0.01)
    assert find([1, 2, 3], [0.1, 0.2, 0.9]) is None


def test_a_curve_that_starts_at_its_end_has_no_step() -> None:
    found = find(list(range(100)), [0.9] * 100)
    assert found is not None and found.step is None
