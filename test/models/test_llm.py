"""Where an LLM's weights come from."""

from pathlib import Path

import pytest
import torch
import toy_corpus
from transformers import AutoModelForCausalLM

from asrllm.console import UserError
from asrllm.models.llm import LlmConfig, load_llm

IDS = torch.tensor([[5, 9, 3]])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    toy_corpus.write_llm(tmp_path)
    return str(tmp_path)


def test_random_weights_have_the_shape_of_the_pretrained_and_follow_the_seed(folder: str) -> None:
    state = torch.random.get_rng_state()
    pretrained, one, twin, other = (
        load_llm(LlmConfig(model=folder, **settings)).state_dict()
        for settings in ({}, *({"init": "random", "seed": seed} for seed in (1, 1, 2)))
    )
    assert torch.random.get_rng_state().equal(state)
    matrices = [name for name, weight in pretrained.items() if weight.ndim == 2]
    assert one.keys() == pretrained.keys() and len(matrices) > 10
    for name in matrices:
        assert one[name].shape == pretrained[name].shape
        assert one[name].equal(twin[name]) and one[name].std() > 0
        assert not one[name].equal(other[name]) and not one[name].equal(pretrained[name])


def test_pretrained_is_the_librarys(folder: str) -> None:
    llm = load_llm(LlmConfig(model=folder))
    assert llm(IDS).logits.equal(AutoModelForCausalLM.from_pretrained(folder)(IDS).logits)
    assert load_llm(LlmConfig(model=folder, init="random", dtype="bf16")).dtype == torch.bfloat16


def test_random_weights_want_a_shape(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no causal LLM loads from this folder"):
        load_llm(LlmConfig(model=str(tmp_path), init="random"))
