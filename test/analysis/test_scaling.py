"""Scaling fits on simulated laws: the truth is found, and intervals hold it as often as they say."""

import numpy as np
import pytest

from asrllm.analysis.scaling import Point, budget_numbers, compute_ratio, fit, reduction
from asrllm.console import UserError


def simulate(
    floor: float, budgets: int, decades: float, noise: float, seed: int, scale: float = 10.0, alpha: float = 0.35
) -> list[Point]:
    generator = np.random.default_rng(seed)
    flops = np.logspace(13, 13 + decades, budgets)
    center = np.exp(np.log(flops).mean())
    return [
        Point(c, (floor + scale * (c / center) ** -alpha) * np.exp(noise * generator.standard_normal()), s)
        for c in flops
        for s in range(3)
    ]


def test_a_law_without_noise_is_found() -> None:
    found = fit(simulate(4.0, 8, 2.5, 0.0, 0), draws=20)
    assert (found.law.floor, found.law.scale, found.law.alpha) == pytest.approx((4.0, 10.0, 0.35), rel=1e-3)
    pure = fit(simulate(0.0, 6, 1.5, 0.0, 0), draws=20)
    assert (pure.power.scale, pure.power.alpha) == pytest.approx((10.0, 0.35), rel=1e-3)
    assert pure.held_out == pytest.approx(0.0, abs=1e-3)


def test_leaving_out_a_budget_chooses_the_form() -> None:
    assert fit(simulate(6.0, 8, 2.5, 0.01, 1), draws=20).law.floor > 0
    chosen = [fit(simulate(0.0, 8, 2.5, 0.01, seed), draws=2).law.floor == 0 for seed in range(10)]
    assert sum(chosen) >= 6


def test_too_few_budgets_report_the_power_law_alone() -> None:
    found = fit(simulate(4.0, 5, 1.0, 0.01, 0), draws=20)
    assert found.law.floor == 0 and "5 budgets over 1.0 decades" in found.note
    assert fit(simulate(4.0, 6, 1.5, 0.01, 0), draws=20).note == ""


@pytest.mark.slow
@pytest.mark.parametrize(("floor", "budgets", "decades", "noise"), [(0.0, 5, 1.0, 0.03), (4.0, 8, 2.5, 0.01)])
def test_intervals_hold_the_exponent_as_often_as_they_say(
    floor: float, budgets: int, decades: float, noise: float
) -> None:
    held = 0
    for seed in range(200):
        low, high = fit(simulate(floor, budgets, decades, noise, seed), seed, draws=100).alpha_interval
        held += low <= 0.35 <= high
    assert 0.92 <= held / 200 <= 0.98


def test_compute_ratio_solves_for_equal_error() -> None:
    slow = fit(simulate(0.0, 6, 2.0, 0.01, 0), draws=200)
    fast = fit([Point(p.flops / 2, p.error, p.seed) for p in simulate(0.0, 6, 2.0, 0.01, 1)], draws=200)
    ratio, (low, high) = compute_ratio(fast, slow, 10.0)
    assert ratio == pytest.approx(0.5, rel=0.1)
    assert low < ratio < high < 1.0


def test_laws_that_are_nearly_flat_have_a_ratio_that_says_nothing() -> None:
    flops = [2.0e12, 4.0e12, 8.0e12]
    one, other = (fit([*map(Point, flops, errors)]) for errors in ([94.2, 88.7, 90.5], [97.0, 90.4, 96.7]))
    _, (low, high) = compute_ratio(other, one, 96.7)
    assert low < 1e-3 and high > 1e3


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([Point(1e13, 10.0), Point(2e13, 9.0)], "2 budgets are fewer"),
        ([Point(1e13, 10.0), Point(2e13, 0.0), Point(4e13, 8.0)], "above 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(points: list[Point], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fit(points)


def test_an_error_that_is_not_reached_has_no_ratio() -> None:
    floor = fit(simulate(6.0, 8, 2.5, 0.0, 0), draws=5)
    with pytest.raises(UserError, match="not reached"):
        compute_ratio(floor, floor, 5.0)


def test_runs_of_almost_equal_flops_have_one_budget() -> None:
    flops = [2.0e13, 1.02e13, 1.0e13, 1.05e13, 2.1e13, 4.0e13]
    assert budget_numbers(flops).tolist() == [1, 0, 0, 0, 1, 2]
    few = [Point(flops * (1 + 0.01 * seed), 20.0 - seed, seed) for flops in (1e13, 2e13) for seed in range(3)]
    with pytest.raises(UserError, match="2 budgets are fewer"):
        fit(few)


def test_reduction_is_that_of_the_laws_at_equal_flops() -> None:
    slow = fit(simulate(0.0, 6, 2.0, 0.01, 0), draws=200)
    better = fit([Point(p.flops, 0.8 * p.error, p.seed) for p in simulate(0.0, 6, 2.0, 0.01, 1)], draws=200)
    value, (low, high) = reduction(better, slow, 5e14)
    assert value == pytest.approx(0.2, abs=0.02)
    assert low < value < high
