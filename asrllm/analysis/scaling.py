"""Scaling law of error against training FLOPs: E(C) = E_inf + A * (C / C0)^-alpha, or without E_inf a pure power law.

The claim is EFIN's (arXiv 2508.04096), which gives neither form nor constants; form and fit are ours, after Hoffmann et
al. 2022, appendix D.3: Huber loss on the residual of log E, many starts. It knows points, not experiments.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asrllm.console import UserError
from asrllm.score.significance import percentiles

HUBER = 1e-3  # residuals of log E beyond this count linearly (Hoffmann et al.)
DRAWS = 1000
LEAST_BUDGETS = 6  # below these two, E_inf and alpha cannot be told apart (research by simulation, ours)
LEAST_DECADES = 1.5
SAME_BUDGET = 1.1  # runs whose FLOPs differ by less have one budget: a run ends with a whole step
STEPS = 60  # of the damped Gauss-Newton iteration

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """What one training run cost and how it ended."""

    flops: float
    error: float  # percent
    seed: int = 0


@dataclass(frozen=True)
class Law:
    """E(C) = floor + scale * (C / center)^-alpha; a pure power law has floor 0."""

    floor: float
    scale: float
    alpha: float
    center: float

    def error(self, flops: float) -> float:
        """Predicted error at a budget."""
        return self.floor + self.scale * (flops / self.center) ** -self.alpha

    def log_flops(self, error: float) -> float:
        """Natural logarithm of the budget at which the error is reached; infinite at or below the floor.

        A law that is nearly flat brings the budget itself to 0 or beyond all numbers.
        """
        if error <= self.floor:
            return math.inf
        return math.log(self.center) - math.log((error - self.floor) / self.scale) / self.alpha


@dataclass(frozen=True)
class Fit:
    """A law with how sure it is."""

    law: Law
    draws: tuple[Law, ...]  # of the bootstrap
    alpha_interval: tuple[float, float]
    floor_interval: tuple[float, float]
    power: Law  # the pure power law, for comparison
    left_out: dict[str, float]  # form -> mean absolute residual of log E on the budget left out
    held_out: float | None  # relative error of predicting the largest budget from the others
    note: str  # what the data do not tell, or empty


def fit(points: Sequence[Point], seed: int = 0, draws: int = DRAWS) -> Fit:
    """Fit one schedule's points; the form is chosen by leaving out one budget at a time.

    Intervals are percentiles of a bootstrap that draws each (budget, seed) anew from the law with normal noise, whose
    size is uncertain, too. Drawing points or residuals with replacement holds the truth too seldom: 0.83 to 0.90 of
    simulated laws at a nominal 0.95, with three seeds and four to eight budgets.

    Raises:
        UserError: fewer than 3 budgets, or an error or a budget that is not above 0.
    """
    flops, errors = _arrays(points)
    budgets = budget_numbers(flops)
    center = float(np.exp(np.mean([np.log(flops[budgets == number]).mean() for number in np.unique(budgets)])))
    x, y = np.log(flops / center), np.log(errors)
    power, free = _solve(x, y[None], False)[0], _solve(x, y[None], True)[0]
    left_out = {}
    if budgets.max() >= 3:
        left_out = {"power": _left_out(x, y, budgets, False), "floor": _left_out(x, y, budgets, True)}
    note = _unidentified(budgets, x)
    with_floor = not note and bool(left_out) and left_out["floor"] < left_out["power"]
    best = free if with_floor else power
    drawn = _bootstrap(x, y, best, with_floor, seed, draws)
    return Fit(
        law=_law(best, center),
        draws=tuple(_law(row, center) for row in drawn),
        alpha_interval=percentiles(drawn[:, 2]),
        floor_interval=percentiles(np.exp(drawn[:, 0])),
        power=_law(power, center),
        left_out=left_out,
        held_out=_held_out(x, y, budgets, with_floor),
        note=note,
    )


def compute_ratio(one: Fit, other: Fit, error: float) -> tuple[float, tuple[float, float]]:
    """FLOPs of `one` / FLOPs of `other` at equal error, with its bootstrap interval.

    Raises:
        UserError: one of them never reaches that error.
    """
    value = _exp(one.law.log_flops(error) - other.law.log_flops(error))
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"an error of {error:g} % is not reached by both laws: choose one that both schedules reach")
    logs = [a.log_flops(error) - b.log_flops(error) for a, b in zip(one.draws, other.draws, strict=False)]
    return value, percentiles([_exp(each) for each in logs if not math.isnan(each)])


def reduction(one: Fit, other: Fit, flops: float) -> tuple[float, tuple[float, float]]:
    """By what share of the error of `other` that of `one` is lower at equal FLOPs, with its bootstrap interval."""
    drawn = [1 - a.error(flops) / b.error(flops) for a, b in zip(one.draws, other.draws, strict=False)]
    return 1 - one.law.error(flops) / other.law.error(flops), percentiles(drawn)


def budget_numbers(flops: Sequence[float] | Array) -> NDArray[np.int64]:
    """The budget of each run (n,), counted from 0 for the smallest; see `SAME_BUDGET`."""
    numbers = np.zeros(len(flops), dtype=np.int64)
    first, number = 0.0, -1
    for place in np.argsort(flops):
        if flops[place] > SAME_BUDGET * first:
            first, number = float(flops[place]), number + 1
        numbers[place] = number
    return numbers


def _exp(value: float) -> float:
    return math.exp(value) if value < 700.0 else math.inf


def _arrays(points: Sequence[Point]) -> tuple[Array, Array]:
    for point in points:
        if not (point.flops > 0 and point.error > 0):
            raise UserError(
                f"scaling: found {point.flops:g} FLOPs with an error of {point.error:g} %: both must be above 0"
            )
    flops, errors = np.array([p.flops for p in points]), np.array([p.error for p in points])
    if (count := budget_numbers(flops).max(initial=-1) + 1) < 3:
        raise UserError(f"scaling: {count} budgets are fewer than the 3 parameters: train at more budgets")
    return flops, errors


def _unidentified(budgets: NDArray[np.int64], x: Array) -> str:
    count, decades = budgets.max() + 1, float(np.ptp(x) / math.log(10))
    if count >= LEAST_BUDGETS and decades >= LEAST_DECADES - 1e-9:
        return ""
    return (
        f"{count} budgets over {decades:.1f} decades do not tell an error floor from a small exponent (at least "
        f"{LEAST_BUDGETS} over {LEAST_DECADES} do): only the pure power law is reported"
    )


def _law(row: Array, center: float) -> Law:
    return Law(float(np.exp(row[0])), float(np.exp(row[1])), float(row[2]), center)


def _solve(x: Array, rows: Array, with_floor: bool, starts: Array | None = None) -> Array:
    """Best parameters (R, 3) = (log floor, log scale, alpha) for each row of log errors (R, n).

    Damped Gauss-Newton on the Huber loss (iteratively reweighted), all rows and starts at once.
    """
    if starts is None:
        starts = _starts(x, rows, with_floor)
    theta = starts.copy()  # (R, S, 3)
    free = slice(0, 3) if with_floor else slice(1, 3)
    damping = np.full(theta.shape[:2], 1e-3)
    loss = _loss(theta, x, rows)
    for _ in range(STEPS):
        residual, slope = _residual(theta, x, rows), _slope(theta, x)[..., free]
        weight = 1 / np.maximum(np.abs(residual), HUBER)
        gram = np.einsum("rsni,rsn,rsnj->rsij", slope, weight, slope)
        pull = np.einsum("rsni,rsn->rsi", slope, weight * residual)
        diagonal = np.einsum("rsii->rsi", gram)
        gram = gram + np.eye(gram.shape[-1]) * (damping[..., None] * diagonal + 1e-12)[..., None]
        moved = theta.copy()
        moved[..., free] += np.linalg.solve(gram, pull[..., None])[..., 0]
        moved[..., 2] = np.clip(moved[..., 2], 1e-3, 5.0)
        moved[..., 0] = np.minimum(moved[..., 0], rows.min(1)[:, None])
        new = _loss(moved, x, rows)
        better = new < loss
        theta = np.where(better[..., None], moved, theta)
        loss = np.where(better, new, loss)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-9, 1e6)
    return theta[np.arange(len(rows)), loss.argmin(1)]


def _starts(x: Array, rows: Array, with_floor: bool) -> Array:
    slope, level = np.polyfit(x, rows.T, 1)
    alphas = np.maximum(-slope, 0.02)[:, None] * np.array([[0.7, 1.0, 1.6, 2.5]])
    shares = np.array([1e-3, 0.3, 0.6, 0.9]) if with_floor else np.array([0.0])
    lowest = rows.min(1)[:, None, None]
    with np.errstate(divide="ignore"):
        floors = lowest + np.log(shares)[None, None, :]
    floors, alphas = np.broadcast_arrays(floors, alphas[:, :, None])
    scales = np.log(np.maximum(np.exp(level)[:, None, None] - np.exp(floors), 1e-3 * np.exp(level)[:, None, None]))
    return np.stack([floors, scales, alphas], -1).reshape(len(rows), -1, 3)


def _residual(theta: Array, x: Array, rows: Array) -> Array:
    power = theta[..., 1:2] - theta[..., 2:3] * x
    return rows[:, None] - np.logaddexp(theta[..., 0:1], power)


def _slope(theta: Array, x: Array) -> Array:
    """Derivative of log E by (log floor, log scale, alpha), (R, S, n, 3)."""
    power = theta[..., 1:2] - theta[..., 2:3] * x
    share = np.exp(power - np.logaddexp(theta[..., 0:1], power))  # of the power law in E
    return np.stack([1 - share, share, -share * x], -1)


def _loss(theta: Array, x: Array, rows: Array) -> Array:
    size = np.abs(_residual(theta, x, rows))
    return np.where(size < HUBER, 0.5 * size**2 / HUBER, size - 0.5 * HUBER).mean(-1)


def _left_out(x: Array, y: Array, budgets: NDArray[np.int64], with_floor: bool) -> float:
    misses = []
    for number in np.unique(budgets):
        kept = budgets != number
        theta = _solve(x[kept], y[kept][None], with_floor)
        misses.append(float(np.abs(_residual(theta[:, None], x[~kept], y[~kept][None])).mean()))
    return float(np.mean(misses))


def _held_out(x: Array, y: Array, budgets: NDArray[np.int64], with_floor: bool) -> float | None:
    kept = budgets != budgets.max()
    if budgets.max() < 3:
        return None
    theta = _solve(x[kept], y[kept][None], with_floor)
    return float(np.expm1(-_residual(theta[:, None], x[~kept], y[~kept][None])).mean())


def _bootstrap(x: Array, y: Array, best: Array, with_floor: bool, seed: int, draws: int) -> Array:
    """Parameters fitted to points drawn from the law: normal noise whose size is itself drawn, given the residuals."""
    generator = np.random.default_rng(seed)
    residual = _residual(best[None, None], x, y[None])[0, 0]
    freedom = max(1, len(x) - (3 if with_floor else 2))
    spread = np.sqrt((residual**2).sum() / generator.chisquare(freedom, (draws, 1)))
    rows = y - residual + spread * generator.standard_normal((draws, len(x)))
    starts = np.broadcast_to(best, (draws, 1, 3))
    if with_floor:
        starts = np.concatenate([starts, _starts(x, rows, True)[:, ::4]], 1)
    return _solve(x, rows, with_floor, starts)
