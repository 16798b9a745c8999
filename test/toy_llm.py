"""Causal LMs of transformers with random weights, small enough for any test, and prefixes for them."""

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

WIDTH, UNITS, END = 32, 24, 2


def llama(**changes: object) -> PreTrainedModel:
    """Two layers with grouped queries; weights large enough that its choices are not ties."""
    settings = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "vocab_size": UNITS, "initializer_range": 0.4, "eos_token_id": END}
    return LlamaForCausalLM(LlamaConfig(**{**settings, **more, **changes})).eval()


def gpt2() -> PreTrainedModel:
    """Learned absolute positions."""
    settings = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "vocab_size": UNITS, "initializer_range": 0.4}
    return GPT2LMHeadModel(GPT2Config(**settings, n_positions=64, eos_token_id=END)).eval()


def qwen2() -> PreTrainedModel:
    """Biases in the attention, grouped queries."""
    settings = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 1, "vocab_size": UNITS, "initializer_range": 0.4, "eos_token_id": END}
    return Qwen2ForCausalLM(Qwen2Config(**settings, **more)).eval()


def prefixes(lens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random embeddings with large numbers as padding: whoever reads the padding is found out."""
    embeds = torch.randn(len(lens), max(lens), WIDTH)
    for row, length in zip(embeds, lens, strict=True):
        row[length:] = 1e3
    return embeds, torch.tensor(lens)
