"""Label-synchronous beam search over a weighted sum of scorers, batched over utterances.

A step has two passes. The scorers of all tokens propose `candidates` of them for each hypothesis, beside the end
tokens; those are scored by all.

A hypothesis of n tokens, its end token counted, with score s is ranked by s / n^e, e = `length_exponent`. Those that
still run have equal n and are compared by s alone. A finished one leaves the beam for the pool of its utterance and is
rescaled there, so it never takes the place of a running one. An utterance is done when none of its running hypotheses
can still enter the n best, whatever follows: a token adds at most g, the sum of what each term can add (nothing, where
all are log-probabilities and no weight is below zero), so from s at length n it can reach at most the largest
(s + g (m - n)) / m^e for a length m up to the limit. At equal settings this is what transformers' `generate` does with
`num_beams`, `length_penalty` and `early_stopping="never"`. A beam of 1 is greedy search: the first end token ends it.

It does not know what the scorers are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pydantic
import torch

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.decode.guards import LoopConfig, ends_in_loop
from asrllm.decode.scorer import CandidateScorer, Scorer


class BeamConfig(Config):
    """The size of a search; `beam: 1` is greedy.

    An utterance of s seconds gets at most `tokens_per_second` * s tokens (at least 8) and never more than `max_tokens`,
    the end token included; and at least `min_tokens_per_second` * s and `min_tokens`, without it. `candidates` are the
    tokens of each hypothesis that go into the second pass. With a `length_exponent` of 1 a loop without end may win.
    """

    beam: int = pydantic.Field(4, ge=1)
    nbest: int = pydantic.Field(1, ge=1)
    candidates: int = pydantic.Field(20, ge=1)
    length_exponent: float = pydantic.Field(0.0, ge=0.0)
    tokens_per_second: float = pydantic.Field(10.0, gt=0.0)
    min_tokens_per_second: float = pydantic.Field(0.0, ge=0.0)
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
    ended: bool  # False where the limit or the guard against loops cut it


@dataclass(frozen=True)
class _Rows:
    """The running hypotheses, (B, K, ...)."""

    tokens: torch.Tensor  # (B, K, L) int64
    totals: torch.Tensor  # (B, K) weighted sums, float64; -inf marks a row that holds nothing
    parts: torch.Tensor  # (B, K, number of scorers) unweighted sums


@dataclass
class _Pool:
    """The finished hypotheses of one utterance, best first, and when to stop."""

    limit: int
    config: BeamConfig
    names: list[str]
    gain: float  # the most that one token can add to a weighted sum
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
        bound = reach(running, step, self.limit, self.gain, self.config.length_exponent)
        return len(self.best) == self.config.nbest and self.best[-1].score >= bound


def reach(total: float, length: int, limit: int, gain: float, exponent: float) -> float:
    """The most that (total + gain * (m - length)) / m^exponent is for a length m after `length`, up to `limit`.

    A bound, not always reached: its one peak between the two ends may lie at a broken length.
    """
    lengths = [float(length + 1), float(limit)]
    if exponent > 1 and 0 < gain < torch.inf:
        peak = exponent * (total - gain * length) / (gain * (1 - exponent))
        lengths.append(min(max(peak, lengths[0]), lengths[1]))
    return max((total + gain * (each - length)) / each**exponent for each in lengths)


@torch.inference_mode()
def beam_search(
    scorers: Mapping[str, Scorer[Any]],
    weights: Mapping[str, float],
    end_ids: list[int],
    limits: list[int],
    config: BeamConfig,
    candidate_scorers: Mapping[str, CandidateScorer[Any]] | None = None,
    least: Sequence[int] | None = None,
    loop: LoopConfig | None = None,
    calls: list[int] | None = None,
) -> list[list[Finished]]:
    """The n best hypotheses of each utterance, best first, at least one.

    Args:
        scorers: by name; all over the same units and the same utterances.
        weights: of each scorer of both kinds; a weight of 0 keeps a score without its having a say.
        end_ids: tokens that end a hypothesis.
        limits: most tokens for each utterance, end token included.
        config: beam, n best, candidates, length exponent (its other limits are not read: `limits` and `least` hold).
        candidate_scorers: by name.
        least: tokens of each utterance before it may end, unless nothing else can follow; else `config.min_tokens`.
        loop: what counts as a loop; a hypothesis in one leaves the beam as if it had reached its limit.
        calls: gets, for each utterance, how many times the scorers were run for it.

    Raises:
        UserError: a scorer gives what is not a number.
    """
    raters = candidate_scorers or {}
    names = [*scorers, *raters]
    bounds = [(weights[name], scorer.bounds) for name, scorer in scorers.items()]
    bounds += [(weights[name], rater.bounds) for name, rater in raters.items()]
    gain = sum(max(weight * low, weight * high) for weight, (low, high) in bounds if weight)
    pools = [_Pool(limit, config, names, gain) for limit in limits]
    live = list(range(len(limits)))
    calls = [] if calls is None else calls
    calls[:] = [1] * len(limits)
    log_probs, states = {}, {}
    for name, scorer in scorers.items():
        log_probs[name], states[name] = scorer.start()
    states |= {name: rater.start() for name, rater in raters.items()}
    rows = _first_rows(len(limits), len(names), next(iter(log_probs.values())).device)
    ends = torch.tensor(end_ids, dtype=torch.long, device=rows.totals.device)
    count = max(config.beam, config.candidates if raters else 0)
    for step in range(1, max(limits) + 1):
        tokens = _propose([(weights[name], log_probs[name]) for name in scorers], ends, count)
        parts = [log_probs[name].gather(2, tokens) for name in scorers]
        parts += [rater.score_candidates(states[name], tokens) for name, rater in raters.items()]
        early = torch.tensor([step <= (least[each] if least else config.min_tokens) for each in live])
        terms = [(weights[name], part) for name, part in zip(names, parts, strict=True)]
        candidates, parents = _extend(rows, tokens, terms, ends, early.to(ends.device), config.beam)
        ended = torch.isin(candidates.tokens[..., -1], ends)
        stopped = ended | ends_in_loop(candidates.tokens, loop)
        _collect(candidates, ended, stopped, [pools[each] for each in live], config.beam)
        going = stopped.to(torch.uint8).argsort(dim=1, stable=True)[:, : config.beam]
        totals = candidates.totals.masked_fill(stopped, -torch.inf)
        best = totals.max(dim=1).values.tolist()
        stay = [i for i, each in enumerate(live) if not pools[each].done(best[i], step)]
        if not stay:
            break
        live = [live[i] for i in stay]
        for each in live:
            calls[each] += 1
        rows = _take(_Rows(candidates.tokens, totals, candidates.parts), going, stay)
        parents, tokens = parents.gather(1, going)[stay], rows.tokens[..., -1]
        for name, scorer in scorers.items():
            log_probs[name], states[name] = scorer.score(tokens, scorer.select(states[name], parents))
        states |= {name: rater.advance(states[name], parents, tokens) for name, rater in raters.items()}
    return [pool.best for pool in pools]


def _first_rows(utterances: int, terms: int, device: torch.device) -> _Rows:
    """One empty hypothesis for each utterance: copies of it would fill the first beam with one token."""
    return _Rows(
        torch.zeros(utterances, 1, 0, dtype=torch.long, device=device),
        torch.zeros(utterances, 1, dtype=torch.float64, device=device),
        torch.zeros(utterances, 1, terms, dtype=torch.float64, device=device),
    )


def _propose(terms: list[tuple[float, torch.Tensor]], ends: torch.Tensor, count: int) -> torch.Tensor:
    """All end tokens and, after them, the best others of each hypothesis: (B, K, C).

    At least `count` others (fewer only if the units are), among which end tokens may stand a second time. `terms` holds
    weights and log-probabilities (B, K, V).
    """
    (weight, mixed), *more = [term for term in terms if term[0]] or terms
    if more or weight < 0:
        mixed = sum((weight * log_probs for weight, log_probs in more), weight * mixed)
    best = mixed.topk(min(count + len(ends), mixed.shape[2]), dim=2).indices
    return torch.cat([ends.expand(*best.shape[:2], -1), best], dim=2)


def _extend(
    rows: _Rows,
    tokens: torch.Tensor,
    terms: list[tuple[float, torch.Tensor]],
    ends: torch.Tensor,
    early: torch.Tensor,
    beam: int,
) -> tuple[_Rows, torch.Tensor]:
    """The best one-token extensions (B, C'), best first, and the flat row (B, C') that each comes from.

    C' is beam * (1 + number of end tokens), so that `beam` of them run on even if all ends are among them. `tokens`
    (B, K, C) come from `_propose`, `terms` holds weights and scores (B, K, C), `early` (B,) says who may not end yet.
    """
    scored = rows.totals[..., None].expand(tokens.shape).clone()
    for weight, part in terms:
        if weight:
            scored.add_(part, alpha=weight)
    scored[..., len(ends) :].masked_fill_(torch.isin(tokens[..., len(ends) :], ends), -torch.inf)
    barred = early & (scored[..., len(ends) :] > -torch.inf).flatten(1).any(1)
    scored[..., : len(ends)].masked_fill_(barred[:, None, None], -torch.inf)
    utterances, hypotheses, size = scored.shape
    totals, index = scored.flatten(1).topk(min(beam * (1 + len(ends)), hypotheses * size), dim=1)
    if totals.isnan().any():
        raise UserError(
            "the scores of the search are not numbers: the model's weights are damaged or its training failed"
        )
    parent = index // size
    chosen = _take(rows, parent, list(range(utterances)))
    longer = torch.cat([chosen.tokens, tokens.flatten(1).gather(1, index)[..., None]], dim=2)
    parts = torch.stack([part.flatten(1).gather(1, index) for _, part in terms], dim=2)
    first = torch.arange(utterances, device=index.device)[:, None] * hypotheses
    return _Rows(longer, totals, chosen.parts + parts), parent + first


def _take(rows: _Rows, hypotheses: torch.Tensor, utterances: list[int]) -> _Rows:
    """Of the given utterances (B'), the given hypotheses (B, K')."""
    each = torch.arange(len(hypotheses), device=hypotheses.device)[:, None]
    taken = (field[each, hypotheses][utterances] for field in (rows.tokens, rows.totals, rows.parts))
    return _Rows(*taken)


def _collect(candidates: _Rows, ended: torch.Tensor, stopped: torch.Tensor, pools: list[_Pool], beam: int) -> None:
    """Put what goes no further among the `beam` best candidates of each utterance into its pool."""
    step = candidates.tokens.shape[2]
    totals, ends, stops = (each[:, :beam].tolist() for each in (candidates.totals, ended, stopped))
    for i, pool in enumerate(pools):
        for rank, (total, end, stop) in enumerate(zip(totals[i], ends[i], stops[i], strict=True)):
            if (stop or step == pool.limit) and total > -torch.inf:
                tokens = candidates.tokens[i, rank].tolist()
                pool.add(tokens, total, candidates.parts[i, rank].tolist(), end)
