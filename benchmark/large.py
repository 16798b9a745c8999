"""A large speech LLM on a GPU: model FLOPs of joint SFT against the matmul rate (MFU), and how fast it decodes.

    ASRLLM_DATA=folder python benchmark/large.py --pretrained downloads --device cuda --peak 989e12

The weights are random, in shapes of published systems: training a Conformer of 0.6 B with an LLM of 1.5 B, decoding
with 0.8 B and 1.7 B. Prompt and tokens are those of SmolLM2's tokenizer, the audio and transcripts utterances of
LibriSpeech's train-clean-100, repeated to fill batches. Training is the trainer's step, all parts, AdamW in fp32
under bf16 autocast, FLOPs those of its ledger; decoding is greedy search, `--tokens` forced for each utterance, since
random weights end at random. `--small` takes shapes for a CPU, to see that it runs.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other where cores are shared

import torch
from packing import PHASE, utterances
from transformers import AutoTokenizer, LlamaConfig

from asrllm.batch import Batch
from asrllm.data.dataset import Dataset
from asrllm.decode.decoder import DecodeConfig, Decoder, prepared
from asrllm.decode.joint import JointConfig
from asrllm.models.build import ModelConfig, build
from asrllm.models.conformer import ConformerConfig
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.llm import LlmConfig
from asrllm.models.projector import LinearConfig
from asrllm.models.speech_llm import SpeechLLM
from asrllm.text.tokenizer import CharacterTokenizer
from asrllm.train import optim
from asrllm.train.learner import Learner


@dataclass(frozen=True)
class Shape:
    """Widths and depths of encoder and LLM."""

    layers: int
    dim: int
    llm_layers: int
    llm_dim: int
    llm_heads: int
    llm_feed_forward: int
    vocabulary: int = 151936

    def encoder(self) -> ConformerConfig:
        """A Conformer whose frames come every 80 ms."""
        heads, wide = max(4, self.dim // 128), 4 * self.dim
        return ConformerConfig(
            type="conformer", subsampling=8, layers=self.layers, dim=self.dim, heads=heads, feed_forward=wide, kernel=9
        )

    def llm(self) -> LlamaConfig:
        """A Llama with two heads of keys and values."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.llm_dim,
            intermediate_size=self.llm_feed_forward,
            num_hidden_layers=self.llm_layers,
            num_attention_heads=self.llm_heads,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )


TRAINING = Shape(24, 1024, 28, 1536, 12, 8960)  # 0.6 B and 1.5 B
DECODING = Shape(32, 1024, 28, 2048, 16, 6144)  # 0.8 B and 1.4 B, with the embeddings 1.7 B
SMALL = Shape(2, 128, 2, 128, 4, 512, 49152)


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("ASRLLM_DATA")
    options.add_argument("--data", type=Path, default=data, required=data is None, help="recordings ($ASRLLM_DATA)")
    options.add_argument("--pretrained", type=Path, default=Path("downloads"), help="folder of the models (downloads)")
    options.add_argument("--device", default="cuda", help="cuda or cpu (cuda)")
    options.add_argument("--parts", nargs="+", default=["training", "decoding"], help="training, decoding (both)")
    options.add_argument("--batch", type=int, nargs="+", default=[16, 32, 64, 128], help="utterances (16 32 64 128)")
    options.add_argument("--peak", type=float, help="FLOP/s of the data sheet, beside the measured rate")
    options.add_argument("--tokens", type=int, default=30, help="of each utterance's text in decoding (30)")
    options.add_argument("--repeats", type=int, default=5, help="steps or batches that are timed (5)")
    options.add_argument("--small", action="store_true", help="shapes of 9 M in all")
    return options


