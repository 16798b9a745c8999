"""Speculative search: the result of greedy search, whatever the draft; passes are saved where the draft is right."""

import random

import pytest
import torch
from toy_llm import END, UNITS, WIDTH, gpt2, llama, prefixes
from transformers import PreTrainedModel

from asrllm.decode.beam import Finished, beam_search
from asrllm.decode.scorer import LlmScorer, Opening
from asrllm.decode.speculative import SpeculativeConfig, _Text, speculative_search

CONFIG = SpeculativeConfig(draft_tokens=6)


def greedy(llm: PreTrainedModel, embeds: torch.Tensor, lens: torch.Tensor, limits: list[int]) -> list[Finished]:
    scorer = LlmScorer(llm, embeds, lens, max(limits))
    return [pool[0] for pool in beam_search({"llm": scorer}, {"llm": 1.0}, [END], limits, CONFIG.greedy)]


def drafted(
    llm: PreTrainedModel, embeds: torch.Tensor, lens: torch.Tensor, limits: list[int], drafts: list[list[int]]
) -> tuple[list[Finished], list[dict[str, int]]]:
    return speculative_search(LlmScorer(llm, embeds, lens, max(limits)), drafts, [END], limits, CONFIG)


def spoiled(tokens: list[int]) -> list[int]:
    """A text with words exchanged, lost and put in."""
    text = []
    for token in tokens:
        kind = random.random()
        if kind < 0.15:
            continue
        text += [random.randrange(UNITS)] if kind < 0.3 else [token]
        if random.random() < 0.1:
            text.append(random.randrange(UNITS))
    return text


def same(one: Finished, other: Finished) -> None:
    assert (one.tokens, one.ended) == (other.tokens, other.ended)
    assert one.score == pytest.approx(other.score, abs=1e-4)
    assert one.scores == pytest.approx(other.scores, abs=1e-4)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_the_result_is_greedy_searchs_on_hundreds_of_drafts(make: object) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        random.seed(seed)
        llm = make()  # type: ignore[operator]
        lens = [random.randint(1, 9) for _ in range(random.choice([1, 3, 8]))]
        embeds, sizes = prefixes(lens)
        limits = [random.randint(1, 25) for _ in lens]
        truth = greedy(llm, embeds, sizes, limits)
        for _ in range(3):
            drafts = [spoiled(each.tokens) for each in truth]
            for one, other in zip(drafted(llm, embeds, sizes, limits, drafts)[0], truth, strict=True):
                same(one, other)


@pytest.mark.slow
def test_the_result_is_greedy_searchs_on_thousands_of_drafts() -> None:
    for seed in range(400):
        torch.manual_seed(seed)
        random.seed(seed)
        llm = llama()
        embeds, sizes = prefixes([random.randint(1, 9) for _ in range(8)])
        limits = [random.randint(1, 25) for _ in range(8)]
        truth = greedy(llm, embeds, sizes, limits)
        drafts = [spoiled(each.tokens) if random.random() < 0.8 else [random.randrange(UNITS)] * 9 for each in truth]
        for one, other in zip(drafted(llm, embeds, sizes, limits, drafts)[0], truth, strict=True):
            same(one, other)


def test_a_right_draft_takes_one_call_and_none_takes_one_for_each_token() -> None:
    torch.manual_seed(3)
    llm = llama()
    embeds, sizes = prefixes([4])
    (truth,) = greedy(llm, embeds, sizes, [6])
    size = len(truth.tokens) + truth.ended
    (found,), (counts,) = drafted(llm, embeds, sizes, [6], [truth.tokens])
    same(found, truth)
    assert counts["llm_calls"] == 1 and counts["draft_accepted"] == counts["draft_tokens"]
    wrong = [(token + 1) % UNITS if (token + 1) % UNITS != END else (token + 2) % UNITS for token in truth.tokens]
    (found,), (counts,) = drafted(llm, embeds, sizes, [6], [wrong])
    same(found, truth)
    assert counts["llm_calls"] >= size - 1 > 1


@pytest.mark.parametrize(
    ("written", "rest"), [([1, 2], [3, 4, 5]), ([1, 9], [3, 4, 5]), ([1, 3], [4, 5]), ([1, 7, 2], [3, 4, 5])]
)
def test_the_draft_is_found_again_after_a_wrong_lost_or_added_word(written: list[int], rest: list[int]) -> None:
    text = _Text([1, 2, 3, 4, 5], 50, frozenset({END + 90}))
    for token in written:
        text.add(token, 0.0)
    assert text.guess(10) == rest


def test_an_utterance_does_not_depend_on_its_mates() -> None:
    torch.manual_seed(0)
    llm = llama()
    embeds, sizes = prefixes([3, 7, 5])
    drafts = [[3, 4, 5], [], [7, 8, 9, 10]]
    together, _ = drafted(llm, embeds, sizes, [9, 12, 4], drafts)
    for row in range(3):
        size = int(sizes[row])
        alone, _ = drafted(llm, embeds[row : row + 1, :size], sizes[row : row + 1], [[9, 12, 4][row]], [drafts[row]])
        same(alone[0], together[row])


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_beginning_that_all_share_is_read_once(make: object) -> None:
    torch.manual_seed(1)
    llm = make()  # type: ignore[operator]
    embeds, sizes = prefixes([3, 7, 5])
    before = torch.randn(4, WIDTH)
    whole = torch.cat([before.expand(3, -1, -1), embeds], 1)
    limits, opening = [9, 12, 4], Opening(llm, before)
    truth = greedy(llm, whole, sizes + 4, limits)
    scorer = LlmScorer(llm, embeds, sizes, 12, opening=opening)
    shared = [pool[0] for pool in beam_search({"llm": scorer}, {"llm": 1.0}, [END], limits, CONFIG.greedy)]
    scorer = LlmScorer(llm, embeds, sizes, 12, opening=opening)
    quick, _ = speculative_search(scorer, [[3, 4, 5], [], truth[2].tokens], [END], limits, CONFIG)
    for one, other, third in zip(truth, shared, quick, strict=True):
        same(one, other)
        same(one, third)
