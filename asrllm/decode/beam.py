"""Label-synchronous beam search over a weighted sum of scorers, batched over utterances.

A hypothesis of n tokens, its end token counted, with log-score s is ranked by s / n^e, e = `length_exponent`. Those
that still run have equal n and are compared by s alone. A finished one leaves the beam for the pool of its utterance
and is rescaled there, so it never takes the place of a running one. An utterance is done when none of its running
hypotheses can still enter the n best, whatever follows: scores only fall (every term is a log-probability, every weight
is above zero), so a running s can reach at most s / limit^e. At equal settings this is what transformers' `generate`
does with `num_beams`, `length_penalty` and `early_stopping="never"`. A beam of 1 is greedy search: the first end token
ends it.

It does not know what the scorers are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic
import torch

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.decode.scorer import Scorer


class BeamConfig(Config):
    """Beam search with the LLM; `beam: 1` is greedy.

    An utterance of s seconds gets at most `tokens_per_second` * s tokens (at least 8) and never more than `max_tokens`,
    the end token included.
    """

    type: Literal["beam"] = "beam"
    beam: int = pydantic.Field(4, ge=1)
    nbest: int = pydantic.Field(1, ge=1)
    length_exponent: float = pydantic.Field(1.0, ge=0.0)
    tokens_per_second: float = pydantic.Field(10.0, gt=0.0)
    min_tokens: int = pydantic.Field(0, ge=0)
    max_tokens: int = pydantic.Field(400, ge=1)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "BeamConfig":
        if self.nbest > self.beam:
            raise ValueError(f"nbest is {self.nbest}, but a beam of {self.beam} holds no more than {self.beam}")
        if self.min_tokens >= self.max_tokens:
            raise ValueError(f"min_tokens is {self.min_tokens}, expected less than max_tokens, {self.max_tokens}")
        return self


@dataclass(frozen=True)
class Finished:
    """A hypothesis that has left the beam."""

    tokens: list[int]  # without the end token
    score: float  # weighted sum / length^e
    scores: dict[str, float]  # scorer -> unweighted sum, end token included
    ended: bool  # False where the limit cut it


@dataclass(frozen=True)
class _Rows:
    """The running hypotheses, (B, K, ...)."""

    tokens: torch.Tensor  # (B, K, L) int64
    totals: torch.Tensor  # (B, K) weighted sums; -inf marks a row that holds nothing
    parts: torch.Tensor  # (B, K, number of scorers) unweighted sums


@dataclass
class _Pool:
    """The finished hypotheses of one utterance, best first, and when to stop."""

    limit: int
    config: BeamConfig
    names: list[str]
    best: list[Finished] = field(default_factory=list)

    def add(self, tokens: list[int], total: float, parts: list[float], ended: bool) -> None:
        """Rescale a complete hypothesis, whose `tokens` hold the end token, and keep it if it is among the n best."""
        score = total / len(tokens) ** self.config.length_exponent
        scores = dict(zip(self.names, parts, strict=True))
        found = Finished(tokens[:-1] if ended else tokens, score, scores, ended)
        self.best = sorted([*self.best, found], key=lambda each: -each.score)[: self.config.nbest]

    def done(self, running: float, step: int) -> bool:
        """Whether nothing better can come from running hypotheses of which the best has the weighted sum `running`."""
        if step >= self.limit or running == -torch.inf:
            return True
        if self.config.beam == 1:
            return bool(self.best)
        bound = running / self.limit**self.config.length_exponent
        return len(self.best) == self.config.nbest and self.best[-1].score >= bound


@torch.inference_mode()
def beam_search(
    scorers: Mapping[str, Scorer[Any]],
    weights: Mapping[str, float],
    end_ids: list[int],
    limits: list[int],
    config: BeamConfig,
) -> list[list[Finished]]:
    """The n best hypotheses of each utterance, best first, at least one.

    Args:
        scorers: by name; all over the same units and the same utterances.
        weights: of each scorer, above zero.
        end_ids: tokens that end a hypothesis.
        limits: most tokens for each utterance, end token included.
        config: beam, n best, length exponent, least tokens (its token limits are not read: `limits` holds).

    Raises:
        UserError: a scorer gives what is not a number.
    """
    pools = [_Pool(limit, config, list(scorers)) for limit in limits]
    live = list(range(len(limits)))
    log_probs, states = {}, {}
    for name, scorer in scorers.items():
        log_probs[name], states[name] = scorer.start()
    rows = _first_rows(len(limits), len(scorers), next(iter(log_probs.values())).device)
    ends = torch.tensor(end_ids, dtype=torch.long, device=rows.totals.device)
    for step in range(1, max(limits) + 1):
        terms = [(weights[name], log_probs[name], scorers[name].finish(states[name])) for name in scorers]
        candidates, parents = _extend(rows, terms, ends, config, step)
        ended = torch.isin(candidates.tokens[..., -1], ends)
        _collect(candidates, ended, [pools[each] for each in live], config.beam)
        going = ended.to(torch.uint8).argsort(dim=1, stable=True)[:, : config.beam]
        totals = candidates.totals.masked_fill(ended, -torch.inf)
        best = totals.max(dim=1).values.tolist()
        stay = [i for i, each in enumerate(live) if not pools[each].done(best[i], step)]
        if not stay:
            break
        live = [live[i] for i in stay]
        rows = _take(_Rows(candidates.tokens, totals, candidates.parts), going, stay)
        for name, scorer in scorers.items():
            state = scorer.select(states[name], parents.gather(1, going)[stay])
            log_probs[name], states[name] = scorer.score(rows.tokens[..., -1], state)
    return [pool.best for pool in pools]


def _first_rows(utterances: int, terms: int, device: torch.device) -> _Rows:
    """One empty hypothesis for each utterance: copies of it would fill the first beam with one token."""
    return _Rows(
        torch.zeros(utterances, 1, 0, dtype=torch.long, device=device),
        torch.zeros(utterances, 1, device=device),
        torch.zeros(utterances, 1, terms, device=device),
    )


def _extend(
    rows: _Rows,
    terms: list[tuple[float, torch.Tensor, torch.Tensor]],
    ends: torch.Tensor,
    config: BeamConfig,
    step: int,
) -> tuple[_Rows, torch.Tensor]:
    """The best one-token extensions (B, C), best first, and the flat row (B, C) that each comes from.

    C is beam * (1 + number of end tokens), so that `beam` of them run on even if all ends are among them. `terms` holds
    weight, log-probabilities (B, K, V) and what is added at an end (B, K).
    """
    scored = rows.totals[..., None]
    for weight, log_probs, _ in terms:
        scored = torch.add(scored, log_probs, alpha=weight)
    if step <= config.min_tokens:
        scored[..., ends] = -torch.inf
    else:
        for weight, _, final in terms:
            scored[..., ends] += weight * final[..., None]
    utterances, beam, units = scored.shape
    totals, index = scored.flatten(1).topk(min(config.beam * (1 + len(ends)), beam * units), dim=1)
    if totals.isnan().any():
        raise UserError(
            "the scores of the search are not numbers: the model's weights are damaged or its training failed"
        )
    hypothesis, token = index // units, index % units
    at_end = torch.isin(token, ends)
    parts = [
        log_probs.flatten(1).gather(1, index) + final.gather(1, hypothesis) * at_end for _, log_probs, final in terms
    ]
    chosen = _take(rows, hypothesis, list(range(utterances)))
    tokens = torch.cat([chosen.tokens, token[..., None]], dim=2)
    first = torch.arange(utterances, device=index.device)[:, None] * beam
    return _Rows(tokens, totals, chosen.parts + torch.stack(parts, dim=2)), hypothesis + first


def _take(rows: _Rows, hypotheses: torch.Tensor, utterances: list[int]) -> _Rows:
    """Of the given utterances (B'), the given hypotheses (B, K')."""
    each = torch.arange(len(hypotheses), device=hypotheses.device)[:, None]
    taken = (field[each, hypotheses][utterances] for field in (rows.tokens, rows.totals, rows.parts))
    return _Rows(*taken)


def _collect(candidates: _Rows, ended: torch.Tensor, pools: list[_Pool], beam: int) -> None:
    """Put complete hypotheses among the `beam` best candidates of each utterance into its pool."""
    step = candidates.tokens.shape[2]
    totals, ends = candidates.totals[:, :beam].tolist(), ended[:, :beam].tolist()
    for i, pool in enumerate(pools):
        for rank, (total, end) in enumerate(zip(totals[i], ends[i], strict=True)):
            if (end or step == pool.limit) and total > -torch.inf:
                tokens = candidates.tokens[i, rank].tolist()
                pool.add(tokens, total, candidates.parts[i, rank].tolist(), end)
