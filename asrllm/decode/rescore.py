"""Rescoring of n-best lists: more components for every hypothesis, then a new order by a weighted sum. Never a search.

A rescorer sees texts, not the tokens that a search found them with: what it gives is the score of the text as it would
write it itself. A component of the same name is replaced.

It knows models through `SpeechModel` and `TextLm`; not files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol

import pydantic
import torch

from asrllm.batch import Batch, pad
from asrllm.config import Config
from asrllm.console import UserError
from asrllm.decode.ctc_search import BLANK
from asrllm.decode.scorer import SpeechModel
from asrllm.decode.text_lm import TextLm, TextLmConfig
from asrllm.decode.token_tree import Node, TokenTree
from asrllm.hypothesis import NBest
from asrllm.text.tokenizer import Tokenizer

LENGTH = "length"  # the component that every list has: how many tokens the search found
IMPOSSIBLE = -1e9  # CTC score of a text that its units or the frames cannot hold; finite, so that a weight of 0 is 0


class LmConfig(TextLmConfig):
    """A language model over text."""

    type: Literal["lm"] = "lm"


class SpeechLlmConfig(Config):
    """The speech LLM of the experiment, by teacher forcing."""

    type: Literal["speech_llm"] = "speech_llm"


class CtcConfig(Config):
    """The CTC head of the experiment: the probability of the text, summed over all paths."""

    type: Literal["ctc"] = "ctc"


class PriorConfig(Config):
    """The label prior of the experiment's CTC head (`asrllm.bin.estimate_prior`)."""

    type: Literal["prior"] = "prior"


ScorerConfig = Annotated[LmConfig | SpeechLlmConfig | CtcConfig | PriorConfig, pydantic.Field(discriminator="type")]


class RescoreConfig(Config):
    """`scorers`: name of a component -> what gives it; without any, lists are only ordered anew.

    `weights`: name -> weight of a component that a list has or is given here; `length` counts the tokens.
    """

    scorers: dict[str, ScorerConfig] = {}
    weights: Annotated[dict[str, float], pydantic.Field(min_length=1)]
    batch_seconds: float = pydantic.Field(default=60.0, gt=0.0)


@dataclass(frozen=True)
class Rated:
    """Scores of one utterance's texts, and how many tokens an LLM has read for them, if there is one."""

    scores: list[float]
    lm_tokens: int | None = None


class Rescorer(Protocol):
    """Gives one component."""

    def rate(self, texts: Sequence[Sequence[str]], batch: Batch | None) -> list[Rated]:
        """Scores for the texts of each utterance; `batch` has their audio, in the same order, where it is wanted."""


class LmRescorer:
    """A language model over text; texts of an utterance that begin alike are read once."""

    def __init__(self, lm: TextLm) -> None:
        self._lm, self._tree = lm, lm.tree()

    def rate(self, texts: Sequence[Sequence[str]], batch: Batch | None) -> list[Rated]:
        """See `Rescorer`."""
        rated = []
        for group in texts:
            root = self._tree.root()
            rated.append(_rate(self._tree, root, [[*self._lm.tokens(text), self._lm.end] for text in group]))
            self._tree.keep([])
        return rated


class SpeechLlmRescorer:
    """The speech LLM after its prompt and the audio."""

    def __init__(self, model: SpeechModel, encode: Callable[[str], list[int]]) -> None:
        self._model, self._encode = model, encode

    def rate(self, texts: Sequence[Sequence[str]], batch: Batch | None) -> list[Rated]:
        """See `Rescorer`."""
        assert batch is not None
        embeds, lens = self._model.prefix(batch)
        before = self._model.before().to(embeds.dtype)
        rated = []
        for group, row, size in zip(texts, embeds, lens.tolist(), strict=True):
            tree = TokenTree(self._model.llm, torch.cat([before, row[:size]]))
            lines = [[*self._encode(text), self._model.llm_end_ids[0]] for text in group]
            rated.append(_rate(tree, tree.root(), lines))
        return rated


