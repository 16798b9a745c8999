"""Joint decoding: exhaustive search over recomputed scores, teacher forcing, batch mates, units of several kinds."""

import itertools
import math
from functools import cached_property

import pytest
import torch
from toy_llm import END, WIDTH, llama

from asrllm.decode.beam import BeamConfig, Finished, beam_search
from asrllm.decode.ctc_prefix import CtcPrefix
from asrllm.decode.ctc_scorer import Chains, CtcScorer
from asrllm.decode.joint import JointConfig, TokenTable, Weights
from asrllm.decode.scorer import LlmScorer

LABELS = 4
SPELLED = {0: [1], 1: [2], 3: [1, 2], 5: [1, 2, 3], 6: [3, 3], 7: []}  # 4 cannot be written, 7 is silent
LOG_PRIOR = torch.tensor([0.0, -0.5, -1.5, -3.0], dtype=torch.float64)


class Task:
    """Two LLMs and CTC posteriors for some utterances, and the sum of a hypothesis' scores from scratch."""

    def __init__(self, units: int, frames: list[int]) -> None:
        self.llms = {name: llama(vocab_size=units, num_hidden_layers=1) for name in ("llm", "lm")}
        self.units, self.frames = units, torch.tensor(frames)
        self.prefix_lens = torch.tensor([3 + row % 4 for row in range(len(frames))])
        self.embeds = {name: torch.randn(len(frames), 6, WIDTH) for name in self.llms}
        self.log_probs = torch.log_softmax(2 * torch.randn(len(frames), max(frames), LABELS), -1)
        self.chains = Chains(SPELLED, units, None)

    def search(
        self, weights: dict[str, float], config: BeamConfig, limits: list[int], rows: list[int] | None = None
    ) -> list[list[Finished]]:
        rows = list(range(len(self.frames))) if rows is None else rows
        lens, frames = self.prefix_lens[rows], self.frames[rows]
        scorers = {
            name: LlmScorer(llm, self.embeds[name][rows, : lens.max()], lens, max(limits))
            for name, llm in self.llms.items()
            if name in weights
        }
        prefix = CtcPrefix(self.log_probs[rows, : frames.max()], frames)
        tables = {"length": torch.ones(self.units, dtype=torch.float64), "prior": self.chains.sums(LOG_PRIOR)}
        raters = {"ctc": CtcScorer(prefix, self.chains, [END])}
        raters |= {name: TokenTable(table, [END]) for name, table in tables.items()}
        raters = {name: rater for name, rater in raters.items() if name in weights}
        return beam_search(scorers, weights, [END], limits, config, raters)

    def scores(self, row: int, tokens: list[int]) -> dict[str, float]:
        """Teacher forcing; `tokens` hold the end token if there is one."""
        found = {}
        for name, llm in self.llms.items():
            prefix = self.embeds[name][row, : self.prefix_lens[row]]
            with torch.inference_mode():
                after = llm.get_input_embeddings()(torch.tensor(tokens[:-1], dtype=torch.long))
                logits = llm(inputs_embeds=torch.cat([prefix, after])[None]).logits[0, len(prefix) - 1 :]
            found[name] = torch.log_softmax(logits, -1)[torch.arange(len(tokens)), torch.tensor(tokens)].sum().item()
        said = [token for token in tokens if token != END]
        prior = sum(LOG_PRIOR[label].item() for token in said for label in SPELLED.get(token, []))
        return found | {"ctc": self.ctc(row, said, tokens[-1] == END), "length": len(said), "prior": prior}

    def ctc(self, row: int, tokens: list[int], whole: bool) -> float:
        if any(token not in SPELLED for token in tokens):
            return -math.inf
        labels = [label for token in tokens for label in SPELLED[token]]
        log_probs = self.log_probs[row, : self.frames[row]].double()
        if whole:
            targets, sizes = torch.tensor([labels], dtype=torch.long), torch.tensor([len(labels)])
            loss = torch.nn.functional.ctc_loss(log_probs[:, None], targets, self.frames[row, None], sizes, 0, "none")
            return -loss.item()
        total = sum(p for said, p in self.said[row].items() if list(said[: len(labels)]) == labels)
        return math.log(total) if total else -math.inf

    @cached_property
    def said(self) -> list[dict[tuple[int, ...], float]]:
        return [self._say(row) for row in range(len(self.frames))]

    def _say(self, row: int) -> dict[tuple[int, ...], float]:
        """Probability of each label sequence, over all paths."""
        log_probs = self.log_probs[row, : self.frames[row]].double().tolist()
        found: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(LABELS), repeat=len(log_probs)):
            labels = tuple(label for label, _ in itertools.groupby(path) if label)
            found[labels] = found.get(labels, 0.0) + math.exp(sum(log_probs[t][c] for t, c in enumerate(path)))
        return found


