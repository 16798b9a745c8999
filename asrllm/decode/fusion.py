"""Shallow fusion of CTC with a language model over text: a `Guide` of the prefix beam search.

A prefix of labels is cut into pieces: single labels where CTC and LM share their tokens, else whole words, which are
tokenised anew and are complete once the next word has begun. The score of a prefix is

    log p_ctc(prefix) + w_lm log p_lm(pieces) + w_prior log p_prior(labels of pieces) + w_length |labels of pieces|,

where the pieces are those that were fused so far: the prior and the reward wait with the LM. When pieces are fused is
the trigger: `label`, each label before the best prefixes are chosen (label-wise); `interval`, every so many frames;
`word`, as soon as one is complete; `shortest`, when every prefix of the beam has a new piece, and then as many of each
as the shortest has; `end`, only after the last frame, which is rescoring. After the last frame all is fused, the end
token included, on the tokens of the whole text. Delayed fusion is that of Hori et al. (2025, arXiv 2501.09258); which
pieces `shortest` takes, and the reward, are ours.

With look-ahead (ours) the labels that wait are scored too, each before the best prefixes are chosen, by an n-gram LM in
the LM's stead, prior and reward included; when they are fused the LM's score takes that one's place.

It does not know where posteriors, prior or LM come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

import pydantic
import torch

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.decode.ctc_search import DEAD_KEY, Found, PrefixBeamConfig, Prefixes
from asrllm.decode.text_lm import TextLm, TextLmConfig
from asrllm.decode.token_tree import Node
from asrllm.hypothesis import Hypothesis
from asrllm.text.ngram import Ngrams
from asrllm.text.tokenizer import LlmSubsetTokenizer, Tokenizer

Score = TypeVar("Score", float, torch.Tensor)


class IntervalTrigger(Config):
    """Fuse every `frames` encoder frames."""

    type: Literal["interval"] = "interval"
    frames: int = pydantic.Field(default=10, ge=1)


class EventTrigger(Config):
    """Fuse each label, each complete word, what the shortest prefix of the beam has, or only at the end."""

    type: Literal["label", "word", "shortest", "end"]


class FusionWeights(Config):
    """The score is their sum over log-probabilities of CTC, LM and label prior, and the number of labels.

    The prior is divided out: its weight is below zero; with a weight of 0 it is not asked for.
    """

    ctc: float = pydantic.Field(default=1.0, gt=0.0)
    lm: float = 0.5
    prior: float = 0.0
    length: float = 0.0


class LookAheadConfig(Config):
    """An n-gram LM for labels that wait; with `weight` 1 its score counts as much as the LM's will."""

    arpa: str  # ARPA file over the CTC units
    weight: float = pydantic.Field(default=0.5, ge=0.0)


class FusionConfig(PrefixBeamConfig):
    """CTC prefix beam search with an LM. `units`: score the labels themselves as tokens of the LM, or their text."""

    type: Literal["ctc_fusion"] = "ctc_fusion"
    lm: TextLmConfig
    weights: FusionWeights = FusionWeights()
    trigger: Annotated[IntervalTrigger | EventTrigger, pydantic.Field(discriminator="type")] = IntervalTrigger()
    units: Literal["text", "labels"] = "text"
    look_ahead: LookAheadConfig | None = None

    @pydantic.model_validator(mode="after")
    def _fusible(self) -> "FusionConfig":
        wanted = {"label": "labels", "word": "text"}.get(self.trigger.type, self.units)
        if self.units != wanted:
            raise ValueError(f"trigger {self.trigger.type} wants units: {wanted}, found {self.units}")
        if self.look_ahead is not None and self.trigger.type == "label":
            raise ValueError("look_ahead is for labels that wait, and with trigger label none does: leave it out")
        return self


@dataclass(eq=False)
class Piece:
    """The fused labels of a prefix: those of the piece before and some more."""

    before: "Piece | None"
    node: Node  # of the LM, after its tokens
    labels: int  # how many, from the first
    log_prior: float  # of these
    depth: int  # pieces, from the first
    after: dict[tuple[int, ...], "Piece"] = field(default_factory=dict)

    def up_to(self, depth: int) -> "Piece":
        """The first `depth` pieces."""
        piece = self
        while piece.depth > depth and piece.before is not None:
            piece = piece.before
        return piece


