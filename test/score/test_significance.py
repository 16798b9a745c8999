"""Intervals and tests against scipy, known distributions and coverage on simulated sets."""

import numpy as np
import pytest
from scipy import stats

from asrllm.score.significance import bootstrap_interval, cluster, matched_pairs, paired_bootstrap


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


def test_large_sets_are_drawn_by_kind_with_the_same_spread() -> None:
    errors, tokens = utterances(6000, 0.1, 5)
    whole = bootstrap_interval(errors, tokens)
    rates = 100 * errors.sum() / tokens.sum()
    spread = 100 * np.std(errors - rates / 100 * tokens) * np.sqrt(len(errors)) / tokens.sum()  # the delta method
    assert whole == pytest.approx((rates - 1.96 * spread, rates + 1.96 * spread), abs=0.03)
    gaps = paired_bootstrap(errors, errors + (np.arange(6000) % 10 == 0), tokens)
    assert gaps is not None and gaps.interval[0] < gaps.points < gaps.interval[1]
    assert gaps.points == pytest.approx(100 * 600 / tokens.sum())


def test_speakers_are_drawn_whole() -> None:
    errors, tokens = cluster(["b", "a", "b"], [1, 2, 3], [10, 20, 30])
    assert (errors.tolist(), tokens.tolist()) == ([2.0, 4.0], [20.0, 40.0])
    names = [f"s{number % 5}" for number in range(500)]
    each = np.asarray([10 if name == "s0" else 1 for name in names])  # one bad speaker: few speakers tell little
    by_utterance = bootstrap_interval(each, np.full(500, 20))
    by_speaker = bootstrap_interval(*cluster(names, each.tolist(), [20] * 500))
    assert by_utterance is not None and by_speaker is not None
    assert by_speaker[1] - by_speaker[0] > 3 * (by_utterance[1] - by_utterance[0])