WEIGHTS = [
    {"llm": 1.0, "ctc": 0.5},
    {"llm": 1.0, "ctc": 0.3, "lm": 0.4},
    {"llm": 1.0, "ctc": 0.3, "lm": -0.4},
    {"llm": 1.0, "ctc": 0.3, "length": 1.5},
    {"llm": 1.0, "ctc": 0.0, "length": -0.5},
    {"llm": 1.0, "ctc": 0.6, "prior": -0.3},
]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_wide_beam_is_exhaustive(weights: dict[str, float]) -> None:
    """The fourth unit is a chain of two labels, the fifth cannot be written; 3 tokens at most."""
    units, limit, frames = 6, 3, [5, 4]
    task = Task(units, frames)
    others = [unit for unit in range(units) if unit != END]
    complete = [[*body, END] for size in range(limit) for body in itertools.product(others, repeat=size)]
    complete += [list(body) for body in itertools.product(others, repeat=limit)]
    totals = []
    for row in range(len(frames)):
        scores = {tuple(tokens): task.scores(row, tokens) for tokens in complete}
        weighted = {name: weight for name, weight in weights.items() if weight}
        totals.append({each: sum(weighted[name] * scores[each][name] for name in weighted) for each in scores})
    for exponent in (0.0, 1.0, 2.0):
        config = BeamConfig(beam=units**limit, nbest=6, candidates=units, length_exponent=exponent)
        for pool, sums in zip(task.search(weights, config, [limit] * len(frames)), totals, strict=True):
            ranks = {tokens: total / len(tokens) ** exponent for tokens, total in sums.items()}
            best = sorted(ranks, key=lambda each: -ranks[each])[:6]
            assert [(*each.tokens, *[END] * each.ended) for each in pool] == best
            assert [each.score for each in pool] == pytest.approx([ranks[each] for each in best], abs=1e-5)


def test_sums_are_those_of_teacher_forcing() -> None:
    task = Task(30, [40, 25, 33, 1])
    weights = {"llm": 1.0, "ctc": 0.4, "lm": 0.2, "length": 0.1}
    pools = task.search(weights, BeamConfig(beam=4, nbest=4, candidates=6), [12, 9, 15, 8])
    ended = [(row, each) for row, pool in enumerate(pools) for each in pool if each.ended]
    assert len(ended) > 5
    for row, each in ended:
        scores = task.scores(row, [*each.tokens, END])
        wanted = {name: scores[name] for name in weights}
        assert each.scores == pytest.approx(wanted, abs=1e-4)
        assert each.score == pytest.approx(sum(weights[name] * wanted[name] for name in weights), abs=1e-4)


@pytest.mark.parametrize("size", [1, 7, 32])
def test_batch_mates_change_nothing(size: int) -> None:
    order = torch.randperm(32).tolist()
    task = Task(12, [5 + 7 * row % 40 for row in range(32)])
    weights = {"llm": 1.0, "ctc": 0.4, "length": 0.3}
    config = BeamConfig(beam=3, nbest=3, candidates=5)
    limits = [4 + row % 9 for row in range(32)]
    wanted = task.search(weights, config, limits)
    for some in (order[first : first + size] for first in range(0, 32, size)):
        found = task.search(weights, config, [limits[row] for row in some], some)
        for row, pool in zip(some, found, strict=True):
            assert [each.tokens for each in pool] == [each.tokens for each in wanted[row]]
            assert [each.score for each in pool] == pytest.approx([each.score for each in wanted[row]], abs=1e-5)
            assert pool[0].scores == pytest.approx(wanted[row][0].scores, abs=1e-5)


def test_a_zero_weight_keeps_the_score_without_a_say() -> None:
    task = Task(12, [20, 30])
    config = BeamConfig(beam=3, nbest=3)
    with_ctc, without = (task.search(weights, config, [8, 8]) for weights in ({"llm": 1.0, "ctc": 0.0}, {"llm": 1.0}))
    for one, other in zip(sum(with_ctc, []), sum(without, []), strict=True):
        assert (one.tokens, one.score, one.scores["llm"]) == (other.tokens, other.score, other.scores["llm"])
        assert set(one.scores) == {"llm", "ctc"}


def test_end_is_left_where_nothing_else_can_follow() -> None:
    """No frame, no label: the empty text is all there is, whatever the least length says."""
    task = Task(8, [1, 30])
    task.frames[0] = 0
    task.chains = Chains({token: [1] for token in range(8)}, 8, None)
    config = BeamConfig(beam=2, min_tokens=3)
    short, long = task.search({"llm": 1.0, "ctc": 1.0}, config, [8, 8])
    assert short[0].tokens == [] and short[0].ended and short[0].scores["ctc"] == 0.0
    assert len(long[0].tokens) >= 3


def test_refuses_a_weight_without_its_model() -> None:
    with pytest.raises(ValueError, match="weights.lm is given, but not lm"):
        JointConfig(weights=Weights(lm=0.3))
    with pytest.raises(ValueError, match="lm is given, but not weights.lm"):
        JointConfig(lm="somewhere")
    with pytest.raises(ValueError, match="less than or equal to 0"):
        Weights(prior=0.3)
