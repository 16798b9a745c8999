"""Forced alignment against the enumeration of all paths, and against torchaudio where its compiled library loads."""

import itertools

import pytest
import torch

from asrllm.console import UserError
from asrllm.decode.forced_align import Span, forced_align, spans


def spelled(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label]


def test_best_of_all_paths_whatever_the_batch() -> None:
    labels = [[1, 2], [2, 2], [], [1], [1, 1, 2], [2, 1, 2, 1, 2]]
    lens = torch.tensor([5, 3, 4, 1, 6, 5])
    log_probs = (3 * torch.randn(6, 6, 3)).log_softmax(-1)
    paths, scores = forced_align(log_probs, lens, labels)
    for row, size in enumerate(lens.tolist()):
        fits = [path for path in itertools.product(range(3), repeat=size) if spelled(path) == labels[row]]
        best = max(fits, key=lambda path: sum(float(log_probs[row, t, label]) for t, label in enumerate(path)))
        assert tuple(paths[row, :size].tolist()) == best
        torch.testing.assert_close(scores[row, :size], log_probs[row, torch.arange(size), torch.tensor(best)])
        assert not paths[row, size:].any() and not scores[row, size:].any()
        alone = forced_align(log_probs[row : row + 1, :size], lens[row : row + 1], [labels[row]])
        assert torch.equal(alone[0][0], paths[row, :size]) and torch.equal(alone[1][0], scores[row, :size])


def test_equals_torchaudio() -> None:
    try:
        from torchaudio.functional import forced_align as theirs

        theirs(torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.int32))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        pytest.skip(f"torchaudio's compiled library does not load here: {str(error).splitlines()[0]}")
    log_probs = torch.randn(3, 60, 12).log_softmax(-1)
    lens, labels = torch.tensor([60, 41, 50]), [torch.randint(1, 12, (size,)).tolist() for size in (20, 3, 22)]
    paths, scores = forced_align(log_probs, lens, labels)
    for row, size in enumerate(lens.tolist()):
        path, score = theirs(log_probs[row : row + 1, :size], torch.tensor([labels[row]], dtype=torch.int32))
        assert torch.equal(path[0].long(), paths[row, :size])
        torch.testing.assert_close(score[0], scores[row, :size])


def test_spans_are_labels_with_their_frames() -> None:
    path = torch.tensor([0, 3, 3, 0, 3, 1, 0, 0])
    scores = torch.tensor([-1.0, -2.0, -4.0, -1.0, -0.5, -0.25, -1.0, 0.0])
    assert spans(path, scores) == [Span(3, 1, 3, -3.0), Span(3, 4, 5, -0.5), Span(1, 5, 6, -0.25)]
    assert spans(torch.zeros(4).long(), torch.zeros(4)) == []


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([[1], [2, 2, 1]], "utterance 1: 3 frames, its 3 labels need at least 4"),
        ([[1], [0]], "utterance 1: label 0, expected 1 to 2"),
        ([[3], [1]], "utterance 0: label 3, expected 1 to 2"),
        ([[1], [2]], "utterance 1: no path that spells its labels has a finite log-probability"),
    ],
)
def test_what_cannot_be_aligned_is_named(labels: list[list[int]], says: str) -> None:
    log_probs = torch.randn(2, 4, 3).log_softmax(-1)
    log_probs[1, :, 2] = -torch.inf
    with pytest.raises(UserError, match=says):
        forced_align(log_probs, torch.tensor([4, 3]), labels)
