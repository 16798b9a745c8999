"""The alignment training step against a plain transformers loop, and against the machine's matmul rate, in one run.

    ASRLLM_DATA=folder python benchmark/align.py --pretrained downloads

Moonshine-base (or `--encoder whisper-tiny.en`) and SmolLM2-135M frozen, a linear projector (stride 5, SLAM-ASR) learns,
the first utterances of speechocean762's training part. The plain loop is what one writes at first: batches of 8 in file
order, the encoder run in each step, the padded batch of prompt, speech and transcript given to the LLM whole with its
`labels`, float32. Ours is the trainer's step over cached encoder outputs, and once more without the cache. All start
from one projector, and the losses on one batch are compared before. They repeat in turns; medians are taken.

The share of the matmul rate is model FLOPs (real positions; padding is no work) by time and by the rate of the LLM's
own matrix shapes, measured before each repetition. The count is checked against torch's FLOP counter.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other where cores are shared

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode

from asrllm.batch import Batch
from asrllm.data import kaldi
from asrllm.data.dataset import Dataset, batches
from asrllm.data.sampler import BatchConfig
from asrllm.experiment import Corpus, Loader, cache_frames
from asrllm.models.build import ModelConfig, build
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.llm import LlmConfig, load_llm
from asrllm.models.pretrained import PretrainedConfig
from asrllm.models.projector import LinearConfig
from asrllm.models.speech_llm import SpeechLLM
from asrllm.text.tokenizer import CharacterTokenizer
from asrllm.train import optim
from asrllm.train.learner import Learner
from asrllm.train.stage import Phase

RATE = 1e-4
CPU = torch.device("cpu")


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("ASRLLM_DATA")
    options.add_argument("--data", type=Path, default=data, required=data is None, help="recordings ($ASRLLM_DATA)")
    options.add_argument("--pretrained", type=Path, default=Path("downloads"), help="folder of the models (downloads)")
    options.add_argument("--encoder", default="moonshine-base", help="a model in that folder (moonshine-base)")
    options.add_argument("--utterances", type=int, default=200, help="how many (200)")
    options.add_argument("--batch_seconds", type=float, default=80.0, help="audio in a batch of ours (80)")
    options.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    options.add_argument("--repeats", type=int, default=3, help="repetitions of each contender (3)")
    return options


def utterances(folder: Path, count: int) -> list[kaldi.Utterance]:
    """The first utterances of the corpus' training part."""
    rows, _ = kaldi.scan(folder / "train" / "wav.scp")
    texts = {row.key: row.value.lower() for row in kaldi.scan(folder / "train" / "text")[0]}
    return [kaldi.Utterance(row.key, row.key, texts[row.key], str(folder / row.value)) for row in rows[:count]]


class PlainLoop:
    """Alignment training as one writes it at first."""

    def __init__(self, model: SpeechLLM, llm: Any) -> None:
        self.encoder, self.llm, self.language = model.encoder, llm, model.language
        assert model.projector is not None
        self.projector = deepcopy(model.projector)
        self.optimizer = torch.optim.AdamW(self.projector.parameters(), lr=RATE)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of the transcripts and their ends."""
        prompt, tokens = self.language.prompt, self.language.tokens
        assert prompt is not None and tokens is not None
        with torch.no_grad():
            frames, lens = self.encoder(batch.waves, batch.wave_lens)
        speech, speech_lens = self.projector(frames, lens)
        embed, rows, labels = self.llm.get_input_embeddings(), [], []
        for row, size, text in zip(speech, speech_lens.tolist(), batch.texts, strict=True):
            target = [*tokens.encode_transcript(text), prompt.end]
            before, after = embed(torch.tensor(prompt.before)), embed(torch.tensor(prompt.after + target))
            rows.append(torch.cat([before, row[:size], after]))
            labels.append(torch.tensor([-100] * (len(rows[-1]) - len(target)) + target))
        embeds = pad_sequence(rows, batch_first=True)
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
        padded = pad_sequence(labels, batch_first=True, padding_value=-100)
        return self.llm(inputs_embeds=embeds, attention_mask=mask, labels=padded).loss

    def step(self, batch: Batch) -> None:
        """Move the projector once."""
        self.optimizer.zero_grad()
        self.loss(batch).backward()
        nn.utils.clip_grad_norm_(self.projector.parameters(), 5.0)
        self.optimizer.step()


def trainer_step(model: SpeechLLM, precision: Any) -> Callable[[Batch], object]:
    """The step of asrllm's trainer."""
    phase = Phase(steps=1, train={"projector": RATE}, losses={"llm": 1.0})
    optimizer = optim.make_optimizer(phase, model.parts, (0.9, 0.999), 0.01)
    learner = Learner(model, phase, optimizer, precision, CPU)
    return lambda batch: learner.step([batch], 1.0, 5.0, (0,))


