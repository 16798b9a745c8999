"""The step at which an LLM begins to use the audio: accuracy under teacher forcing jumps after a plateau.

SLAM-ASR (section on capability emergence) shows the jump and gives no formula; this one is ours. It knows numbers; not
where they were logged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_POINTS = 51  # width of the smoothing and of the window in which a slope is taken, in logged points
_HEIGHT = 0.1  # a lower jump is none
FEWEST = 10  # logged points that can say something


@dataclass(frozen=True)
class Emergence:
    """The jump of a curve."""

    step: int | None  # the first at or above the middle between plateau and end; none where the jump is too low
    height: float  # end minus plateau
    max_slope: float  # accuracy per step


def find(steps: Sequence[int], accuracies: Sequence[float], warmup_steps: int = 0) -> Emergence | None:
    """The jump of an accuracy logged at ascending steps; None for fewer than FEWEST points.

    The curve is smoothed by a centred median over 51 points. The plateau is the median over the window of 51 points
    with the lowest slope between warm-up and the steepest window after it, the end the median over the last 5 % of the
    steps. A log of fewer than 255 points has windows of a fifth of it.
    """
    count = len(steps)
    if count < FEWEST:
        return None
    width = _POINTS if count >= 5 * _POINTS else max(3, count // 5 // 2 * 2 + 1)
    half = width // 2
    places = np.asarray(steps, dtype=np.float64)
    raw = np.asarray(accuracies, dtype=np.float64)
    smooth = np.array([np.median(raw[max(0, i - half) : i + half + 1]) for i in range(count)])
    slopes = _slopes(places, smooth, width)
    first = min(int(np.searchsorted(places, warmup_steps, side="right")), len(slopes) - 1)
    steepest = first + int(np.argmax(slopes[first:]))
    lowest = first + int(np.argmin(slopes[first : steepest + 1]))
    plateau = float(np.median(smooth[lowest : lowest + width]))
    end = float(np.median(smooth[places >= places[-1] - 0.05 * (places[-1] - places[0])]))
    height = end - plateau
    step = None
    if height >= _HEIGHT:
        step = int(places[np.argmax(smooth >= (plateau + end) / 2)])
    return Emergence(step, height, float(slopes[steepest]))


def _slopes(places: np.ndarray, values: np.ndarray, width: int) -> np.ndarray:
    """Least-squares slope in each window of `width` points, by its first point."""
    x = np.lib.stride_tricks.sliding_window_view(places, width)
    y = np.lib.stride_tricks.sliding_window_view(values, width)
    x = x - x.mean(1, keepdims=True)
    return (x * (y - y.mean(1, keepdims=True))).sum(1) / (x * x).sum(1)
