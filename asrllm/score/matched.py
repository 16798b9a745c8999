"""Tests of two systems on the same references, as NIST's sc_stats does them: segments, sentences, speakers.

Each asks whether the systems differ at all; which one is better the error rates tell.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from asrllm.score.align import Edit

MIN_GOOD = 2  # words that both have right and that end a segment; sc_stats' default


@dataclass(frozen=True)
class Test:
    """One test and its two-sided p value."""

    name: str
    p_value: float
    detail: str


def segments(first: Sequence[Edit], second: Sequence[Edit], min_good: int = MIN_GOOD) -> list[tuple[int, int]]:
    """Errors of both systems in each segment of one utterance: stretches that begin and end with words both have right.

    Gillick and Cox, ICASSP 1989; the walk over both alignments is that of NIST's sc_stats.
    """
    found: list[tuple[int, int]] = []
    i = j = good = end_i = end_j = 0
    state = "before"

    def close(last_i: int, last_j: int) -> None:
        parts = first[max(0, end_i - min_good + 1) : last_i], second[max(0, end_j - min_good + 1) : last_j]
        errors = tuple(sum(kind != "C" for kind, _, _ in part) for part in parts)
        if any(errors):
            found.append((errors[0], errors[1]))

    while i < len(first):
        while i < len(first) and first[i][0] == "I":
            i, state = i + 1, "error"
        while j < len(second) and second[j][0] == "I":
            j, state = j + 1, "error"
        both = i < len(first) and j < len(second) and first[i][0] == "C" and second[j][0] == "C"
        if not both:
            state = "error"
        elif state == "before":
            end_i, end_j = i, j
        else:
            good = 1 if state == "error" else good + 1
            state = "good"
            if good == min_good:
                close(i + 1, j + 1)
                end_i, end_j, state = i, j, "before"
        i, j = min(i + 1, len(first)), min(j + 1, len(second))
    if state != "before" or j < len(second):
        close(len(first), len(second))
    return found


def mapsswe(pairs: Iterable[tuple[Sequence[Edit], Sequence[Edit]]]) -> Test | None:
    """Matched pairs sentence segment word error test over the alignments of all utterances; None without two segments.

    The statistic is that of sc_stats, whose p value comes from a table in steps of z = 0.01.
    """
    gaps = [one - other for first, second in pairs for one, other in segments(first, second)]
    if len(gaps) < 2:
        return None
    spread = float(np.std(gaps, ddof=1))
    mean = float(np.mean(gaps))
    z = mean / (spread / len(gaps) ** 0.5) if spread else 0.0
    p_value = float(2 * stats.norm.sf(abs(z))) if spread or not mean else 0.0
    return Test("matched pairs (MAPSSWE)", p_value, f"{len(gaps)} segments, z = {z:.3f}")


def mcnemar(errors_a: Sequence[int], errors_b: Sequence[int]) -> Test:
    """McNemar's exact test on whole sentences: of those that one system alone has right, are half A's?

    sc_stats has the same value for up to 20 such sentences; beyond, its normal approximation takes half the count.
    """
    only_a = sum(a == 0 and b > 0 for a, b in zip(errors_a, errors_b, strict=True))
    only_b = sum(b == 0 and a > 0 for a, b in zip(errors_a, errors_b, strict=True))
    p_value = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Test("McNemar on sentences", float(p_value), f"{only_a} right in A alone, {only_b} in B alone")


def sign(rates_a: Sequence[float], rates_b: Sequence[float]) -> Test:
    """Sign test on error rates by speaker; ties are shared between both sides, the odd one goes to the smaller."""
    gaps = np.asarray(rates_b) - np.asarray(rates_a)
    ties = int((np.abs(gaps) <= 0.005).sum())  # percent points, as in sc_stats
    worse, better = int((gaps > 0.005).sum()), int((gaps < -0.005).sum())
    smaller = min(worse, better) + ties // 2 + ties % 2
    p_value = min(1.0, float(2 * stats.binom.cdf(min(smaller, len(gaps) - smaller), len(gaps), 0.5)))
    return Test("sign test over speakers", p_value, f"{better} speakers better in B, {worse} worse, {ties} equal")


def wilcoxon(rates_a: Sequence[float], rates_b: Sequence[float]) -> Test | None:
    """Wilcoxon's signed-rank test on error rates by speaker; None where no speaker differs."""
    gaps = np.asarray(rates_b) - np.asarray(rates_a)
    gaps = gaps[np.abs(gaps) > 0.005]
    if not len(gaps):
        return None
    p_value = float(stats.wilcoxon(gaps).pvalue)
    return Test("Wilcoxon over speakers", p_value, f"{len(gaps)} speakers that differ")
