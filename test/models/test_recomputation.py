"""Blocks that run again for their gradient: the same losses and gradients, bit for bit, and more runs."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from toy_speech_llm import WIDTH, batch, gpt2, llama, model
from transformers import MoonshineConfig, MoonshineModel, Wav2Vec2Config, Wav2Vec2Model, WhisperConfig, WhisperModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from asrllm.config import parse
from asrllm.console import UserError
from asrllm.models import conformer as conformers
from asrllm.models.build import ModelConfig
from asrllm.models.conformer import Conformer, ConformerConfig
from asrllm.models.cross_attention import CrossAttention, CrossAttentionConfig
from asrllm.models.moonshine import MoonshineEncoder
from asrllm.models.recomputation import recompute
from asrllm.models.wav2vec2 import Wav2Vec2Encoder
from asrllm.models.whisper import WhisperEncoder

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def conformer() -> nn.Module:
    sizes = {"subsampling_channels": 4, "layers": 2, "dim": 16, "heads": 2, "feed_forward": 32, "dropout": 0.2}
    return Conformer(ConformerConfig(type="conformer", **sizes))


def whisper() -> nn.Module:
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "dropout": 0.2}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    return WhisperEncoder(WhisperModel(WhisperConfig(**sizes, **decoder)), "cut")


def moonshine() -> nn.Module:
    sizes = {"encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 1, "encoder_num_attention_heads": 2}
    return MoonshineEncoder(
        MoonshineModel(MoonshineConfig(hidden_size=16, intermediate_size=32, vocab_size=60, **sizes))
    )


def wav2vec2() -> nn.Module:
    sizes = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    return Wav2Vec2Encoder(Wav2Vec2Model(Wav2Vec2Config(**SMALL, **sizes, apply_spec_augment=False)), False)


def last_blocks_first_layer(part: nn.Module) -> nn.Module:
    """One that has to run again: a recomputation ends with the last tensor that is wanted."""
    *_, block = (each for each in part.modules() if isinstance(each, (GradientCheckpointingLayer, conformers.Block)))
    return next(each for each in block.modules() if isinstance(each, (nn.Linear, Conv1D)))


def step(run: Callable[[], torch.Tensor], module: nn.Module, inner: nn.Module) -> tuple[torch.Tensor, list, int]:
    """The loss, the gradients, and how often `inner` ran."""
    runs = []
    handle = inner.register_forward_hook(lambda *_: runs.append(1))
    torch.manual_seed(3)
    loss = run()
    module.zero_grad()
    loss.backward()
    handle.remove()
    return loss.detach(), [weight.grad for weight in module.parameters() if weight.grad is not None], len(runs)


@pytest.mark.parametrize(("make", "blocks"), [(conformer, 2), (whisper, 2), (moonshine, 2), (wav2vec2, 7 + 2)])
def test_encoder(make: Callable[[], nn.Module], blocks: int) -> None:
    """With dropout, of which the second run draws the same; convolutions of wav2vec 2.0 are blocks as well."""
    encoder = make().train()
    waves, lens = torch.randn(2, 8000), torch.tensor([8000, 6000])
    inner = last_blocks_first_layer(encoder)
    kept = step(lambda: encoder(waves, lens)[0].square().sum(), encoder, inner)
    assert recompute(encoder) == blocks
    again = step(lambda: encoder(waves, lens)[0].square().sum(), encoder, inner)
    assert again[0].equal(kept[0]) and len(again[1]) == len(kept[1]) > 10
    assert all(one.equal(other) for one, other in zip(again[1], kept[1], strict=True))
    assert (kept[2], again[2]) == (1, 2)


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("cross", [False, True])
def test_packed_llm(make: Callable[[], nn.Module], cross: bool) -> None:
    llm = make()
    system = model(llm, "linear")
    parts = [llm]
    if cross:
        system.cross = CrossAttention(CrossAttentionConfig(type="cross_attention", every=1, heads=4), llm)
        for block in system.cross.blocks:
            nn.init.constant_(block.gate, 0.7)
        parts.append(system.cross)
    whole = batch([9000, 16000, 5000], ["abc", "dddd", "e"])
    llm.train()  # GPT-2 has dropout
    inner = last_blocks_first_layer(llm)
    kept = step(lambda: system(whole, ("llm",))["llm"].sum, system, inner)
    assert [recompute(part) for part in parts] == [2] * len(parts)
    again = step(lambda: system(whole, ("llm",))["llm"].sum, system, inner)
    assert again[0].equal(kept[0]) and len(again[1]) == len(kept[1]) > 10
    assert all(one.equal(other) for one, other in zip(again[1], kept[1], strict=True))
    assert (kept[2], again[2]) == (1, 2)


def test_a_copy_runs_blocks_of_its_own() -> None:
    llm, ids = llama(), torch.tensor([[1, 2, 3]])
    recompute(llm)
    twin = copy.deepcopy(llm)
    wanted = llm(ids).logits
    nn.init.zeros_(llm.model.layers[0].mlp.down_proj.weight)
    assert twin(ids).logits.equal(wanted) and not llm(ids).logits.equal(wanted)
    with torch.no_grad():
        assert twin(inputs_embeds=torch.randn(1, 3, WIDTH)).logits.shape == (1, 3, 40)


@pytest.mark.parametrize(
    ("said", "tree"),
    [
        ("recompute names llm, but the model has no such part", {"recompute": ["llm"]}),
        ("counts", {"recompute": ["encoder"], "encoder": {"type": "conformer", "convolution_norm": "batch"}}),
    ],
)
def test_refuses_what_has_no_blocks_or_would_count_twice(said: str, tree: dict) -> None:
    with pytest.raises(UserError, match=said):
        parse({"encoder": {"type": "conformer"}} | tree, ModelConfig, "model")
