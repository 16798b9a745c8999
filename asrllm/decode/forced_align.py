"""CTC forced alignment: the most probable path of frames that spells given labels (Graves et al. 2006, section 4.1).

The Viterbi algorithm over the lattice blank, l_1, blank, ..., l_U, blank, for a batch of utterances at once. It does
the work of `torchaudio.functional.forced_align`, which takes one utterance and needs torchaudio's compiled library.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad as pad_ends

from asrllm.batch import pad, real
from asrllm.console import UserError
from asrllm.text.spelling import frames_needed

BLANK = 0


@dataclass(frozen=True)
class Span:
    """A label and the frames that it holds, first <= frame < end."""

    label: int
    first: int
    end: int
    log_prob: float  # mean over these frames


def forced_align(
    log_probs: torch.Tensor, lens: torch.Tensor, labels: list[list[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best path of each utterance.

    Args:
        log_probs: (B, T, V), label 0 the blank; at least one utterance.
        lens: (B,) real frames.
        labels: per utterance, without blanks.

    Returns:
        (B, T) label of each frame, and (B, T) its log-probability; both 0 past the end.

    Raises:
        UserError: an utterance has too few frames for its labels, a label that is none, or no path of finite score.
    """
    _check(lens.tolist(), labels, log_probs.shape[2])
    targets, target_lens = (each.to(log_probs.device) for each in pad([torch.tensor(row).long() for row in labels]))
    states = targets.new_full((len(labels), 2 * targets.shape[1] + 1), BLANK)  # label of each state of the lattice
    states[:, 1::2] = targets
    skips = torch.zeros_like(states, dtype=torch.bool)  # the blank before may be left out between two different labels
    skips[:, 3::2] = targets[:, 1:] != targets[:, :-1]
    lens = lens.to(log_probs.device)
    emitted = log_probs.float().gather(2, states[:, None].expand(-1, log_probs.shape[1], -1))  # (B, T, states)
    totals, steps = _forward(emitted, skips, lens)

    last = 2 * target_lens[:, None]
    ends = totals.gather(1, torch.cat([last, (last - 1).clamp(min=0)], 1))  # in the last blank, in the last label
    for row in (ends.amax(1).isinf() | ends.isnan().any(1)).nonzero().flatten().tolist():
        raise UserError(f"utterance {row}: no path that spells its labels has a finite log-probability")
    at = (last[:, 0] - ends.argmax(1)).clamp(min=0)
    path = _backward(at, steps)
    mask = real(lens, emitted.shape[1])
    scores = emitted.gather(2, path[..., None])[..., 0]
    return states.gather(1, path).masked_fill(~mask, BLANK), scores.masked_fill(~mask, 0.0)


def spans(path: torch.Tensor, scores: torch.Tensor) -> list[Span]:
    """The labels of one path (T,) with their frames; `scores` (T,) are its log-probabilities."""
    labels, counts = path.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0).tolist()
    found = zip(labels.tolist(), [0, *ends], ends, strict=False)
    return [Span(label, first, end, float(scores[first:end].mean())) for label, first, end in found if label != BLANK]


def _forward(emitted: torch.Tensor, skips: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Best log-probability (B, states) of a path into each state; how far the best steps went (T, B, states)."""
    before_start = emitted.new_full(emitted[:, 0].shape, -torch.inf)
    before_start[:, 0] = 0.0  # a first step of none or one state leads into the first blank or label
    totals, steps = before_start, []
    for frame in range(emitted.shape[1]):
        one = pad_ends(totals, (1, 0), value=-torch.inf)[:, :-1]
        two = pad_ends(one, (1, 0), value=-torch.inf)[:, :-1].masked_fill(~skips, -torch.inf)
        best, step = torch.stack([totals, one, two]).max(0)
        live = (frame < lens)[:, None]
        totals = torch.where(live, best + emitted[:, frame], totals)
        steps.append(step.masked_fill(~live, 0))
    return totals, torch.stack(steps)


def _backward(at: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The states (B, T) of the path that ends in states `at` (B,)."""
    path = []
    for step in steps.flip(0):
        path.append(at)
        at = at - step.gather(1, at[:, None])[:, 0]
    return torch.stack(path[::-1], 1)


def _check(lens: list[int], labels: list[list[int]], size: int) -> None:
    for number, (frames, row) in enumerate(zip(lens, labels, strict=True)):
        if (needed := frames_needed(row)) > frames:
            raise UserError(f"utterance {number}: {frames} frames, its {len(row)} labels need at least {needed}")
        if bad := [label for label in row if not BLANK < label < size]:
            raise UserError(f"utterance {number}: label {bad[0]}, expected 1 to {size - 1}")
