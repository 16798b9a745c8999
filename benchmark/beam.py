"""Beam search of SmolLM2-135M: tokens per second against transformers' `generate`, in one run.

    python benchmark/beam.py --model downloads/smollm2-135m-instruct

The prefixes are embeddings of random tokens, of differing lengths up to 40 positions; 30 tokens are forced (no end
before them). Repetitions of the contenders are interleaved and the median is taken. Without --model the weights are
random. Tokens are those of the best hypotheses: batch * 30.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other where cores are shared

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from asrllm.decode.beam import BeamConfig, beam_search
from asrllm.decode.packed import packed
from asrllm.decode.scorer import LlmScorer

TOKENS, END = 30, 2


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, help="folder of a causal LM (random weights of SmolLM2-135M's shape)")
    options.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="utterances at once (1 16)")
    options.add_argument("--beam", type=int, default=4, help="hypotheses (4)")
    options.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    options.add_argument("--repeats", type=int, default=3, help="repetitions of each contender (3)")
    return options


def load(folder: Path | None) -> PreTrainedModel:
    """The model of `folder` in float32, or one of SmolLM2-135M's shape with random weights."""
    if folder is not None:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    more = {"num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True, "initializer_range": 0.04}
    return LlamaForCausalLM(LlamaConfig(**shape, **more)).eval()


def ours(llm: PreTrainedModel, embeds: torch.Tensor, lens: torch.Tensor, beam: int) -> list[list[int]]:
    """Best hypotheses of the search of asrllm."""
    config = BeamConfig(beam=beam, min_tokens=TOKENS, max_tokens=TOKENS + 1)
    scorer = LlmScorer(llm, embeds, lens, TOKENS)
    found = beam_search({"llm": scorer}, {"llm": 1.0}, [END], [TOKENS] * len(lens), config)
    return [pool[0].tokens for pool in found]


@torch.inference_mode()
def generate(llm: PreTrainedModel, embeds: torch.Tensor, lens: torch.Tensor, beam: int) -> list[list[int]]:
    """Best hypotheses of transformers, which wants the padding in front."""
    size = embeds.shape[1]
    left = torch.stack([row.roll(size - length, 0) for row, length in zip(embeds, lens.tolist(), strict=True)])
    mask = (torch.arange(size) >= (size - lens)[:, None]).long()
    output = llm.generate(
        inputs_embeds=left,
        attention_mask=mask,
        num_beams=beam,
        do_sample=False,
        min_new_tokens=TOKENS,
        max_new_tokens=TOKENS,
        pad_token_id=END,
        eos_token_id=END,
    )
    return output.tolist()


def measure(llm: PreTrainedModel, batch: int, beam: int, repeats: int) -> str:
    """One row of the table."""
    lens = torch.linspace(28, 40, batch).long() if batch > 1 else torch.tensor([40])
    embeds = llm.get_input_embeddings()(torch.randint(3, llm.config.vocab_size, (batch, int(lens.max())))).detach()
    searches: list[tuple[Callable[..., list[list[int]]], bool]] = [(generate, False), (ours, False), (ours, True)]
    seconds: list[list[float]] = [[] for _ in searches]
    results: list[list[list[int]]] = [[] for _ in searches]
    for _ in range(repeats):
        for i, (search, pack) in enumerate(searches):
            with packed(llm) if pack else nullcontext():
                start = time.perf_counter()
                results[i] = search(llm, embeds, lens, beam)
                seconds[i].append(time.perf_counter() - start)
    theirs, plain, laid_out = (batch * TOKENS / statistics.median(each) for each in seconds)
    equal = sum(one == two == three for one, two, three in zip(*results, strict=True))
    return (
        f"| {batch} | {theirs:.0f} | {plain:.0f} ({plain / theirs:.1f}x) | {laid_out:.0f} ({laid_out / theirs:.1f}x) "
        f"| {equal} of {batch} |"
    )


def main() -> None:
    """Print a Markdown table."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    llm = load(options.model)
    print(f"Beam {options.beam}, {TOKENS} tokens, {options.threads} threads, float32, median of {options.repeats}\n")
    print("| batch | generate, tokens/s | asrllm, tokens/s | asrllm packed, tokens/s | same best hypothesis |")
    print("|---|---|---|---|---|")
    for batch in options.batches:
        print(measure(llm, batch, options.beam, options.repeats), flush=True)


if __name__ == "__main__":
    main()
