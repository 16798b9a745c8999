"""Intervals and tests against scipy, known distributions and coverage on simulated sets."""

import numpy as np
import pytest
from scipy import stats

from asrllm.score.significance import bootstrap_interval, matched_pairs, paired_bootstrap


def utterances(count: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors and tokens of a simulated set."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(3, 20, size=count)
    return generator.binomial(tokens, rate), tokens


def test_interval_is_that_of_scipy() -> None:
    errors, tokens = utterances(300, 0.2, 0)
    interval = bootstrap_interval(errors, tokens)
    reference = stats.bootstrap(
        (errors, tokens),
        lambda e, t, axis: 100 * e.sum(axis=axis) / t.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert interval == pytest.approx((reference.low, reference.high), abs=0.15)
    assert interval == bootstrap_interval(errors, tokens)


def test_interval_holds_the_truth_about_95_times_in_100() -> None:
    hits = 0
    for seed in range(60):
        low, high = bootstrap_interval(*utterances(60, 0.15, seed)) or (0.0, 0.0)
        hits += low <= 15 <= high
    assert 50 <= hits <= 60


def test_difference_of_clearly_better_system() -> None:
    errors, tokens = utterances(400, 0.2, 1)
    better = np.maximum(errors - (np.arange(400) % 4 == 0), 0)
    found = paired_bootstrap(errors, better, tokens)
    assert found is not None
    assert found.points == pytest.approx(100 * (better.sum() - errors.sum()) / tokens.sum())
    assert found.interval[0] < found.points < found.interval[1] < 0
    assert found.p_value == pytest.approx(2 / 10_001)
    worse = paired_bootstrap(better, errors, tokens)
    assert worse is not None and worse.points == -found.points


def test_equal_systems_do_not_differ() -> None:
    errors, tokens = utterances(50, 0.2, 2)
    found = paired_bootstrap(errors, errors, tokens)
    assert found is not None and (found.points, found.interval, found.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert matched_pairs(errors, errors) == 1.0


def test_false_alarms_are_about_five_in_a_hundred() -> None:
    bootstrap_alarms = pairs_alarms = 0
    for seed in range(100):
        first, tokens = utterances(80, 0.2, seed)
        second = np.random.default_rng(1000 + seed).binomial(tokens, 0.2)
        found = paired_bootstrap(first, second, tokens)
        assert found is not None
        bootstrap_alarms += found.p_value < 0.05
        pairs_alarms += (matched_pairs(first, second) or 0.0) < 0.05
    assert bootstrap_alarms <= 12
    assert pairs_alarms <= 12


def test_matched_pairs_is_the_paired_t_test_of_many_utterances() -> None:
    first, tokens = utterances(2000, 0.2, 3)
    second = np.random.default_rng(4).binomial(tokens, 0.21)
    assert matched_pairs(first, second) == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=0.02)


def test_small_or_empty_sets_give_no_answer() -> None:
    assert bootstrap_interval([1], [5]) is None
    assert bootstrap_interval([1, 2], [0, 0]) is None
    assert paired_bootstrap([], [], []) is None
    assert matched_pairs([1], [0]) is None