def make_model(shape: Shape, llm_dtype: Literal["fp32", "bf16"], args: argparse.Namespace) -> SpeechLLM:
    """A model of random weights."""
    with tempfile.TemporaryDirectory() as folder:
        AutoTokenizer.from_pretrained(args.pretrained / "smollm2-135m-instruct").save_pretrained(folder)
        shape.llm().save_pretrained(folder)
        config = ModelConfig(
            encoder=shape.encoder(),
            projector=LinearConfig(type="linear", stride=2),
            llm=LlmConfig(model=folder, init="random", dtype=llm_dtype),
        )
        model = build(config, CharacterTokenizer(list("' abcdefghijklmnopqrstuvwxyz")))
    sizes = {name: sum(weight.numel() for weight in part.parameters()) for name, part in model.parts.items()}
    print(", ".join(f"{name} {size / 1e6:.0f} M" for name, size in sizes.items()))
    return model.to(args.device)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def matmul_rate(device: torch.device, size: int) -> float:
    """FLOP/s of a square matrix product in bf16, the best of several."""
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / min(timed(lambda: one @ other, device) for _ in range(10))


def gib(device: torch.device) -> str:
    """Peak of the memory since the last call."""
    if device.type != "cuda":
        return "-"
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return f"{peak:.1f}"


def train(args: argparse.Namespace, dataset: Dataset, device: torch.device) -> None:
    """Steps of joint SFT at each batch size."""
    model = make_model(SMALL if args.small else TRAINING, "fp32", args)
    learner = Learner(model, PHASE, optim.make_optimizer(PHASE, model.parts, (0.9, 0.999), 0.01), "bf16", device)
    rate = matmul_rate(device, 512 if args.small else 8192)
    print(f"bf16 matrix product: {rate / 1e12:.1f} TFLOP/s\n")
    print("| batch | audio s/s | model TFLOP/s | of the matrix product | of --peak | padding FLOPs | GiB |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for size in args.batch:
        batch = repeated(dataset, size).to(device)
        costs, seconds = [], []
        for number in range(args.repeats + 2):  # two to warm up
            seconds.append(timed(lambda: costs.append(learner.step([batch], 1.0, 5.0, (number,)).cost), device))  # noqa: B023
        second = statistics.median(seconds[2:])
        speed = costs[-1].total / second
        share = "-" if args.peak is None else f"{speed / args.peak:.1%}"
        print(
            f"| {size} | {audio(batch) / second:.0f} | {speed / 1e12:.2f} | {speed / rate:.1%} | {share} "
            f"| {costs[-1].padding / costs[-1].total:.1%} | {gib(device)} |"
        )


def decode(args: argparse.Namespace, dataset: Dataset, device: torch.device) -> None:
    """Greedy search at each batch size."""
    model = make_model(SMALL if args.small else DECODING, "bf16", args)
    search = JointConfig(beam=1, min_tokens=args.tokens - 1, max_tokens=args.tokens)
    config = DecodeConfig(search=search, dtype="bfloat16")
    print("\n| batch | s of audio a second | GiB |")
    print("|---:|---:|---:|")
    with prepared(model, config):
        decoder = Decoder(model, config)
        for size in args.batch:
            batch = repeated(dataset, size).to(device)
            seconds = [timed(lambda: decoder.decode(batch), device) for _ in range(args.repeats + 1)]  # noqa: B023
            print(f"| {size} | {audio(batch) / statistics.median(seconds[1:]):.0f} | {gib(device)} |")


def repeated(dataset: Dataset, size: int) -> Batch:
    """A batch of that many utterances, from the first on and round again."""
    return dataset.batch([number % len(dataset) for number in range(size)], 0)


def audio(batch: Batch) -> float:
    """Seconds of it."""
    return float(batch.wave_lens.sum()) / SAMPLE_RATE


def main() -> None:
    """Print a Markdown table for each part."""
    args = parser().parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    dataset = Dataset(utterances(args.data / "librispeech_mini/LibriSpeech/train-clean-100", 64), SAMPLE_RATE)
    for part in args.parts:
        {"training": train, "decoding": decode}[part](args, dataset, device)


if __name__ == "__main__":
    main()
