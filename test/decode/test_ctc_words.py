"""CTC word by word where words have several spellings, against enumeration of all paths and all spellings."""

import itertools
import math
import random

import pytest
import torch

from asrllm.decode.ctc_prefix import CtcPrefix, log_sums
from asrllm.decode.ctc_words import CtcWordScorer

LABELS, END = 4, 9
WAYS = {  # one is a part of another, one is silent, and 0 1 may be said as 1 0
    (0,): [[1], [1, 2]],
    (1,): [[2], [2, 1], [3, 3]],
    (2,): [[]],
    (3,): [[2, 1]],
    (3, 8): [[3], [1]],
    (0, 8): [[2]],
}


def said(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Probability of each label sequence, over all paths."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(LABELS), repeat=len(log_probs)):
        labels = tuple(label for label, _ in itertools.groupby(path) if label)
        log_prob = sum(log_probs[frame, label].item() for frame, label in enumerate(path))
        found[labels] = found.get(labels, 0.0) + math.exp(log_prob)
    return found


def truth(sequences: dict[tuple[int, ...], float], words: list[tuple[int, ...]], whole: bool) -> float:
    total = 0.0
    for way in itertools.product(*(WAYS[word] for word in words)):
        labels = tuple(sum(way, []))
        if whole:
            total += sequences.get(labels, 0.0)
        else:
            total += sum(p for other, p in sequences.items() if other[: len(labels)] == labels)
    return math.log(total) if total else -math.inf


def test_sums_over_spellings_are_those_of_enumeration() -> None:
    """Rows that follow others at random, as hypotheses of a beam do; token 8 goes on with a word."""
    draw = random.Random(0)
    lens, beam = torch.tensor([5, 4]), 3
    log_probs = (2 * torch.randn(2, 5, LABELS, dtype=torch.float64)).log_softmax(-1)
    sequences = [said(row[:size]) for row, size in zip(log_probs.float().double(), lens.tolist(), strict=True)]
    starts = torch.tensor([token < 8 for token in range(END + 1)])
    scorer = CtcWordScorer(CtcPrefix(log_probs, lens), lambda word: WAYS[word], starts, [END])
    state, words, totals = scorer.start(), [[[]], [[]]], [[0.0], [0.0]]
    finite = 0
    for _ in range(6):
        here = len(words[0])
        candidates = torch.tensor([0, 1, 8, END]).expand(2, here, -1)
        added = scorer.score_candidates(state, candidates)
        for row, k in itertools.product(range(2), range(here)):
            before, whole = totals[row][k], truth(sequences[row], words[row][k], True)
            wanted = [truth(sequences[row], words[row][k], False)] * 2 + [before, whole]
            for add, want in zip(added[row, k].tolist(), wanted, strict=True):
                finite += want > -math.inf
                assert before + add == pytest.approx(want, abs=1e-6) or before == add == want == -math.inf
        parents = [[draw.randrange(here) for _ in range(beam)] for _ in range(2)]
        tokens, new_words, new_totals = [], [[], []], [[], []]
        for row in range(2):
            for parent in parents[row]:
                own = words[row][parent]
                goes_on = bool(own) and own[-1] in ((0,), (3,)) and draw.random() < 0.5
                token = 8 if goes_on else draw.randrange(4)
                new_words[row].append([*own[:-1], (*own[-1], 8)] if goes_on else [*own, (token,)])
                closed = totals[row][parent] if goes_on else truth(sequences[row], own, False)
                new_totals[row].append(closed)
                tokens.append(token)
        rows = torch.tensor([[row * here + parent for parent in parents[row]] for row in range(2)])
        state = scorer.advance(state, rows, torch.tensor(tokens).view(2, beam))
        words, totals = new_words, new_totals
    assert finite > 40


def test_sums_of_logarithms() -> None:
    values, groups = torch.randn(7, 3, dtype=torch.float64), torch.tensor([2, 0, 2, 2, 0, 3, 3])
    values[5:, 1] = -torch.inf
    found = log_sums(values, groups, 5)
    for group in range(5):
        assert torch.equal(found[group], values[groups == group].logsumexp(0)) or torch.allclose(
            found[group], values[groups == group].logsumexp(0), atol=1e-12
        )
