"""Search in CTC frame posteriors (Graves et al. 2006). Unit 0 is the blank.

Greedy: the best unit of each frame. Prefix beam search (Graves and Jaitly 2014; Hannun et al. 2014): frame by frame,
over label sequences; paths that spell the same labels are recombined by their sum or their maximum. All hypotheses of
all utterances take a step in a few tensor operations. Equal prefixes are told by a 64-bit hash of their labels: that
two of some thousand prefixes share one by chance has a probability below 1e-12.

It does not know where the posteriors come from, nor what else gives scores to prefixes (see `Guide`).
"""

from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol

import pydantic
import torch

from asrllm.batch import real
from asrllm.config import Config
from asrllm.console import UserError

BLANK = 0
EMPTY_KEY, ORPHAN_KEY, DEAD_KEY = 1, -1, -2  # of the empty prefix, of what has no parent, of what no path spells
_ODD = -7046029254386353131  # 2^64 / golden ratio: multiplying by it spreads small numbers over all bits


class CtcGreedyConfig(Config):
    """The best unit of each frame, repeats merged, blanks dropped."""

    type: Literal["ctc_greedy"] = "ctc_greedy"


class PrefixBeamConfig(Config):
    """Prefix beam search: `beam` prefixes, of which `nbest` are given out.

    A prefix is extended by the `labels_per_frame` best labels of a frame; probabilities of its own last label and of
    the blank are never cut. `recombination` is `sum` (probability of the prefix) or `max` (of its best path).
    """

    beam: int = pydantic.Field(16, ge=1)
    nbest: int = pydantic.Field(1, ge=1)
    recombination: Literal["sum", "max"] = "sum"
    labels_per_frame: int = pydantic.Field(16, ge=1)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "PrefixBeamConfig":
        if self.nbest > self.beam:
            raise ValueError(f"nbest is {self.nbest}, but a beam of {self.beam} holds no more than {self.beam}")
        return self


class CtcPrefixConfig(PrefixBeamConfig):
    """CTC alone."""

    type: Literal["ctc_prefix"] = "ctc_prefix"


@dataclass(frozen=True)
class Prefixes:
    """The prefixes of each utterance, (B, K, ...); no two of them are equal."""

    labels: torch.Tensor  # (B, K, U) int64, zeros past the end
    sizes: torch.Tensor  # (B, K) int64
    last: torch.Tensor  # (B, K) int64, 0 for the empty prefix
    keys: torch.Tensor  # (B, K) int64, hash of the labels
    parent_keys: torch.Tensor  # (B, K) int64, hash of the labels without the last
    log_blank: torch.Tensor  # (B, K) float64, paths that end in a blank
    log_label: torch.Tensor  # (B, K) float64, paths that end in the last label
    bonus: torch.Tensor  # (B, K) float64, what a guide has added

    def take(self, utterances: torch.Tensor) -> "Prefixes":
        """Of the given utterances."""
        return Prefixes(*(getattr(self, field.name)[utterances] for field in fields(self)))

    def spelled(self) -> list[list[list[int]]]:
        """The labels of each prefix of each utterance."""
        rows = zip(self.labels.tolist(), self.sizes.tolist(), strict=True)
        return [[labels[:size] for labels, size in zip(*row, strict=True)] for row in rows]


class Guide(Protocol):
    """What ranks prefixes beside CTC. `live` (B,) are the numbers in the batch of the utterances that it is shown."""

    def gains(self, prefixes: Prefixes, labels: torch.Tensor, live: torch.Tensor) -> torch.Tensor | None:
        """What each label (B, C) adds to the bonus of each prefix, (B, K, C), as it is appended; None where nothing."""

    def bonus(self, prefixes: Prefixes, live: torch.Tensor, frame: int) -> torch.Tensor:
        """The whole bonus (B, K) of prefixes that were chosen at a frame."""


