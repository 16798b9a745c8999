"""What the LLM looks at while it writes: its self-attention over prompt, audio and transcript of one utterance.

The picture is that of SLAM-ASR's figure on alignment of speech and text. It knows a model and a batch of one utterance;
not files.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asrllm.batch import Batch
from asrllm.console import UserError
from asrllm.models import packing
from asrllm.models.speech_llm import SpeechLLM

TEXT = "transcript"


@torch.inference_mode()
def attention(model: SpeechLLM, batch: Batch) -> tuple[NDArray[np.float64], dict[str, int]]:
    """Weights (layers, heads, L, L) of one utterance whose transcript is given, and the positions of each piece.

    Rows are the positions that ask; each sums to 1 over the positions up to itself. Pieces: `before` (the prompt's text
    before the audio), `audio`, `after`, `transcript`.

    Raises:
        UserError: no LLM, or one that hears the audio in blocks of its own.
    """
    if model.llm is None:
        raise UserError("attention: this experiment has no LLM: name one of stages 5 to 7")
    if model.cross is not None:
        raise UserError("attention: this LLM hears the audio through cross-attention: it lies in no row of positions")
    embeds, pieces = model.row(batch)
    llm: Any = model.llm
    llm.set_attn_implementation("eager")  # the one that gives its weights
    try:
        made = llm.base_model(inputs_embeds=embeds[None], output_attentions=True, use_cache=False)
    finally:
        packing.use(llm)
    weights = torch.stack([each[0].float() for each in made.attentions]).double().cpu().numpy()
    return weights, {name: size for name, size in pieces.items() if size}


def looked_at(weights: NDArray[np.float64], pieces: Mapping[str, int]) -> dict[str, NDArray[np.float64]]:
    """How much of the attention of the transcript's positions goes to each piece: (layers, heads) each, sum 1."""
    ends = np.cumsum(list(pieces.values()))
    asking = weights[:, :, ends[-1] - pieces[TEXT] :]
    parts = np.split(asking, ends[:-1], axis=-1)
    return {name: part.sum(-1).mean(-1) for name, part in zip(pieces, parts, strict=True)}
