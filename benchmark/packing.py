"""The joint training step with utterances packed in one row against padded rows, in one run.

    ASRLLM_DATA=folder python benchmark/packing.py --pretrained downloads

A Conformer, a linear projector (SLAM-ASR: stride 5) and SmolLM2-135M are all trained, on utterances of LibriSpeech's
train-clean-100; the losses are the LLM's and CTC. Everything is ours but the rows of the LLM: padded at the end and
given to the LLM whole, under an attention mask, by transformers' own attention (`padded`), or by matrix products, whose
gradient is faster on a CPU (`padded, products`); or packed. All three give the same loss, which is compared before.
Batches are the same for all: drawn at random, as without a sampler that sorts, or by ours. Contenders take turns; what
counts is CPU time, since cores may be shared, divided by the threads.
"""

import argparse
import itertools
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other where cores are shared

import torch
from torch.nn.utils.rnn import pad_sequence

from asrllm.batch import Batch
from asrllm.data import kaldi, sampler
from asrllm.data.dataset import Dataset
from asrllm.data.sampler import BatchConfig, Lengths
from asrllm.models import packing, prefix
from asrllm.models.build import ModelConfig, build
from asrllm.models.conformer import ConformerConfig
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.llm import LlmConfig
from asrllm.models.projector import LinearConfig
from asrllm.models.speech_llm import SpeechLLM
from asrllm.text.prompt import PromptConfig
from asrllm.text.tokenizer import CharacterTokenizer
from asrllm.train import optim
from asrllm.train.learner import Learner
from asrllm.train.stage import Phase

CPU = torch.device("cpu")
PHASE = Phase(steps=1, train=dict.fromkeys(("encoder", "ctc", "projector", "llm"), 1e-6), losses={"llm": 1, "ctc": 0.3})


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("ASRLLM_DATA")
    options.add_argument("--data", type=Path, default=data, required=data is None, help="recordings ($ASRLLM_DATA)")
    options.add_argument("--pretrained", type=Path, default=Path("downloads"), help="folder of the models (downloads)")
    options.add_argument("--utterances", type=int, default=48, help="how many (48)")
    options.add_argument("--batch", type=int, default=16, help="utterances in a batch (16)")
    options.add_argument("--order", choices=("random", "sampler"), default="random", help="of the utterances (random)")
    options.add_argument("--template", default=PromptConfig().template, help="the prompt (SLAM-ASR's)")
    options.add_argument("--layers", type=int, default=6, help="of the Conformer, 256 wide (6)")
    options.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    options.add_argument("--repeats", type=int, default=2, help="repetitions of each contender (2)")
    return options


