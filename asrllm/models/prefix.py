"""The prefix interface: text before, speech, text after and transcript joined per utterance.

In training all utterances of a batch lie in one row (`models/packing.py`): no padding runs through the LLM, and an
utterance's result does not depend on its batch mates.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from asrllm.batch import real
from asrllm.config import Config
from asrllm.models import llm as llms
from asrllm.models import packing
from asrllm.text.prompt import Prompt


class PrefixConfig(Config):
    """Speech lies among the embeddings of the text."""

    type: Literal["prefix"] = "prefix"


@dataclass(frozen=True)
class Sequence:
    """What the LLM's body is given after the shared text before the audio: utterances behind each other."""

    embeds: torch.Tensor  # (positions of all, H)
    lens: list[int]  # positions of each


def join(
    llm: Any,
    prompt: Prompt,
    speech: torch.Tensor,
    speech_lens: torch.Tensor,
    tokens: list[list[int]] | None = None,
) -> Sequence:
    """Speech, text after, and the transcript's tokens if given.

    Where nothing at all precedes the transcript, zeros do, for its first token to follow on.

    Args:
        llm: its embeddings are used.
        prompt: gives the text after the audio; the text before is the same for all and runs once, see `body`.
        speech: (B, P, H).
        speech_lens: (B,) real positions, may be 0.
        tokens: transcript tokens per utterance.
    """
    texts = [prompt.after + row for row in tokens] if tokens is not None else [prompt.after] * len(speech)
    least = 0 if prompt.after else 1
    text_lens, sizes = [len(text) for text in texts], [max(size, least) for size in speech_lens.tolist()]
    speech = nn.functional.pad(speech, (0, 0, 0, max(0, least - speech.shape[1])))
    ids = torch.tensor([token for text in texts for token in text], dtype=torch.int64, device=speech.device)
    embedded = llms.embed(llm, ids).to(speech.dtype).split(text_lens)
    speech = speech * real(speech_lens, speech.shape[1])[..., None]
    pieces = [piece for row, size, text in zip(speech, sizes, embedded, strict=True) for piece in (row[:size], text)]
    return Sequence(torch.cat(pieces), [sum(pair) for pair in zip(sizes, text_lens, strict=True)])


def before(llm: Any, prompt: Prompt, like: torch.Tensor) -> torch.Tensor:
    """Embeddings (L, H) of the text before the audio, on the device and of the type of `like`."""
    return llms.embed(llm, torch.tensor(prompt.before, dtype=torch.int64, device=like.device)).to(like.dtype)


def body(llm: Any, prompt: Prompt, sequence: Sequence, heard: Any = None) -> torch.Tensor:
    """Final hidden states (positions of all, H) of `sequence`, after the text before the audio, which runs once.

    `heard` is what blocks of cross-attention hear, if there are any.
    """
    row = torch.cat([before(llm, prompt, sequence.embeds), sequence.embeds])[None]
    layout = packing.lay_out(len(prompt.before), sequence.lens, row)
    hidden = llm.base_model(
        inputs_embeds=row,
        position_ids=layout.positions,
        attention_mask=layout.shared_mask,  # one of four dimensions, so that the library makes none of its own
        use_cache=False,
        layout=layout,
        heard=heard,
    ).last_hidden_state
    return hidden[0, layout.shared :]