@dataclass(frozen=True)
class Found:
    """A prefix at the end of its utterance."""

    labels: list[int]
    log_prob: float  # over the paths that the beam has kept


def ctc_greedy(log_probs: torch.Tensor, lens: torch.Tensor) -> list[tuple[list[int], float]]:
    """The labels of the best path of each utterance, and that path's log-probability.

    Args:
        log_probs: (B, T, V).
        lens: (B,) frames that are real.
    """
    scores, path = log_probs.float().max(dim=2)
    mask = real(lens.to(path.device), path.shape[1])
    before = torch.nn.functional.pad(path, (1, 0))[:, :-1]
    labels = mask & (path != BLANK) & (path != before)
    totals = scores.masked_fill(~mask, 0.0).sum(dim=1).tolist()
    return [(row[kept].tolist(), total) for row, kept, total in zip(path, labels, totals, strict=True)]


@torch.inference_mode()
def prefix_beam_search(
    log_probs: torch.Tensor, lens: torch.Tensor, config: PrefixBeamConfig, guide: Guide | None = None
) -> list[list[Found]]:
    """The prefixes that the beam of each utterance holds at its end, best first, at least one and at most `beam`.

    Args:
        log_probs: (B, T, V).
        lens: (B,) frames that are real.
        config: `nbest` is not read.
        guide: ranks prefixes beside CTC.

    Raises:
        UserError: posteriors are not numbers.
    """
    lens = lens.to(log_probs.device)
    best = log_probs[..., BLANK + 1 :].topk(min(config.labels_per_frame, log_probs.shape[2] - 1), dim=2)
    found: list[list[Found]] = [[] for _ in lens]
    live = torch.arange(len(lens), device=lens.device)
    prefixes = _empty(live)
    for frame in range(log_probs.shape[1] + 1):
        ended = lens[live] == frame
        if ended.any():
            _collect(prefixes.take(ended), live[ended].tolist(), config, found)
            prefixes, live = prefixes.take(~ended), live[~ended]
            if not len(live):
                break
        labels = best.indices[live, frame] + BLANK + 1
        gains = guide.gains(prefixes, labels, live) if guide else None
        prefixes = _step(prefixes, log_probs[live, frame].double(), labels, gains, config)
        if guide:
            prefixes = replace(prefixes, bonus=guide.bonus(prefixes, live, frame))
    return found


def _empty(utterances: torch.Tensor) -> Prefixes:
    zeros = torch.zeros_like(utterances)[:, None]
    scores = torch.zeros(zeros.shape, dtype=torch.float64, device=zeros.device)
    keys = torch.full_like(zeros, EMPTY_KEY), torch.full_like(zeros, ORPHAN_KEY)
    return Prefixes(zeros[..., None][..., :0], zeros, zeros, *keys, scores, scores - torch.inf, scores)


def _recombine(one: torch.Tensor, other: torch.Tensor, config: PrefixBeamConfig) -> torch.Tensor:
    return torch.logaddexp(one, other) if config.recombination == "sum" else torch.maximum(one, other)