class Padded(SpeechLLM):
    """Rows of prompt, speech and transcript, padded at the end."""

    rows_padding: list[tuple[int, int]]  # real and all positions of each batch

    def _at_targets(
        self, batch: Batch, frames: torch.Tensor, lens: torch.Tensor, log_probs: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        transcripts, prompt = self._transcripts(batch), self._prompt()
        speech, speech_lens = self._speech(frames, lens, log_probs)
        sequence = prefix.join(self.llm, prompt, speech, speech_lens, [row[:-1] for row in transcripts])
        before = prefix.before(self.llm, prompt, sequence.embeds)
        rows = [torch.cat([before, row]) for row in sequence.embeds.split(sequence.lens)]
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
        self.rows_padding.append((int(mask.sum()), mask.numel()))
        embeds = pad_sequence(rows, batch_first=True)
        hidden = self.llm.base_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        ends = [(len(row) - len(tokens), len(row)) for row, tokens in zip(rows, transcripts, strict=True)]
        last = [states[first:end] for states, (first, end) in zip(hidden, ends, strict=True)]
        return torch.cat(last), torch.tensor([token for row in transcripts for token in row]), speech_lens


def utterances(folder: Path, count: int) -> list[kaldi.Utterance]:
    """Of as many speakers as there are, in the order of the corpus."""
    found = []
    for transcript in sorted(folder.glob("*/*/*.trans.txt")):
        for line in transcript.read_text().splitlines():
            key, text = line.split(maxsplit=1)
            found.append(kaldi.Utterance(key, key, text.lower(), str(transcript.parent / f"{key}.flac")))
    step = max(1, len(found) // count)
    return found[::step][:count]


def batches(dataset: Dataset, options: argparse.Namespace) -> list[Batch]:
    """All utterances once."""
    seconds = dataset.seconds(0)
    print(f"{len(seconds)} utterances of {min(seconds):.1f} to {max(seconds):.1f} s, ", end="")
    print(f"mean {statistics.mean(seconds):.1f} s; {options.order} order")
    if options.order == "sampler":
        limits = BatchConfig(max_seconds=1e6, max_utterances=options.batch)
        plan = list(sampler.plan(Lengths(seconds), limits, 0, 0))
    else:
        order = torch.randperm(len(seconds), generator=torch.Generator().manual_seed(0)).tolist()
        plan = [order[first : first + options.batch] for first in range(0, len(order), options.batch)]
    return [dataset.batch(indices, 0) for indices in plan]


def make_learner(model: SpeechLLM) -> Learner:
    """What takes the steps of asrllm's trainer."""
    optimizer = optim.make_optimizer(PHASE, model.parts, (0.9, 0.999), 0.01)
    return Learner(model, PHASE, optimizer, optim.pick_precision("auto", CPU), CPU)


def timed(learner: Learner, data: list[Batch]) -> float:
    """CPU seconds of one pass, which other work on the machine changes little."""
    start = time.process_time()
    for batch in data:
        learner.step([batch], 1.0, 5.0, (0,))
    return (time.process_time() - start) / torch.get_num_threads()


def main() -> None:
    """Print a Markdown table and what it rests on."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    chosen = utterances(options.data / "librispeech_mini/LibriSpeech/train-clean-100", options.utterances)
    config = ModelConfig(
        encoder=ConformerConfig(type="conformer", layers=options.layers, dropout=0.0),
        projector=LinearConfig(type="linear", stride=5),
        llm=LlmConfig(model=str(options.pretrained / "smollm2-135m-instruct")),
        prompt=PromptConfig(template=options.template),
    )
    packed = build(config, CharacterTokenizer(sorted({letter for each in chosen for letter in each.text})))
    padded = Padded(packed.language, packed.encoder, packed.ctc, packed.projector, packed.llm)
    padded.rows_padding = []
    data = batches(Dataset(chosen, SAMPLE_RATE), options)
    contenders = {
        "padded": (padded, "sdpa"),
        "padded, products": (padded, packing.IMPLEMENTATION),
        "packed": (packed, packing.IMPLEMENTATION),
    }
    for model, implementation in contenders.values():
        model.eval().llm.set_attn_implementation(implementation)
    with torch.no_grad():
        losses = [float(model(data[0], ("llm",))["llm"].sum) for model in (padded, packed)]
    assert abs(losses[0] / losses[1] - 1) < 1e-4, losses
    padded.rows_padding.clear()
    learner = make_learner(packed)
    timed(learner, data[:1])  # the optimizer makes its state
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _, (name, (model, implementation)) in itertools.product(range(options.repeats), contenders.items()):
        learner.model = model
        model.llm.set_attn_implementation(implementation)
        times[name].append(timed(learner, data))
    real, whole = (sum(column) for column in zip(*padded.rows_padding, strict=True))
    print(f"loss of one batch: {losses[0]:.3f} padded, {losses[1]:.3f} packed, in fp32")
    print(f"padding share of the LLM's rows: {1 - real / whole:.1%} padded, 0 packed\n")
    print(f"| median of {options.repeats} passes, {len(data)} batches | utterances/s | ratio |")
    print("|---|---|---|")
    slow = statistics.median(times["padded"])
    for name, each in times.items():
        middle = statistics.median(each)
        print(f"| {name} | {len(chosen) / middle:.2f} | {slow / middle:.2f} |")
    print("\nseconds of each pass:", *(f"{name} {' '.join(f'{s:.1f}' for s in each)};" for name, each in times.items()))


if __name__ == "__main__":
    main()
