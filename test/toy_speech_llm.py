"""A speech LLM of toys: letters for tokens, a random LLM, a Conformer of one layer, noise for audio."""

from functools import partial

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from asrllm.batch import Batch, pad
from asrllm.models.conformer import Conformer, ConformerConfig
from asrllm.models.ctc import CtcHead
from asrllm.models.frontend import FrontendConfig
from asrllm.models.llm import embed
from asrllm.models.posterior import PosteriorConfig, PosteriorProjector
from asrllm.models.projector import (
    ConvConfig,
    ConvProjector,
    LinearConfig,
    LinearProjector,
    TransformerConfig,
    TransformerProjector,
)
from asrllm.models.qformer import QFormerProjector, SegmentQFormerConfig, WindowQFormerConfig
from asrllm.models.speech_llm import Language, SpeechLLM
from asrllm.text.prompt import Prompt

WIDTH, VOCABULARY = 32, 40


class Letters:
    """Tokens of a text: a = 1, b = 2, ...; for CTC and LLM alike."""

    size = 27

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 96 for letter in text]

    encode_transcript = encode
    llm_ids = list(range(1, 27))

    def respell(self, ids: list[int]) -> list[tuple[int, int, int]]:
        return [(number, place, place + 1) for place, number in enumerate(ids)]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(number + 96) for number in ids)


def llama() -> torch.nn.Module:
    shape = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, **shape)).eval()


def gpt2() -> torch.nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=128)).eval()


LAYERS: dict[str, int] = {"layers": 2, "dim": 16, "heads": 2, "feed_forward": 24}
SHORTENING = {  # projectors whose positions are told by the number of frames
    "linear": (LinearProjector, LinearConfig(type="linear", stride=3, hidden=16)),
    "conv": (ConvProjector, ConvConfig(type="conv", strides=(2, 3), hidden=16)),
    "transformer": (TransformerProjector, TransformerConfig(type="transformer", stride=3, **LAYERS)),
    "window_qformer": (QFormerProjector, WindowQFormerConfig(type="window_qformer", window=4, **LAYERS)),
    "segment_qformer": (
        QFormerProjector,
        SegmentQFormerConfig(type="segment_qformer", segment=9, queries=3, **LAYERS),
    ),
}


def projector(kind: str, llm: torch.nn.Module | None = None, dim: int = 16, llm_dim: int = WIDTH) -> torch.nn.Module:
    """One of `SHORTENING`, or that which reads the CTC head and has the embeddings of `llm`."""
    if kind != "posterior":
        make, config = SHORTENING[kind]
        return make(config, dim, llm_dim)
    config = PosteriorConfig(type="posterior", hidden=16)
    into = PosteriorProjector(config, dim, llm_dim, Letters(), partial(embed, llm))
    torch.nn.init.normal_(into.residual[-1].weight, std=0.1)
    return into


def model(
    llm: torch.nn.Module, kind: str = "posterior", adapters: torch.nn.Module | None = None, chance: bool = True
) -> SpeechLLM:
    """Without `chance` there is nothing random in training."""
    shape = {"subsampling_channels": 4, "layers": 1, "dim": 16, "heads": 2, "feed_forward": 32}
    calm: dict[str, object] = {} if chance else {"dropout": 0.0, "frontend": FrontendConfig(specaugment=None)}
    encoder = Conformer(ConformerConfig(type="conformer", **shape, **calm))
    language = Language(Letters(), Letters(), Letters(), Prompt(before=[30, 31], after=[32], end=39))
    ctc = CtcHead(16, 27, dropout=0.1 * chance)
    return SpeechLLM(language, encoder, ctc, projector(kind, llm), llm, adapters).eval()


def batch(sizes: list[int], texts: list[str]) -> Batch:
    waves, lens = pad([torch.randn(size) for size in sizes])
    return Batch([f"u{i}" for i in range(len(sizes))], texts, waves, lens)


def rows_of(whole: Batch) -> list[Batch]:
    return [
        Batch(
            whole.utt_ids[i : i + 1], whole.texts[i : i + 1], whole.waves[i : i + 1, :size], whole.wave_lens[i : i + 1]
        )
        for i, size in enumerate(whole.wave_lens.tolist())
    ]
