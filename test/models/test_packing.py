"""A packed row: outputs and gradients are those of each utterance alone."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from asrllm.console import UserError
from asrllm.models import packing

WIDTH = 32
SIZE = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
MORE = {"num_key_value_heads": 2, "vocab_size": 24, "initializer_range": 0.2}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZE, **MORE))


def gpt2() -> PreTrainedModel:
    """Learned absolute positions."""
    return GPT2LMHeadModel(GPT2Config(n_embd=WIDTH, n_layer=2, n_head=4, vocab_size=24, initializer_range=0.2))


def qwen2() -> PreTrainedModel:
    """Biases in the attention."""
    return Qwen2ForCausalLM(Qwen2Config(**SIZE, **MORE))


def gemma2() -> PreTrainedModel:
    """Capped scores, and a window in every other layer that no utterance here exceeds."""
    more = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 20, "attn_logit_softcapping": 0.5}
    return Gemma2ForCausalLM(Gemma2Config(**SIZE, **MORE, **more))


def run(llm: PreTrainedModel, row: torch.Tensor, layout: packing.Layout) -> torch.Tensor:
    """Hidden states (1, positions, H) of the row."""
    mask = layout.shared_mask
    return llm.base_model(
        inputs_embeds=row, position_ids=layout.positions, attention_mask=mask, use_cache=False, layout=layout
    ).last_hidden_state


def gradients(llm: PreTrainedModel) -> list[torch.Tensor]:
    found = [weight.grad for weight in llm.base_model.parameters() if weight.grad is not None]
    llm.zero_grad()
    return found


@pytest.mark.parametrize("make", [llama, gpt2, qwen2, gemma2])
@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("shared", [0, 3])
def test_packed_is_each_utterance_alone(make, at_once, shared):
    llm = make().eval()
    if make is gemma2:
        llm.set_attn_implementation("eager")  # no other way of its own caps the scores
    lens = [5, 1, 9, 7]
    first, *rows = (torch.randn(size, WIDTH, requires_grad=True) for size in (shared, *lens))
    weights = [torch.randn(size, WIDTH) for size in lens]
    wanted = [llm.base_model(inputs_embeds=torch.cat([first, row])[None]).last_hidden_state[0, shared:] for row in rows]
    torch.stack([(one * weight).sum() for one, weight in zip(wanted, weights, strict=True)]).sum().backward()
    expected = gradients(llm), [each.grad for each in (first, *rows)]
    for each in (first, *rows):
        each.grad = None
    packing.use(llm)
    row = torch.cat([first, *rows])[None]
    hidden = run(llm, row, packing.lay_out(shared, lens, row, at_once))[0, shared:]
    torch.testing.assert_close(hidden, torch.cat(wanted), atol=1e-5, rtol=1e-4)
    (hidden * torch.cat(weights)).sum().backward()
    torch.testing.assert_close(gradients(llm), expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close([each.grad for each in (first, *rows)], expected[1], atol=1e-4, rtol=1e-4)
    with torch.no_grad():  # another function computes attention
        still = run(llm, row, packing.lay_out(shared, lens, row, at_once))[0, shared:]
    torch.testing.assert_close(still, hidden, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [llama, gpt2, gemma2])
@pytest.mark.parametrize("grad", [False, True])
def test_without_a_layout_it_is_plain_attention(make, grad):
    llm, ids, mask = make().eval(), torch.tensor([[3, 4, 5, 0], [6, 7, 8, 9]]), torch.tensor([[1, 1, 1, 0], [1] * 4])
    llm.set_attn_implementation("eager")
    with torch.set_grad_enabled(grad):
        wanted = [llm(ids, attention_mask=mask).logits[mask.bool()], llm(ids).logits]
        packing.use(llm)
        torch.testing.assert_close([llm(ids, attention_mask=mask).logits[mask.bool()], llm(ids).logits], wanted)


def test_refuses_a_window_that_is_too_short():
    llm = gemma2().eval()
    packing.use(llm)
    row = torch.randn(1, 25, WIDTH)
    with pytest.raises(UserError, match="an utterance makes 21 positions, the LLM has a window of 20"):
        run(llm, row, packing.lay_out(1, [4, 20], row))