@dataclass(frozen=True)
class Shape:
    """What the FLOP count needs of the model: 2 P a position forward (Kaplan et al. 2020, section 2.1)."""

    layer_shapes: list[tuple[int, int]]  # (inputs, outputs) of the matrices of one layer
    layers: int
    head_widths: int  # heads * width of one
    hidden: int
    vocabulary: int
    projector: list[tuple[int, int]]
    before: int  # shared positions before the audio

    def flops(self, lens: Sequence[int], positions: int, targets: int, executed: bool) -> float:
        """One step: forward and gradient of the inputs; for the projector also of the weights.

        Args:
            lens: positions of each row after the shared ones.
            positions: speech positions that the projector makes.
            targets: with logits.
            executed: count the keys that a position does not see, and the gradient at the shared positions, too.
        """
        matrices = self.layers * sum(2 * one * other for one, other in self.layer_shapes)
        back = 1 if executed else 0
        linear = matrices * (2 * sum(lens) + (1 + back) * self.before)
        pairs = sum(size * self.before + (size * size if executed else size * (size + 1) / 2) for size in lens)
        shared = self.before**2 if executed else self.before * (self.before + 1) / 2
        products = 3 * pairs + (1 + 2 * back) * shared  # two products forward, four backward
        attention = 4 * self.layers * self.head_widths * products
        head = 2 * 2 * self.hidden * self.vocabulary * targets
        first, second = (2 * one * other * positions for one, other in self.projector)
        return linear + attention + head + 2 * first + 3 * second  # nobody wants the gradient of the frames


def shape_of(model: SpeechLLM) -> Shape:
    """Shapes of a Llama and a linear projector."""
    config, layers = model.llm.config, model.llm.base_model.layers
    prompt, projector = model.language.prompt, model.projector
    assert prompt is not None and projector is not None

    def linears(module: nn.Module) -> list[tuple[int, int]]:
        return [(each.in_features, each.out_features) for each in module.modules() if isinstance(each, nn.Linear)]

    return Shape(
        linears(layers[0]),
        len(layers),
        config.num_attention_heads * config.head_dim,
        config.hidden_size,
        config.vocab_size,
        linears(projector),
        len(prompt.before),
    )