class Pieces:
    """Labels into pieces, for one set of units and one LM; made once, used for all batches."""

    def __init__(
        self,
        units: Tokenizer,
        lm: TextLm,
        config: FusionConfig,
        log_prior: torch.Tensor | None = None,
        ngrams: Ngrams | None = None,
    ) -> None:
        """`log_prior` (V,) is over the CTC labels, the blank left out; wanted if it has a weight. `ngrams` look ahead.

        Raises:
            UserError: labels are to be tokens of the LM and are not.
        """
        self.lm, self.config = lm, config
        self.log_prior = None if log_prior is None else log_prior.double()
        self._ngrams = ngrams
        self._look_ahead_weight = config.look_ahead.weight if config.look_ahead else 0.0
        self._units = units
        self._words = config.units == "text"
        self._tokens: dict[tuple[int, ...], list[int]] = {}
        if not self._words:
            if not isinstance(units, LlmSubsetTokenizer) or not units.llm.same_vocabulary(lm.tokenizer):
                raise UserError(
                    f"search.units labels: the CTC units are no tokens of {config.lm.model}: take units: text with a "
                    "delayed trigger, or train the units with type: llm_subset and this LM"
                )
            self._tokens = {(label,): [token] for label, token in enumerate(units.llm_ids, 1)}

    def complete(self, root: Piece, labels: list[int]) -> Piece:
        """All pieces of a prefix that no further label can change."""
        piece = root
        for group in self._split(labels):
            if group not in piece.after:
                piece.after[group] = Piece(
                    piece,
                    piece.node.walk(self.tokens(group)),
                    piece.labels + len(group),
                    piece.log_prior + self.sum_of_prior(group),
                    piece.depth + 1,
                )
            piece = piece.after[group]
        return piece

    def whole(self, labels: list[int]) -> list[int]:
        """Tokens of the LM for all labels of a hypothesis."""
        if self._words:
            return self.lm.tokens(self._units.decode(labels))
        return [token for label in labels for token in self.tokens((label,))]

    def tokens(self, group: tuple[int, ...]) -> list[int]:
        """Tokens of the LM for the labels of one piece."""
        if group not in self._tokens:
            self._tokens[group] = self.lm.tokens(self._units.decode(list(group)))
        return self._tokens[group]

    def sum_of_prior(self, labels: Sequence[int]) -> float:
        """Log prior of labels; 0 where there is none."""
        return 0.0 if self.log_prior is None else float(self.log_prior[list(labels)].sum())

    def bonus(self, piece: Piece) -> float:
        """What the fused labels add to the log-probability of CTC; ranks are in its scale."""
        assert piece.node.total is not None, "a piece that was not scored"
        return self._weighed(piece.node.total, piece.log_prior, piece.labels)

    def gains(self, log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What each of `labels` (B, C) would add, (B, K, C), to which an LM gives `log_probs` (B, K, C)."""
        log_prior = 0.0 if self.log_prior is None else self.log_prior.to(labels.device)[labels][:, None]
        return self._weighed(log_probs.double(), log_prior, 1)

    def look_ahead(self, prefixes: Prefixes, labels: torch.Tensor) -> torch.Tensor | None:
        """What each of `labels` (B, C) adds to each prefix until it is fused, (B, K, C); None without look-ahead."""
        if (ngrams := self._ngrams) is None:
            return None
        contexts = [[ngrams.context(prefix) for prefix in row] for row in prefixes.spelled()]
        pairs = zip(contexts, labels.tolist(), strict=True)
        log_probs = [[[ngrams.log_prob(label, each) for label in some] for each in row] for row, some in pairs]
        gains = self.gains(torch.tensor(log_probs, dtype=torch.float64, device=labels.device), labels)
        return self._look_ahead_weight * gains

    def provisional(self, prefix: list[int], fused: int) -> float:
        """What the labels of a prefix after the first `fused` have while they wait."""
        if (ngrams := self._ngrams) is None:
            return 0.0
        places = range(fused, len(prefix))
        log_prob = sum(ngrams.log_prob(prefix[place], ngrams.context(prefix[:place])) for place in places)
        return self._look_ahead_weight * self._weighed(log_prob, self.sum_of_prior(prefix[fused:]), len(places))

    def _weighed(self, lm: Score, prior: Score | float, labels: int) -> Score:
        weights = self.config.weights
        return (weights.lm * lm + weights.prior * prior + weights.length * labels) / weights.ctc

    def hypothesis(self, found: Found, end: Node) -> Hypothesis:
        """A finished one; `end` is the LM's node of its end token."""
        assert end.total is not None, "a hypothesis that was not scored"
        scores = {"ctc": found.log_prob, "lm": end.total, "length": float(len(found.labels))}
        if self.log_prior is not None:
            scores["prior"] = self.sum_of_prior(found.labels)
        weights = self.config.weights.model_dump()
        score = sum(weights[name] * value for name, value in scores.items())
        return Hypothesis(self._units.decode(found.labels), score, scores, found.labels)

    def _split(self, labels: list[int]) -> list[tuple[int, ...]]:
        if not self._words:
            return [(label,) for label in labels]
        starts = [i for i, label in enumerate(labels) if i == 0 or self._units.starts_word(label)]
        return [tuple(labels[first:last]) for first, last in zip(starts, starts[1:], strict=False)]


class Fusion:
    """The guide of one batch."""

    def __init__(self, pieces: Pieces, lens: torch.Tensor) -> None:
        """`lens` (B,): frames of each utterance; after the last one nothing is fused, since `finish` does it."""
        self._pieces, self._config = pieces, pieces.config
        self._tree = pieces.lm.tree()
        self._lens = lens.tolist()
        self._roots = [Piece(None, self._tree.root(), 0, 0.0, 0) for _ in self._lens]
        self._known: list[dict[int, Piece]] = [{} for _ in self._lens]  # key of a prefix -> its complete pieces
        self._held: list[list[Node]] = [[] for _ in self._lens]  # nodes that were fused last, to go on from
        self._shortest = [0] * len(self._lens)  # pieces that the trigger `shortest` has fused
        self.lm_calls = [0] * len(self._lens)  # for each utterance: runs of the LM in which it took part,
        self.lm_tokens = [0] * len(self._lens)  # and tokens that were run for it

    def gains(self, prefixes: Prefixes, labels: torch.Tensor, live: torch.Tensor) -> torch.Tensor | None:
        """The weighted scores (B, K, C) of each label after each prefix: the LM's, or those of the look-ahead."""
        if self._config.trigger.type != "label":
            return self._pieces.look_ahead(prefixes, labels)
        utterances = live.tolist()
        pieces = self._complete(prefixes, prefixes.spelled(), range(len(utterances)), utterances)
        nodes = [[piece.node for piece in row] for row in pieces]
        self._run(self._tree.run, nodes, utterances)
        tokens = torch.tensor([[self._pieces.tokens((each,))[0] for each in row] for row in labels.tolist()])
        return self._pieces.gains(self._tree.log_probs(nodes, tokens.to(labels.device)), labels)

    def bonus(self, prefixes: Prefixes, live: torch.Tensor, frame: int) -> torch.Tensor:
        """The bonus (B, K) of the prefixes, anew where the trigger fires."""
        trigger, utterances = self._config.trigger, live.tolist()
        rows = [row for row, each in enumerate(utterances) if frame + 1 < self._lens[each]]
        if trigger.type == "end" or (isinstance(trigger, IntervalTrigger) and (frame + 1) % trigger.frames):
            rows = []
        if not rows:
            return prefixes.bonus
        spelled = prefixes.spelled()
        fused = dict(zip(rows, self._complete(prefixes, spelled, rows, utterances), strict=True))
        if trigger.type == "shortest":
            fused = self._evened(fused, utterances)
        if not fused:
            return prefixes.bonus
        nodes = [[piece.node for piece in pieces] for pieces in fused.values()]
        self._run(self._tree.score, nodes, [utterances[row] for row in fused])
        sums = [
            [
                self._pieces.bonus(piece) + self._pieces.provisional(labels, piece.labels)
                for piece, labels in zip(pieces, spelled[row], strict=True)
            ]
            for row, pieces in fused.items()
        ]
        bonus = prefixes.bonus.clone()
        bonus[list(fused)] = torch.tensor(sums, dtype=bonus.dtype, device=bonus.device)
        return bonus

    def finish(self, found: Sequence[Sequence[Found]]) -> list[list[Hypothesis]]:
        """Fuse all of what the search has found, end token included; the n best of each utterance, best first."""
        ends = [
            [root.node.walk([*self._pieces.whole(each.labels), self._pieces.lm.end]) for each in group]
            for root, group in zip(self._roots, found, strict=True)
        ]
        self._run(self._tree.score, ends, range(len(ends)))
        pools = []
        for group, nodes in zip(found, ends, strict=True):
            pool = [self._pieces.hypothesis(each, node) for each, node in zip(group, nodes, strict=True)]
            pools.append(sorted(pool, key=lambda each: -each.score)[: self._config.nbest])
        return pools

    def _complete(
        self, prefixes: Prefixes, spelled: list[list[list[int]]], rows: Sequence[int], utterances: Sequence[int]
    ) -> list[list[Piece]]:
        """The complete pieces of all prefixes in `rows`; what is no prefix is given those of the best one."""
        keys = prefixes.keys.tolist()
        pieces = []
        for row in rows:
            known, root = self._known[utterances[row]], self._roots[utterances[row]]
            for key, labels in zip(keys[row], spelled[row], strict=True):
                if key not in known and key != DEAD_KEY:
                    known[key] = self._pieces.complete(root, labels)
            pieces.append([known[keys[row][0] if key == DEAD_KEY else key] for key in keys[row]])
        return pieces

    def _evened(self, fused: dict[int, list[Piece]], utterances: Sequence[int]) -> dict[int, list[Piece]]:
        """As many pieces of each prefix as the shortest has, where that is more than before."""
        evened = {}
        for row, pieces in fused.items():
            depth = min(piece.depth for piece in pieces)
            if depth > self._shortest[utterances[row]]:
                self._shortest[utterances[row]] = depth
                evened[row] = [piece.up_to(depth) for piece in pieces]
        return evened

    def _run(
        self,
        what: Callable[[Sequence[Sequence[Node]]], list[int]],
        nodes: Sequence[Sequence[Node]],
        utterances: Sequence[int],
    ) -> None:
        """Let the LM run or score nodes of some utterances, count what it did, and free what is no longer in use."""
        for utterance, held, tokens in zip(utterances, nodes, what(nodes), strict=True):
            self._held[utterance] = list(held)
            self.lm_calls[utterance] += tokens > 0
            self.lm_tokens[utterance] += tokens
        self._tree.keep(node for held in self._held for node in held)
