"""Alignment of hypotheses with their references, in sclite's costs and with sclite's choice among equal paths.

Costs are 3 for an insertion or deletion and 4 for a substitution (NIST SCTK, doc/sclite.htm). Many paths may share the
lowest cost with different counts (three substitutions cost as much as two deletions, two insertions and a match), so
the choice matters to the figures: traced from the end, sclite takes the diagonal first, then the insertion, then the
deletion. kaldialign and jiwer choose otherwise; hence our own. Plain token sequences only: what has alternatives goes
through `asrllm.score.network`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["C", "S", "D", "I"]  # correct, substitution, deletion, insertion
Edit = tuple[Kind, str, str]  # reference and hypothesis token; empty where there is none
Pair = tuple[Sequence[str], Sequence[str]]  # reference and hypothesis

INDEL_COST, SUBSTITUTION_COST = 3, 4
_MATCH, _INSERT, _DELETE, _END, _SUBSTITUTE = range(5)
_CELLS_AT_ONCE = 4_000_000


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
    def hyp_tokens(self) -> int:
        """Tokens of the hypothesis."""
        return self.correct + self.substitutions + self.insertions

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


def count(edits: Iterable[Edit]) -> Counts:
    """Counts of one alignment."""
    kinds = Counter([edit[0] for edit in edits])
    return Counts(kinds["C"], kinds["S"], kinds["D"], kinds["I"])


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[Edit]:
    """Edits in order; every token of `ref` and of `hyp` stands in exactly one of them."""
    return align_all([(ref, hyp)])[0]


def align_all(pairs: Sequence[Pair]) -> list[list[Edit]]:
    """Alignment of each pair. Pairs of like lengths share one table of costs, since numpy is slow on small ones."""
    correct: dict[str, Edit] = {}  # one object for each token: most edits of a set are these
    results: list[list[Edit]] = [[] for _ in pairs]
    open_pairs = []
    for place, (ref, hyp) in enumerate(pairs):
        if list(ref) == list(hyp):
            results[place] = [correct.get(token) or correct.setdefault(token, ("C", token, token)) for token in ref]
        else:
            open_pairs.append(place)
    open_pairs.sort(key=lambda place: (len(pairs[place][0]), len(pairs[place][1])))
    numbers: dict[str, int] = {}
    start = 0
    while start < len(open_pairs):
        chosen: list[int] = []
        cells = 0
        for place in open_pairs[start:]:
            ref_size, hyp_size = len(pairs[place][0]), max(cells, len(pairs[place][1]) + 1)
            if chosen and (len(chosen) + 1) * (ref_size + 1) * hyp_size > _CELLS_AT_ONCE:
                break
            cells = hyp_size
            chosen.append(place)
        start += len(chosen)
        paths = _paths([pairs[place] for place in chosen], numbers)
        for place, path in zip(chosen, paths, strict=True):
            results[place] = _edits(*pairs[place], path, correct)
    return results


def _edits(ref: Sequence[str], hyp: Sequence[str], path: Iterable[int], correct: dict[str, Edit]) -> list[Edit]:
    edits: list[Edit] = []
    i = j = 0
    for step in path:
        if step == _MATCH:
            token = ref[i]
            edits.append(correct.get(token) or correct.setdefault(token, ("C", token, token)))
            i, j = i + 1, j + 1
        elif step == _SUBSTITUTE:
            edits.append(("S", ref[i], hyp[j]))
            i, j = i + 1, j + 1
        elif step == _INSERT:
            edits.append(("I", "", hyp[j]))
            j += 1
        else:
            edits.append(("D", ref[i], ""))
            i += 1
    return edits


def _paths(pairs: Sequence[Pair], numbers: dict[str, int]) -> list[bytes]:
    """Steps of every pair from its beginning, one byte each.

    A row of the table depends on itself through its insertions: min over j' <= j of (entry[j'] + 3 (j - j')) is a
    running minimum.
    """
    refs, ref_lens = _numbered([ref for ref, _ in pairs], numbers, fill=-1)
    hyps, hyp_lens = _numbered([hyp for _, hyp in pairs], numbers, fill=-2)
    height, width = refs.shape[1] + 1, hyps.shape[1] + 1
    dtype = np.int16 if INDEL_COST * (height + width) < np.iinfo(np.int16).max else np.int32
    slope = INDEL_COST * np.arange(width, dtype=dtype)
    steps = np.empty((height, len(pairs), width), dtype=np.uint8)
    steps[0], steps[1:, :, 0], steps[0, :, 0] = _INSERT, _DELETE, _END
    above = np.repeat(slope[None], len(pairs), axis=0)
    for i in range(1, height):
        equal = hyps == refs[:, i - 1, None]
        diagonal = above[:, :-1] + np.where(equal, 0, SUBSTITUTION_COST).astype(dtype)
        row = above + dtype(INDEL_COST)
        np.minimum(row[:, 1:], diagonal, out=row[:, 1:])
        row = np.minimum.accumulate(row - slope, axis=1) + slope
        step = np.where(row[:, 1:] == row[:, :-1] + dtype(INDEL_COST), _INSERT, _DELETE)
        steps[i, :, 1:] = np.where(row[:, 1:] == diagonal, np.where(equal, _MATCH, _SUBSTITUTE), step)
        above = row
    return _trace(steps, ref_lens, hyp_lens)


def _trace(steps: NDArray, ref_lens: NDArray, hyp_lens: NDArray) -> list[bytes]:
    """Follow the steps (height, pairs, width) back from each pair's last cell."""
    i, j = ref_lens.copy(), hyp_lens.copy()
    columns, walked = np.arange(len(i)), []
    while i.any() or j.any():
        step = steps[i, columns, j]
        walked.append(step)
        i -= (step != _INSERT) & (step != _END)
        j -= (step != _DELETE) & (step != _END)
    paths = np.stack(walked[::-1], axis=1)
    lens = (paths != _END).sum(axis=1)
    return [path[len(path) - size :].tobytes() for path, size in zip(paths, lens, strict=True)]


def _numbered(texts: Sequence[Sequence[str]], numbers: dict[str, int], fill: int) -> tuple[NDArray, NDArray]:
    """Token numbers (texts, longest), filled up at the end, and the lengths."""
    lens = np.array([len(text) for text in texts])
    table = np.full((len(texts), int(lens.max())), fill, dtype=np.int32)
    flat = [numbers.setdefault(token, len(numbers)) for text in texts for token in text]
    table[np.arange(table.shape[1]) < lens[:, None]] = flat
    return table, lens
