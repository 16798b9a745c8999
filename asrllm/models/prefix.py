"""The prefix interface: text before, speech, text after and transcript joined per utterance, padding only at the end.

With causal attention a real position never sees the padding behind it, so no mask is needed and an utterance's result
does not depend on its batch mates.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from asrllm.models import llm as llms
from asrllm.text.prompt import Prompt


@dataclass(frozen=True)
class Sequence:
    """What the LLM's body is given after the shared text before the audio."""

    embeds: torch.Tensor  # (B, L, H)
    lens: torch.Tensor  # (B,) real positions


def join(
    llm: Any,
    prompt: Prompt,
    speech: torch.Tensor,
    speech_lens: torch.Tensor,
    tokens: list[list[int]] | None = None,
) -> Sequence:
    """Speech, text after, and the transcript's tokens if given.

    Args:
        llm: its embeddings are used.
        prompt: gives the text after the audio; the text before is the same for all and runs once, see `body`.
        speech: (B, P, H).
        speech_lens: (B,) real positions, may be 0.
        tokens: transcript tokens per utterance.
    """
    texts = [prompt.after + row for row in tokens] if tokens is not None else [prompt.after] * len(speech)
    lens = [len(text) for text in texts]
    ids = torch.tensor([token for text in texts for token in text], dtype=torch.int64, device=speech.device)
    embedded = llms.embed(llm, ids).to(speech.dtype).split(lens)
    rows = [torch.cat([row[: int(size)], text]) for row, size, text in zip(speech, speech_lens, embedded, strict=True)]
    embeds = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Sequence(embeds, speech_lens + torch.tensor(lens, device=speech.device))


def body(llm: Any, prompt: Prompt, sequence: Sequence) -> torch.Tensor:
    """Final hidden states (B, L, H) of the positions of `sequence`, after the text before the audio.

    The text before runs once for the whole batch; its keys and values are shared, and so is their gradient where
    something in the LLM is trained.
    """
    with _fast_gradient(llm):
        return _body(llm, prompt, sequence)


def _body(llm: Any, prompt: Prompt, sequence: Sequence) -> torch.Tensor:
    if not prompt.before:
        return llm.base_model(inputs_embeds=sequence.embeds, use_cache=False).last_hidden_state
    size, device, first = len(sequence.embeds), sequence.embeds.device, len(prompt.before)
    before = llms.embed(llm, torch.tensor([prompt.before], dtype=torch.int64, device=device))
    cache = llm.base_model(inputs_embeds=before, use_cache=True).past_key_values
    cache.batch_repeat_interleave(size)
    positions = torch.arange(first, first + sequence.embeds.shape[1], device=device)[None]
    return llm.base_model(
        inputs_embeds=sequence.embeds, past_key_values=cache, position_ids=positions, use_cache=True
    ).last_hidden_state


@contextmanager
def _fast_gradient(llm: Any) -> Iterator[None]:
    """Within the block a CPU computes attention from matrix products if gradients are wanted.

    The gradient of torch's fused attention is slow there: 16 utterances of 54 positions in bfloat16 take 17 ms a layer,
    matrix products 3 ms (one thread of an AMD EPYC).
    """
    before = llm.config._attn_implementation
    if torch.is_grad_enabled() and before == "sdpa" and llm.device.type == "cpu":
        llm.set_attn_implementation("eager")
    try:
        yield
    finally:
        llm.set_attn_implementation(before)
