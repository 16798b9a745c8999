"""Beam search: exhaustive search when wide, transformers' generate at equal settings, the same alone or in a batch."""

import itertools
import math

import pytest
import torch
from toy_llm import END, UNITS, WIDTH, gpt2, llama, prefixes, qwen2
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from asrllm.console import UserError
from asrllm.decode.beam import BeamConfig, Finished, beam_search, reach
from asrllm.decode.scorer import LlmScorer


def search(
    llm: PreTrainedModel, embeds: torch.Tensor, lens: torch.Tensor, limit: int, config: BeamConfig, end: int = END
) -> list[list[Finished]]:
    scorer = LlmScorer(llm, embeds, lens, limit)
    return beam_search({"llm": scorer}, {"llm": 1.0}, [end], [limit] * len(lens), config)


@torch.inference_mode()
def generate(
    llm: PreTrainedModel, prefix: torch.Tensor, limit: int, **settings: object
) -> list[tuple[list[int], float]]:
    """One utterance by transformers: tokens without the end and what follows it, and score."""
    output = llm.generate(
        inputs_embeds=prefix[None],
        attention_mask=torch.ones(1, len(prefix), dtype=torch.long),
        max_new_tokens=limit,
        do_sample=False,
        pad_token_id=END,
        eos_token_id=END,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    rows = [list(itertools.takewhile(lambda token: token != END, row)) for row in output.sequences.tolist()]
    scores = output.sequences_scores.tolist() if "sequences_scores" in output else [0.0] * len(rows)
    return list(zip(rows, scores, strict=True))


def logprob(llm: PreTrainedModel, prefix: torch.Tensor, tokens: list[int]) -> float:
    """Teacher forcing, no cache, no batch."""
    with torch.inference_mode():
        embeds = torch.cat([prefix, llm.get_input_embeddings()(torch.tensor(tokens[:-1], dtype=torch.long))])
        logits = llm(inputs_embeds=embeds[None]).logits[0, len(prefix) - 1 :]
        return torch.log_softmax(logits, -1)[torch.arange(len(tokens)), torch.tensor(tokens)].sum().item()


@pytest.mark.parametrize("make", [llama, gpt2, qwen2])
def test_greedy_is_generate(make: object) -> None:
    llm = make()
    embeds, lens = prefixes([5, 9, 3, 7])
    found = search(llm, embeds, lens, 12, BeamConfig(beam=1))
    for pool, row, length in zip(found, embeds, lens, strict=True):
        assert pool[0].tokens == generate(llm, row[:length], 12, num_beams=1)[0][0]


@pytest.mark.parametrize("make", [llama, gpt2, qwen2])
@pytest.mark.parametrize(("beam", "exponent"), [(2, 0.0), (4, 1.0), (5, 0.6)])
def test_beam_is_generate(make: object, beam: int, exponent: float) -> None:
    llm = make()
    embeds, lens = prefixes([5, 9, 3, 7, 1, 6])
    found = search(llm, embeds, lens, 12, BeamConfig(beam=beam, nbest=beam, length_exponent=exponent))
    for pool, row, length in zip(found, embeds, lens, strict=True):
        settings = {"num_beams": beam, "num_return_sequences": beam, "length_penalty": exponent}
        expected = generate(llm, row[:length], 12, early_stopping="never", **settings)
        assert [each.tokens for each in pool] == [tokens for tokens, _ in expected]
        assert [each.score for each in pool] == pytest.approx([score for _, score in expected], abs=1e-4)


def test_least_tokens_is_generate() -> None:
    llm = llama()
    embeds, lens = prefixes([5, 9, 3])
    config = BeamConfig(beam=3, min_tokens=6)
    for pool, row, length in zip(search(llm, embeds, lens, 10, config), embeds, lens, strict=True):
        settings = {"num_beams": 3, "length_penalty": 0.0, "early_stopping": "never", "min_new_tokens": 6}
        tokens, score = generate(llm, row[:length], 10, **settings)[0]
        assert (pool[0].tokens, pytest.approx(pool[0].score, abs=1e-4)) == (tokens, score)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_wide_beam_is_exhaustive(exponent: float) -> None:
    llm = llama(vocab_size=4, initializer_range=0.3)
    limit = 4
    embeds, lens = prefixes([3, 5])
    found = search(llm, embeds, lens, limit, BeamConfig(beam=4**limit, nbest=6, length_exponent=exponent))
    others = [unit for unit in range(4) if unit != END]
    complete = [[*body, END] for size in range(limit) for body in itertools.product(others, repeat=size)]
    complete += [list(body) for body in itertools.product(others, repeat=limit)]
    for pool, row, length in zip(found, embeds, lens, strict=True):
        scores = {tuple(each): logprob(llm, row[:length], each) / len(each) ** exponent for each in complete}
        best = sorted(scores, key=lambda each: -scores[each])[:6]
        assert [each.tokens for each in pool] == [[unit for unit in each if unit != END] for each in best]
        assert [each.score for each in pool] == pytest.approx([scores[each] for each in best], abs=1e-5)
        assert [each.ended for each in pool] == [each[-1] == END for each in best]


@pytest.mark.parametrize("make", [llama, gpt2])
def test_cached_is_uncached(make: object) -> None:
    """Sums of the search, over a tree that is pruned on the way, are those of teacher forcing."""
    llm = make()
    embeds, lens = prefixes([5, 9, 3, 7])
    found = search(llm, embeds, lens, 40, BeamConfig(beam=6, nbest=6, length_exponent=1.0))
    for pool, row, length in zip(found, embeds, lens, strict=True):
        for each in pool:
            tokens = each.tokens + [END] * each.ended
            assert each.scores["llm"] == pytest.approx(logprob(llm, row[:length], tokens), abs=2e-4)
            assert each.score == pytest.approx(each.scores["llm"] / len(tokens), abs=1e-5)


@pytest.mark.parametrize("beam", [1, 4])
def test_batch_of_eight_is_eight_of_one(beam: int) -> None:
    llm = llama()
    embeds, lens = prefixes([5, 9, 3, 7, 1, 6, 12, 2])
    limits = [20, 6, 9, 30, 4, 13, 25, 1]
    config = BeamConfig(beam=beam, nbest=beam)
    calls: list[int] = []
    passes: list[int] = []
    scorer = LlmScorer(llm, embeds, lens, 30)
    together = beam_search({"llm": scorer}, {"llm": 1.0}, [END], limits, config, calls=calls)
    llm.base_model.register_forward_hook(lambda *_: passes.append(1))
    for i, limit in enumerate(limits):
        passes.clear()
        scorer = LlmScorer(llm, embeds[i : i + 1, : lens[i]], lens[i : i + 1], 30)
        alone = beam_search({"llm": scorer}, {"llm": 1.0}, [END], [limit], config)[0]
        assert calls[i] == len(passes)
        assert [each.tokens for each in together[i]] == [each.tokens for each in alone]
        assert [each.score for each in together[i]] == pytest.approx([each.score for each in alone], abs=1e-4)
        assert max(len(each.tokens) + each.ended for each in alone) <= limit


def test_weighted_sum_of_two_scorers() -> None:
    """The same LLM twice at weights 0.25 and 0.75 is that LLM once; both sums are kept."""
    llm = llama()
    embeds, lens = prefixes([5, 9])
    config = BeamConfig(beam=3, nbest=3)
    once = search(llm, embeds, lens, 10, config)
    scorers = {name: LlmScorer(llm, embeds, lens, 10) for name in ("a", "b")}
    twice = beam_search(scorers, {"a": 0.25, "b": 0.75}, [END], [10, 10], config)
    for one, two in zip(sum(once, []), sum(twice, []), strict=True):
        assert (one.tokens, pytest.approx(one.score, abs=1e-5)) == (two.tokens, two.score)
        assert two.scores == pytest.approx({"a": one.scores["llm"], "b": one.scores["llm"]}, abs=1e-5)


class Script:
    """Two units: 0 runs on, 1 ends. Log-probabilities of both by step."""

    bounds = (-math.inf, 0.0)

    def __init__(self, steps: list[tuple[float, float]]) -> None:
        self.steps = steps

    def start(self) -> tuple[torch.Tensor, tuple[int, int]]:
        return torch.tensor([[self.steps[0]]]), (1, 1)

    def score(self, tokens: torch.Tensor, state: tuple[int, int]) -> tuple[torch.Tensor, tuple[int, int]]:
        step, rows = state
        return torch.tensor(self.steps[step]).expand(1, rows, 2), (step + 1, rows)

    def select(self, state: tuple[int, int], rows: torch.Tensor) -> tuple[int, int]:
        return state[0], rows.shape[1]


class Tariff:
    """What a unit adds, wherever it stands."""

    def __init__(self, adds: tuple[float, float]) -> None:
        self.adds, self.bounds = torch.tensor(adds), (min(adds), max(adds))

    def start(self) -> None: ...

    def score_candidates(self, state: None, tokens: torch.Tensor) -> torch.Tensor:
        return self.adds[tokens]

    def advance(self, state: None, rows: torch.Tensor, tokens: torch.Tensor) -> None: ...


@pytest.mark.parametrize(
    ("exponent", "adds", "size"),
    [
        (0.0, (0.0, 0.0), 0),
        (1.0, (0.0, 0.0), 9),
        (0.0, (0.0, -3.0), 10),
        (0.0, (0.05, 0.0), 0),
        (0.0, (0.07, 0.0), 10),  # cut by the limit: -1.13 + 0.70 against -1.10 + 0.63 with an end
        (2.0, (0.09, 0.0), 10),
    ],
)
def test_stops_only_when_nothing_better_can_come(exponent: float, adds: tuple[float, float], size: int) -> None:
    """An early end at -0.5 beats the long way at -1.1 in sum; not per token, where ends are dear, or length pays."""
    steps = [(-1.0, -0.5)] + [(-0.01, -20.0)] * 8 + [(-0.05, -0.02)]
    scorers, raters = {"script": Script(steps)}, {"tariff": Tariff(adds)}
    config = BeamConfig(beam=2, length_exponent=exponent)
    (pool,) = beam_search(scorers, {"script": 1.0, "tariff": 1.0}, [1], [10], config, raters)
    assert pool[0].tokens == [0] * size
    assert pool[0].scores["script"] == pytest.approx({0: -0.5, 9: -1.1, 10: -1.13}[size])
    assert pool[0].scores["tariff"] == pytest.approx(size * adds[0] + (size < 10) * adds[1], abs=1e-6)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("gain", [0.0, 0.3, 4.0])
def test_reach_bounds_every_length(exponent: float, gain: float) -> None:
    for total in (-30.0, -2.0, 0.0, 5.0):
        for length, limit in ((1, 2), (3, 40), (39, 40)):
            best = max((total + gain * (m - length)) / m**exponent for m in range(length + 1, limit + 1))
            assert best <= reach(total, length, limit, gain, exponent) <= max(best, best + 0.5 * abs(best))


def test_several_end_tokens() -> None:
    llm = llama()
    embeds, lens = prefixes([5, 9, 4])
    ends = [2, 5, 11]
    scorer = LlmScorer(llm, embeds, lens, 15)
    found = beam_search({"llm": scorer}, {"llm": 1.0}, ends, [15] * 3, BeamConfig(beam=4, nbest=4))
    assert all(not set(each.tokens) & set(ends) for pool in found for each in pool)


def test_bfloat16_runs() -> None:
    llm = llama()
    embeds, lens = prefixes([5, 9])
    with torch.autocast("cpu", torch.bfloat16):
        found = search(llm, embeds, lens, 6, BeamConfig(beam=3))
    assert all(pool[0].score < 0 for pool in found)


def test_refuses_what_is_not_exact() -> None:
    embeds, lens = prefixes([5, 9])
    with pytest.raises(UserError, match="context of 12 positions, but prefix and token limit together are 19"):
        LlmScorer(llama(max_position_embeddings=12), embeds, lens, 10)
    sliding = Qwen2Config(
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=UNITS,
        use_sliding_window=True,
        sliding_window=16,
        max_window_layers=1,
    )
    with pytest.raises(UserError, match="window of 16 positions"):
        LlmScorer(Qwen2ForCausalLM(sliding), embeds, lens, 10)
    LlmScorer(Qwen2ForCausalLM(sliding), embeds, lens, 7)


def test_refuses_scores_that_are_no_numbers() -> None:
    llm = llama()
    torch.nn.init.constant_(llm.lm_head.weight, torch.nan)
    with pytest.raises(UserError, match="not numbers"):
        search(llm, *prefixes([5]), 10, BeamConfig(beam=2))


def test_refuses_senseless_settings() -> None:
    with pytest.raises(ValueError, match="nbest is 5"):
        BeamConfig(beam=4, nbest=5)
    with pytest.raises(ValueError, match="beam"):
        BeamConfig(beam=0)