class CtcRescorer:
    """The CTC head, all paths."""

    def __init__(self, model: SpeechModel, units: Tokenizer) -> None:
        self._model, self._units = model, units

    def rate(self, texts: Sequence[Sequence[str]], batch: Batch | None) -> list[Rated]:
        """See `Rescorer`."""
        assert batch is not None
        log_probs, lens = self._model.ctc_log_probs(batch)
        return [
            Rated(full_sums(row[:size], [self._labels(text) for text in group]))
            for group, row, size in zip(texts, log_probs, lens.tolist(), strict=True)
        ]

    def _labels(self, text: str) -> list[int] | None:
        try:
            return self._units.encode(text)
        except UserError:  # a character that is no unit
            return None


class PriorRescorer:
    """The label prior."""

    def __init__(self, units: Tokenizer, log_prior: torch.Tensor) -> None:
        self._units, self._log_prior = units, log_prior

    def rate(self, texts: Sequence[Sequence[str]], batch: Batch | None) -> list[Rated]:
        """See `Rescorer`."""
        return [Rated([float(self._log_prior[self._units.encode(text)].sum()) for text in group]) for group in texts]


def full_sums(log_probs: torch.Tensor, labels: Sequence[list[int] | None]) -> list[float]:
    """Log-probability of each label sequence in one utterance (T, V), over all paths, in float64.

    `IMPOSSIBLE` where there are no labels (None), or more than the frames can hold.
    """
    rows = [row for row in labels if row is not None]
    if not rows:
        return [IMPOSSIBLE for _ in labels]
    if not len(log_probs):
        return [0.0 if row == [] else IMPOSSIBLE for row in labels]
    used = sorted({BLANK, *(label for row in rows for label in row)})
    place = {label: number for number, label in enumerate(used)}
    frames = log_probs[:, used].double()[:, None].expand(-1, len(rows), -1)
    targets, target_lens = pad([torch.tensor([place[label] for label in row], dtype=torch.long) for row in rows])
    lens = torch.full((len(rows),), len(log_probs))
    losses = torch.nn.functional.ctc_loss(
        frames, targets.to(frames.device), lens, target_lens, blank=place[BLANK], reduction="none"
    )
    sums = iter((-losses).clamp(min=IMPOSSIBLE).tolist())
    return [IMPOSSIBLE if row is None else next(sums) for row in labels]


@torch.inference_mode()
def rescore(lists: Sequence[NBest], rescorers: Mapping[str, Rescorer], batch: Batch | None) -> list[NBest]:
    """The same lists in the same order, with a component more for each rescorer, and the length."""
    texts = [[each.text for each in nbest.hypotheses] for nbest in lists]
    added: list[list[dict[str, float]]] = [
        [{LENGTH: float(len(each.tokens))} for each in nbest.hypotheses] for nbest in lists
    ]
    counts = [dict(nbest.counts) for nbest in lists]
    for name, rescorer in rescorers.items():
        for scores, count, rated in zip(added, counts, rescorer.rate(texts, batch), strict=True):
            for components, score in zip(scores, rated.scores, strict=True):
                components[name] = score
            if rated.lm_tokens is not None:
                count["lm_calls"] = count.get("lm_calls", 0) + (rated.lm_tokens > 0)
                count["lm_tokens"] = count.get("lm_tokens", 0) + rated.lm_tokens
    return [
        replace(
            nbest,
            hypotheses=[
                replace(each, scores={**each.scores, **scores})
                for each, scores in zip(nbest.hypotheses, components, strict=True)
            ],
            counts=count,
        )
        for nbest, components, count in zip(lists, added, counts, strict=True)
    ]


def rank(nbest: NBest, weights: Mapping[str, float]) -> NBest:
    """The list in the order of the weighted sum of its components, which becomes the score.

    Raises:
        UserError: a weight for a component that a hypothesis does not have.
    """
    for each in nbest.hypotheses:
        if missing := sorted(weights.keys() - each.scores.keys()):
            raise UserError(
                f"weights.{missing[0]}: utterance {nbest.utt_id} has no score of that name, only "
                f"{', '.join(sorted(each.scores))}: add a scorer of that name, or leave the weight out"
            )
    scored = [
        replace(each, score=sum(weight * each.scores[name] for name, weight in weights.items()))
        for each in nbest.hypotheses
    ]
    return replace(nbest, hypotheses=sorted(scored, key=lambda each: -each.score))


def _rate(tree: TokenTree, root: Node, lines: Sequence[Sequence[int]]) -> Rated:
    nodes = [root.walk(line) for line in lines]
    (tokens,) = tree.score([nodes])
    return Rated([node.total for node in nodes if node.total is not None], tokens)
