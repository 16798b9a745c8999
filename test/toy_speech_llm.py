"""A speech LLM of toys: letters for tokens, a random LLM, a Conformer of one layer, noise for audio."""

from functools import partial

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from asrllm.batch import Batch, pad
from asrllm.models.conformer import Conformer, ConformerConfig
from asrllm.models.ctc import CtcHead
from asrllm.models.llm import embed
from asrllm.models.projector import LinearConfig, LinearProjector, PosteriorConfig, PosteriorProjector
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


def model(llm: torch.nn.Module, projector: str = "posterior", adapters: torch.nn.Module | None = None) -> SpeechLLM:
    encoder = Conformer(
        ConformerConfig(type="conformer", subsampling_channels=4, layers=1, dim=16, heads=2, feed_forward=32)
    )
    if projector == "linear":
        into: torch.nn.Module = LinearProjector(LinearConfig(type="linear", stride=3, hidden=16), 16, WIDTH)
    else:
        into = PosteriorProjector(
            PosteriorConfig(type="posterior", hidden=16), 16, WIDTH, Letters(), partial(embed, llm)
        )
        torch.nn.init.normal_(into.residual[-1].weight, std=0.1)
    language = Language(Letters(), Letters(), Letters(), Prompt(before=[30, 31], after=[32], end=39))
    return SpeechLLM(language, encoder, CtcHead(16, 27), into, llm, adapters).eval()


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
