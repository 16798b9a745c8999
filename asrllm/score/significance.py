"""How sure an error rate is, and whether two decodings of the same utterances differ.

Everything is computed from error counts per utterance; which system or unit they belong to is not known here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
DRAWS = 10_000
_DRAWS_AT_ONCE = 4_000_000  # drawn utterances held in memory
_LARGE_SET = 5_000


@dataclass(frozen=True)
class Difference:
    """Error rate of system B minus that of system A, in percent points, so that below zero B is better."""

    points: float
    interval: tuple[float, float]
    p_value: float  # two-sided


def cluster(groups: ArrayLike, *columns: ArrayLike) -> list[NDArray]:
    """Sums of each column over the members of a group, such as the errors of each speaker: to be drawn as one."""
    names, places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return [np.bincount(places, weights=np.asarray(column, dtype=float), minlength=len(names)) for column in columns]


def percentiles(drawn: ArrayLike) -> tuple[float, float]:
    """The 95 % percentile interval of drawn values, of which some may be infinite."""
    values = np.asarray(drawn, dtype=float)
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(values, ends) if np.isfinite(values).all() else np.quantile(values, ends, method="nearest")
    return float(low), float(high)


def bootstrap_interval(errors: ArrayLike, tokens: ArrayLike, seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval of the error rate in percent, utterances drawn with replacement.

    Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.

    Args:
        errors: (N,) errors per utterance.
        tokens: (N,) reference tokens per utterance.
        seed: of the draws; equal seeds give equal intervals.

    Returns:
        None where the set has fewer than two utterances or no reference token.
    """
    drawn = _draw(np.asarray(errors, dtype=float), np.asarray(tokens, dtype=float), seed)
    return None if drawn is None else percentiles(drawn)


def paired_bootstrap(errors_a: ArrayLike, errors_b: ArrayLike, tokens: ArrayLike, seed: int = 0) -> Difference | None:
    """Difference of two decodings, both scored on the same drawn utterances (Bisani and Ney 2004).

    Args:
        errors_a: (N,) errors per utterance of system A.
        errors_b: (N,) the same utterances in the same order, system B.
        tokens: (N,) reference tokens per utterance.
        seed: of the draws.

    Returns:
        None where the set has fewer than two utterances or no reference token. The p value is twice the smaller share
        of draws on either side of zero, at least 2 / (draws + 1): no draw is no proof.
    """
    weights = np.asarray(tokens, dtype=float)
    gaps = np.asarray(errors_b, dtype=float) - np.asarray(errors_a, dtype=float)
    drawn = _draw(gaps, weights, seed)
    if drawn is None:
        return None
    smaller = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (smaller + 1) / (len(drawn) + 1))
    return Difference(float(100 * gaps.sum() / weights.sum()), percentiles(drawn), p_value)


def matched_pairs(errors_a: ArrayLike, errors_b: ArrayLike) -> float | None:
    """Two-sided p value of the matched-pairs sentence-segment z test (Gillick and Cox, ICASSP 1989).

    A segment is a whole utterance here. sc_stats cuts utterances further, at stretches that both systems have right,
    so its p value may be a little lower. The normal approximation wants some 50 utterances that differ.

    Args:
        errors_a: (N,) errors per utterance of system A.
        errors_b: (N,) the same utterances in the same order, system B.

    Returns:
        None for fewer than two utterances; 1 where no utterance differs.
    """
    gaps = np.asarray(errors_b, dtype=float) - np.asarray(errors_a, dtype=float)
    if len(gaps) < 2:
        return None
    if not gaps.any():
        return 1.0
    spread = gaps.std(ddof=1)
    if spread == 0:
        return 0.0
    return float(2 * stats.norm.sf(abs(gaps.mean()) / (spread / np.sqrt(len(gaps)))))


def _draw(errors: NDArray, tokens: NDArray, seed: int) -> NDArray | None:
    """Error rates in percent (DRAWS,) of resampled sets; draws without any token are left out."""
    if len(errors) != len(tokens):
        raise ValueError(f"{len(errors)} error counts for {len(tokens)} utterances")
    if len(errors) < 2 or tokens.sum() == 0:
        return None
    generator = np.random.default_rng(seed)
    if len(errors) > _LARGE_SET:
        return _draw_kinds(errors, tokens, generator)
    at_once = max(1, _DRAWS_AT_ONCE // len(errors))
    rates = []
    for start in range(0, DRAWS, at_once):
        picks = generator.integers(0, len(errors), size=(min(at_once, DRAWS - start), len(errors)))
        sums, weights = errors[picks].sum(axis=1), tokens[picks].sum(axis=1)
        rates.append(100 * sums[weights > 0] / weights[weights > 0])
    return np.concatenate(rates)


def _draw_kinds(errors: NDArray, tokens: NDArray, generator: np.random.Generator) -> NDArray:
    """The same distribution for a large set: utterances of equal figures are drawn together, by their number."""
    kinds, members = np.unique(np.stack([errors, tokens]), axis=1, return_counts=True)
    at_once = max(1, _DRAWS_AT_ONCE // len(members))
    rates = []
    for start in range(0, DRAWS, at_once):
        drawn = generator.multinomial(len(errors), members / len(errors), size=min(at_once, DRAWS - start))
        sums, weights = drawn @ kinds[0], drawn @ kinds[1]
        rates.append(100 * sums[weights > 0] / weights[weights > 0])
    return np.concatenate(rates)