def _step(
    old: Prefixes, scores: torch.Tensor, labels: torch.Tensor, gains: torch.Tensor | None, config: PrefixBeamConfig
) -> Prefixes:
    """The best prefixes after one more frame with log-probabilities `scores` (B, V), extended by `labels` (B, C)."""
    total = _recombine(old.log_blank, old.log_label, config)
    log_blank = total + scores[:, BLANK, None]
    # A prefix whose parent is in the beam is reached from there as well; as an extension it is then left out.
    related = old.parent_keys[:, :, None] == old.keys[:, None]  # (B, child, parent)
    has_parent, parent = related.any(2), related.to(torch.uint8).argmax(2)
    is_double = old.last == old.last.gather(1, parent)  # a label follows itself only after a blank
    reached = torch.where(is_double, old.log_blank.gather(1, parent), total.gather(1, parent))
    log_label = _recombine(old.log_label, reached.masked_fill(~has_parent, -torch.inf), config)
    log_label = log_label + scores.gather(1, old.last)

    is_double = old.last[..., None] == labels[:, None]  # (B, K, C)
    extended = torch.where(is_double, old.log_blank[..., None], total[..., None]) + scores.gather(1, labels)[:, None]
    is_child = (has_parent[..., None] & is_double).to(torch.uint8)
    present = torch.zeros_like(is_child).scatter_add_(1, parent[..., None].expand_as(is_child), is_child)
    extended = extended.masked_fill(present.bool(), -torch.inf)

    bonus = old.bonus[..., None].expand_as(extended) if gains is None else old.bonus[..., None] + gains
    ranks = torch.cat([_recombine(log_blank, log_label, config) + old.bonus, (extended + bonus).flatten(1)], 1)
    best, index = ranks.topk(min(config.beam, ranks.shape[1]), dim=1)
    beam, width = old.keys.shape[1], labels.shape[1]
    is_new, place = index >= beam, (index - beam).clamp(min=0)
    origin = torch.where(is_new, place // width, index)
    chosen = _grown(old, origin, labels.gather(1, place % width).masked_fill(~is_new, 0), best == -torch.inf)
    log_label = torch.where(is_new, extended.flatten(1).gather(1, place), log_label.gather(1, origin))
    bonus = torch.where(is_new, bonus.flatten(1).gather(1, place), chosen.bonus)
    log_blank = log_blank.gather(1, origin).masked_fill(is_new, -torch.inf)
    return replace(chosen, log_blank=log_blank, log_label=log_label, bonus=bonus)


def _grown(old: Prefixes, origin: torch.Tensor, labels: torch.Tensor, is_dead: torch.Tensor) -> Prefixes:
    """The prefixes `origin` (B, K) of `old`, each with one of `labels` (B, K) behind it, or unchanged where that is 0.

    What no path spells gets keys of its own, since it may be there twice.
    """
    is_new = labels != BLANK
    utterance = torch.arange(len(origin), device=origin.device)[:, None]
    chosen = Prefixes(*(getattr(old, field.name)[utterance, origin] for field in fields(old)))
    size = int(chosen.sizes.max()) + 1  # one more than what is there, cut below if nothing took it
    spelled = torch.nn.functional.pad(chosen.labels, (0, size - chosen.labels.shape[2]))
    spelled = spelled.scatter_add(2, chosen.sizes[..., None], labels[..., None])
    sizes = chosen.sizes + is_new
    key = (chosen.keys + labels) * _ODD
    key = key ^ (key >> 29)
    return replace(
        chosen,
        labels=spelled[..., : int(sizes.max())],
        sizes=sizes,
        last=torch.where(is_new, labels, chosen.last),
        keys=torch.where(is_new, key, chosen.keys).masked_fill(is_dead, DEAD_KEY),
        parent_keys=torch.where(is_new, chosen.keys, chosen.parent_keys).masked_fill(is_dead, ORPHAN_KEY),
    )


def _collect(prefixes: Prefixes, utterances: list[int], config: PrefixBeamConfig, found: list[list[Found]]) -> None:
    """Put the prefixes of utterances that have ended into `found`, best first."""
    scores = _recombine(prefixes.log_blank, prefixes.log_label, config)
    if not scores[:, 0].isfinite().all():
        raise UserError("the posteriors of CTC are not numbers: the model's weights are damaged or its training failed")
    _, order = (scores + prefixes.bonus).sort(dim=1, descending=True, stable=True)
    rows = zip(prefixes.spelled(), scores.tolist(), order.tolist(), strict=True)
    for utterance, (labels, log_probs, ranked) in zip(utterances, rows, strict=True):
        each = (Found(labels[k], log_probs[k]) for k in ranked)
        found[utterance] = [one for one in each if one.log_prob > -torch.inf]
