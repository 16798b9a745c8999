"""Alignment of a hypothesis with its reference, in sclite's costs and with sclite's choice among equal paths.

Costs are 3 for an insertion or deletion and 4 for a substitution (NIST SCTK, doc/sclite.htm). Many paths may share the
lowest cost with different counts (three substitutions cost as much as two deletions, two insertions and a match), so
the choice matters to the figures: traced from the end, sclite takes the diagonal first, then the insertion, then the
deletion. kaldialign and jiwer choose otherwise; hence the few lines of our own.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Pair = tuple[str | None, str | None]  # (reference token, hypothesis token); None for an insertion, a deletion
Unit = Literal["word", "char"]

INDEL_COST, SUBSTITUTION_COST = 3, 4


@dataclass(frozen=True)
class Counts:
    """Counts of an alignment, or the sum of many."""

    correct: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of the reference."""
        return self.correct + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.correct + other.correct,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


def split(text: str, unit: Unit, spaced: bool = True) -> list[str]:
    """Tokens of a normalised text.

    Args:
        text: words separated by single spaces.
        unit: `char` gives every character, the space between words as `<space>` (as ESPnet does).
        spaced: False for a writing without spaces, where a space is no character.
    """
    if unit == "word":
        return text.split()
    return ["<space>" if letter == " " else letter for letter in text if spaced or letter != " "]


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[Pair]:
    """Pairs in order; every token of `ref` and of `hyp` stands in exactly one of them."""
    if list(ref) == list(hyp):
        return [(token, token) for token in ref]
    cost = _costs(ref, hyp)
    i, j = len(ref), len(hyp)
    pairs: list[Pair] = []
    while i or j:
        step = 0 if i and j and ref[i - 1] == hyp[j - 1] else SUBSTITUTION_COST
        if i and j and cost[i][j] == cost[i - 1][j - 1] + step:
            i, j = i - 1, j - 1
            pairs.append((ref[i], hyp[j]))
        elif j and cost[i][j] == cost[i][j - 1] + INDEL_COST:
            j -= 1
            pairs.append((None, hyp[j]))
        else:
            i -= 1
            pairs.append((ref[i], None))
    return pairs[::-1]


def _costs(ref: Sequence[str], hyp: Sequence[str]) -> list[list[int]]:
    """Lowest cost of every pair of prefixes, (len(ref) + 1) rows of len(hyp) + 1.

    A row depends on itself through its insertions: min over j' <= j of (entry[j'] + 3 (j - j')) is a running minimum.
    """
    numbers: dict[str, int] = {}
    hyp_ids = np.array([numbers.setdefault(token, len(numbers)) for token in hyp], dtype=np.int64)
    slope = INDEL_COST * np.arange(len(hyp) + 1)
    rows = [slope]
    for token in ref:
        above = rows[-1]
        row = above + INDEL_COST
        diagonal = above[:-1] + np.where(hyp_ids == numbers.get(token, -1), 0, SUBSTITUTION_COST)
        row[1:] = np.minimum(row[1:], diagonal)
        rows.append(np.minimum.accumulate(row - slope) + slope)
    return [row.tolist() for row in rows]


def count(pairs: Iterable[Pair]) -> Counts:
    """Counts of one alignment."""
    kinds = Counter(operation(pair) for pair in pairs)
    return Counts(kinds["C"], kinds["S"], kinds["D"], kinds["I"])


def operation(pair: Pair) -> Literal["C", "S", "D", "I"]:
    """Correct, substitution, deletion or insertion."""
    ref, hyp = pair
    if ref is None:
        return "I"
    if hyp is None:
        return "D"
    return "C" if ref == hyp else "S"