def counted(model: SpeechLLM, shape: Shape, batch: Batch) -> tuple[float, float]:
    """FLOPs of a batch: those that the loss and its gradient take, and those that are executed."""
    assert batch.frames is not None and batch.frame_lens is not None and model.language.prompt is not None
    projector: Any = model.projector
    texts = [len(model.llm_tokenizer.encode_transcript(text)) for text in batch.texts]
    speech = projector.output_lens(batch.frame_lens).tolist()
    lens = [a + b + len(model.language.prompt.after) for a, b in zip(speech, texts, strict=True)]
    targets = sum(texts) + len(texts)
    padded = len(batch) * (batch.frames.shape[1] // projector.stride)
    return (
        shape.flops(lens, sum(speech), targets, executed=False),
        shape.flops(lens, padded, targets, executed=True),
    )


@torch.no_grad()
def matmul_rate(shape: Shape, dtype: torch.dtype, rows: int, tries: int = 5) -> float:
    """FLOP/s over the matrices of one layer, forward and gradient, each at the best of several tries."""
    seconds = 0.0
    for inputs, outputs in shape.layer_shapes:
        weight, x, g = (torch.randn(size).to(dtype) for size in ((outputs, inputs), (rows, inputs), (rows, outputs)))
        seconds += min(timed(nn.functional.linear, x, weight) for _ in range(tries))
        seconds += min(timed(torch.mm, g, weight) for _ in range(tries))
    return 4 * rows * sum(one * other for one, other in shape.layer_shapes) / seconds


def timed(work: Callable[..., object], *args: object) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def epoch(step: Callable[[Batch], object], data: Iterator[Batch]) -> None:
    """One pass, the reading of the data included."""
    for batch in data:
        step(batch)


def main() -> None:
    """Print a Markdown table and what it rests on."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    precision = optim.pick_precision("auto", CPU)
    folder = str(options.pretrained / "smollm2-135m-instruct")
    config = ModelConfig(
        encoder=PretrainedConfig(type="pretrained", model=str(options.pretrained / options.encoder)),
        projector=LinearConfig(type="linear", stride=5),
        llm=LlmConfig(model=folder, dtype=precision),
    )
    chosen = utterances(options.data / "speechocean762", options.utterances)
    dataset = Dataset(chosen, SAMPLE_RATE)
    model = build(config, CharacterTokenizer(sorted({letter for each in chosen for letter in each.text})))
    plain = PlainLoop(model, load_llm(LlmConfig(model=folder)).requires_grad_(False))
    corpus = Corpus(dataset, None, BatchConfig(max_seconds=options.batch_seconds, jitter=0))
    live = Loader(corpus, 1)
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        corpus = cache_frames(corpus, model, config, Path(place), CPU)
        print(f"{len(chosen)} utterances, {options.threads} threads, ours in {precision}")
        print(f"encoder outputs cached once in {time.perf_counter() - start:.1f} s (not in the times below)")
        compare_losses(model, plain, dataset, corpus)
        race(model, plain, dataset, Loader(corpus, 1), live, options.repeats, precision)


@torch.no_grad()
def compare_losses(model: SpeechLLM, plain: PlainLoop, dataset: Dataset, corpus: Corpus) -> None:
    """Both losses on the first 8 utterances, in float32, and ours as it is trained."""
    theirs = float(plain.loss(dataset.batch(range(8), 0)))
    batch = corpus.dataset.batch(range(8), 0)
    exact = SpeechLLM(model.language, model.encoder, model.ctc, model.projector, plain.llm)(batch, ("llm",))["llm"]
    with torch.autocast("cpu", torch.bfloat16, enabled=model.llm.dtype == torch.bfloat16):
        ours = model(batch, ("llm",))["llm"]
    value, trained = float(exact.sum) / exact.count, float(ours.sum) / ours.count
    assert abs(value - theirs) < 1e-3 * theirs, f"the losses differ: {value} and {theirs}"
    print(f"loss of one batch: plain loop {theirs:.5f}, ours {value:.5f} in fp32, {trained:.5f} as trained\n")


def race(
    model: SpeechLLM, plain: PlainLoop, dataset: Dataset, loader: Loader, live: Loader, repeats: int, precision: str
) -> None:
    """Ours over cached outputs (`loader`), over waves (`live`), and the plain loop in turns; one batch each before."""
    count = len(dataset)
    file_order = [list(range(first, min(first + 8, count))) for first in range(0, count, 8)]
    step, shape = trainer_step(model, precision), shape_of(model)
    first = next(loader.batches(1, 0))
    with FlopCounterMode(display=False) as counter:
        step(first)
    executed = counted(model, shape, first)[1]
    assert abs(executed / counter.get_total_flops() - 1) < 0.02, (executed, counter.get_total_flops())
    step(next(live.batches(1, 0)))
    plain.step(dataset.batch(file_order[0], 0))

    work = [counted(model, shape, batch) for batch in loader.batches(1, 0)]
    useful, padded = (sum(column) for column in zip(*work, strict=True))
    rows = 512
    slow, uncached, fast, rates, shares = [], [], [], [], []
    for _ in range(repeats):
        slow.append(timed(epoch, plain.step, batches(dataset, file_order)))
        uncached.append(timed(epoch, step, live.batches(1, 0)))
        rates.append(matmul_rate(shape, model.llm.dtype, rows))
        fast.append(timed(epoch, step, loader.batches(1, 0)))
        shares.append(useful / fast[-1] / rates[-1])
    theirs, middle, ours = (statistics.median(each) for each in (slow, uncached, fast))
    print(f"| median of {repeats} passes | utterances/s | ratio |")
    print("|---|---|---|")
    print(f"| plain transformers loop, fp32, batches of 8 | {count / theirs:.2f} | 1 |")
    print(f"| asrllm, {precision}, encoder run in each step | {count / middle:.2f} | {theirs / middle:.2f} |")
    print(f"| asrllm, {precision}, {len(work)} batches | {count / ours:.2f} | {theirs / ours:.2f} |\n")
    print("| | GFLOP/s | share of the matmul rate |")
    print("|---|---|---|")
    print(f"| matmul, {precision}, {rows} rows, the LLM's shapes | {statistics.median(rates) / 1e9:.0f} | 1 |")
    print(f"| asrllm's step, model FLOPs | {useful / ours / 1e9:.0f} | {statistics.median(shares):.2f} |\n")
    print(f"beside these {padded / useful - 1:.1%} more FLOPs executed; count / torch's counter = ", end="")
    print(f"{executed / counter.get_total_flops():.4f}")
    print(f"the cache of encoder outputs: {middle / ours:.2f}x")
    print("seconds of each pass: plain", *(f"{each:.1f}" for each in slow), end="; without cache ")
    print(*(f"{each:.1f}" for each in uncached), end="; ours ")
    print(*(f"{each:.1f}" for each in fast), "; matmul GFLOP/s", *(f"{each / 1e9:.0f}" for each in rates))


if __name__ == "__main__":
    main()
