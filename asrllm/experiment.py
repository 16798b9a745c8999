"""An exp/ directory as an object: configuration, CTC units, weights; and what training takes from the other wings.

The directory holds `config.yaml` (resolved), `tokenizer/`, `weights.safetensors`, `summary.json`, logs and curves.
Parts of pretrained models that no stage touched are named by their source and not copied. This is the one module that
ties data, models and training together.
"""

import hashlib
import json
import logging
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asrllm import config as configs
from asrllm import console, dist
from asrllm.batch import Batch
from asrllm.config import Config
from asrllm.console import UserError, write_atomically
from asrllm.data import index, measures, sampler
from asrllm.data.augment import PLAIN, AugmentConfig
from asrllm.data.cache import FrameCache
from asrllm.data.dataset import Dataset, batches
from asrllm.data.index import Utterances
from asrllm.data.sampler import BatchConfig, Lengths, Plan
from asrllm.models.build import ModelConfig, build
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.speech_llm import LOSSES, SpeechLLM
from asrllm.text import tokenizer as tokenizers
from asrllm.text.spelling import frames_needed
from asrllm.train import checkpoint
from asrllm.train.snapshot import Snapshots
from asrllm.train.stage import Stage, check
from asrllm.train.swap import SwapConfig
from asrllm.train.trainer import TrainConfig

log = logging.getLogger("asrllm")


CTC_LOSSES = {"ctc", "ctc_intermediate"}


class DataConfig(Config):
    """How utterances become batches."""

    batch: BatchConfig = BatchConfig()
    speed_factors: tuple[float, ...] = (1.0,)
    augment: AugmentConfig = PLAIN  # of training audio
    cache_frames: bool = False  # keep the outputs of a frozen encoder on disk


class ExperimentConfig(Config):
    """Everything that a training run depends on, but for paths and machine."""

    model: ModelConfig
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    stage: Stage

    def origin(self, part: str) -> str:
        """Where the first weights of a part come from."""
        return {**self.model.given_parts, **self.stage.init}.get(part, "random numbers")


class Experiment:
    """A folder under exp/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def holding(cls, place: Path) -> "Experiment":
        """The experiment that `place` is, or is a checkpoint or a snapshot of."""
        inside = place.parent.name in ("checkpoints", "snapshots")
        return cls(place.parent.parent if inside else place)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What training wrote at its end.

        Raises:
            UserError: it has not ended, or the file is broken.
        """
        path = self.folder / "summary.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(
                f"{self.folder}: not a finished experiment (no summary.json): train it to its end"
            ) from None
        except (OSError, ValueError, TypeError) as fault:
            raise UserError(f"{path}: not valid JSON ({fault}): train the experiment again") from None

    @cached_property
    def config(self) -> ExperimentConfig:
        """The resolved configuration."""
        if not (self.folder / "config.yaml").is_file():
            raise UserError(f"{self.folder}: not an experiment (no config.yaml): train it first (stages 4 to 7)")
        return configs.load(self.folder / "config.yaml", ExperimentConfig)

    def check(self, config: ExperimentConfig, units: Path) -> None:
        """Refuse to go on in a folder where something was trained with another configuration or other CTC units.

        Raises:
            UserError: names every key that differs; no tokenizer in `units`.
        """
        if not (units / "tokenizer.json").is_file():
            raise UserError(f"{units}: no tokenizer there: run stage 3 (train_tokenizer) first")
        if self._is_begun:
            of_a_machine = {"train": {"parallel"}}  # with the number of processes it may be another one
            old, new = (each.model_dump(mode="json", exclude=of_a_machine) for each in (self.config, config))
            checkpoint.check_same_config(old, new, str(self.folder))
            _same_units(self.folder / "tokenizer", units, str(self.folder))

    def start(self, config: ExperimentConfig, units: Path) -> None:
        """Write configuration and units, unless a run to be continued has them there (see `check`)."""
        if not self._is_begun:
            with write_atomically(self.folder / "tokenizer") as temporary:
                shutil.copytree(units, temporary)
            configs.dump(config, self.folder / "config.yaml")

    @property
    def _is_begun(self) -> bool:
        """Whether the folder holds weights; before the first checkpoint a mended configuration may replace the old."""
        weights = (self.folder / "weights.safetensors").is_file() or any(self.folder.glob("checkpoints/step-*"))
        return weights and (self.folder / "config.yaml").is_file()

    @property
    def stored_parts(self) -> set[str]:
        """Parts whose weights the folder holds: all but pretrained ones that no stage touched."""
        touched = {*self.config.stage.init, *self.config.stage.changed}
        return {*self.config.model.parts} - (self.config.model.given_parts.keys() - touched)

    def model(self, place: Path | None = None) -> SpeechLLM:
        """The trained model in eval mode.

        Args:
            place: a checkpoint or snapshot of the experiment, whose weights stand in the place of the final ones.

        Raises:
            UserError: training has not ended, or a weight is missing, unknown or of another shape.
        """
        path = self.folder / "weights.safetensors"
        model = build(self.config.model, tokenizers.load(self.folder / "tokenizer"))
        if place is None or place == self.folder:
            tensors = checkpoint.read_weights(path)
        else:  # a checkpoint holds what is trained; what is not stands beside it, once training has ended
            final = checkpoint.read_weights(path) if path.is_file() else {}
            path = place / path.name
            tensors = final | checkpoint.read_weights(path)
        for part in sorted(self.stored_parts):
            checkpoint.load_part(model.parts[part], tensors, part, str(path))
        return model.eval()


def new_model(config: ExperimentConfig, units: Path) -> SpeechLLM:
    """The model before training: pretrained parts, then what `stage.init` takes from experiments or snapshots.

    Raises:
        UserError: a part or loss that the model has not, an LLM too coarse to train, a part that does not load,
            encoders that cannot be swapped in.
    """
    check(config.stage, config.model.parts)
    _check_losses(config)
    _check_precision(config)
    model = build(config.model, tokenizers.load(units))
    for part, source in config.stage.init.items():
        other = Path(source)
        path = other / "weights.safetensors"
        tensors = checkpoint.read_weights(path)
        if part in ("ctc", "decoder", "projector"):
            home = other.parent.parent if other.parent.name == "snapshots" else other
            _same_units(home / "tokenizer", units, f"stage.init.{part}")
        checkpoint.load_part(model.parts[part], tensors, part, str(path))
    for number, phase in enumerate(config.stage.phases):
        if phase.encoder_swaps is not None:
            _check_swaps(phase.encoder_swaps, config, model, units, f"stage.phases.{number}.encoder_swaps")
    return model


def _check_swaps(swaps: SwapConfig, config: ExperimentConfig, model: SpeechLLM, units: Path, key: str) -> None:
    """Refuse a pretraining whose encoders cannot be taken; loads the earliest of its snapshots into the model."""
    if config.data.cache_frames:
        raise UserError(f"{key}: encoder outputs are cached (data.cache_frames), but the encoder changes: turn one off")
    snapshots = Snapshots(Path(swaps.pretraining))
    snapshots.check(finished=swaps.mode != "online")
    _same_units(snapshots.exp / "tokenizer", units, f"{key}.pretraining")
    for each in snapshots.all()[:1]:
        path = each.folder / "weights.safetensors"
        tensors = checkpoint.read_weights(path)
        for part in swaps.parts:
            checkpoint.load_part(model.parts[part], tensors, part, str(path))


def _check_losses(config: ExperimentConfig) -> None:
    model = config.model
    wanted = {"llm": model.llm, "attention": model.decoder, "ctc_intermediate": model.encoder.intermediate_layers}
    known = [name for name in LOSSES if wanted.get(name, True)]
    for number, phase in enumerate(config.stage.phases):
        for name in phase.losses:
            if name not in known:
                raise UserError(
                    f"stage.phases.{number}.losses: this model has no loss {name!r}: it has {', '.join(known)}"
                )


def _check_precision(config: ExperimentConfig) -> None:
    """Refuse to train weights that are kept in bf16: their 8 bits round the updates of usual rates away."""
    for number, phase in enumerate(config.stage.phases):
        if "llm" in phase.train and config.model.llm is not None and config.model.llm.dtype == "bf16":
            raise UserError(
                f"stage.phases.{number}.train: llm, whose weights model.llm.dtype keeps in bf16, too coarse for "
                "updates of usual rates: set it to fp32 (activations are bf16 all the same), or train llm.lora"
            )


def _same_units(one: Path, other: Path, where: str) -> None:
    """Refuse to mix weights that were trained with other CTC units."""
    first, second = one / "tokenizer.json", other / "tokenizer.json"
    if not first.is_file() or not second.is_file() or first.read_bytes() != second.read_bytes():
        raise UserError(f"{where}: {first} and {second} are not the same CTC units: train both with one tokenizer")


@dataclass(frozen=True)
class Corpus:
    """A formatted data directory as training sees it."""

    dataset: Dataset
    tokens: NDArray[np.int32] | None  # CTC labels of every utterance, where batches are limited by them
    batch: BatchConfig
    left_out: Mapping[str, str] = field(default_factory=dict)  # utterance id -> why it cannot be trained on

    @property
    def lengths(self) -> Lengths:
        """Of every utterance at normal speed."""
        return Lengths(self.dataset.utterances.seconds, self.tokens)

    def plan(self, epoch: int, seed: int) -> Plan:
        """The batches of this process in an epoch."""
        items = self.dataset.items(epoch)
        now = Lengths(items.seconds, None if self.tokens is None else items.sums(self.tokens))
        return sampler.plan(now, self.batch, seed, epoch, dist.rank(), dist.world_size())

    def list_left_out(self, path: Path) -> None:
        """Write what is left out and why, a line each, if anything is."""
        if self.left_out:
            with write_atomically(path) as temporary:
                lines = (f"{utt_id}\t{why}\n" for utt_id, why in self.left_out.items())
                temporary.write_text("".join(lines), encoding="utf-8")
            log.info("%s: why %d utterances are left out", path, len(self.left_out))


class Loader:
    """Training batches as a pure function of (epoch, start)."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self.corpus, self.seed = corpus, seed
        self._plan = lru_cache(maxsize=2)(self.corpus.plan)

    def count(self, epoch: int) -> int:
        """Batches of an epoch, the same on every process."""
        return len(self._plan(epoch, self.seed))

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Batches number `start` and on of an epoch."""
        return batches(self.corpus.dataset, self._plan(epoch, self.seed), epoch, start)


def validation(corpus: Corpus) -> Iterator[Batch]:
    """Every utterance once over all processes, at normal speed, always in the same batches."""
    return batches(corpus.dataset, corpus.plan(0, 0))


def probe(corpus: Corpus, utterances: int, seed: int) -> Iterator[Batch]:
    """A fixed draw of utterances at normal speed, all of them on every process."""
    count = len(corpus.lengths)
    chosen = sorted(random.Random(seed).sample(range(count), min(utterances, count)))
    plan = sampler.plan(Lengths(corpus.lengths.seconds[chosen]), corpus.batch, seed, 0)
    return batches(corpus.dataset, [[chosen[place] for place in batch] for batch in plan])


def open_corpus(
    folder: Path, config: ExperimentConfig, model: SpeechLLM, units: Path, training: bool, keep: bool
) -> Corpus:
    """Read a data directory and leave out what cannot be trained on; `keep` what is measured of its transcripts.

    Raises:
        UserError: no transcripts, an utterance that fits no batch, or nothing is left.
    """
    utterances = index.read(folder)
    if not any(utterance.text for utterance in utterances):
        raise UserError(f"{folder}: no transcripts in it: training and validation want a `text` file")
    _check_longest(folder, utterances, config.data.batch)
    factors = config.data.speed_factors if training else (1.0,)
    losses = {name for phase in config.stage.phases for name in phase.losses}
    counts = None
    if config.data.batch.max_tokens or losses & CTC_LOSSES:
        counts = _label_counts(folder, utterances, model, units, "ctc_intermediate" in losses, keep)
    tokens = counts[:, 0] if counts is not None and config.data.batch.max_tokens else None
    kept, why = sampler.select(Lengths(utterances.seconds, tokens), config.data.batch)
    if counts is not None and losses & CTC_LOSSES:
        shortest = (utterances.seconds[kept] / max(factors) * SAMPLE_RATE).astype(np.int64)
        frames = model.encoder.output_lens(torch.from_numpy(shortest)).numpy()
        needed = counts[kept, 1]
        short = np.flatnonzero(needed > frames)
        why |= {int(kept[i]): f"{frames[i]} encoder frames, CTC needs {needed[i]} for its labels" for i in short}
        kept = np.delete(kept, short)
    left_out = {utterances[i].utt_id: reason for i, reason in why.items()}
    if left_out:
        first = "the first, {}: {}".format(*next(iter(left_out.items())))
        if not len(kept):
            raise UserError(f"{folder}: all {len(utterances)} utterances are left out, {first}")
        log.warning("%s: %d of %d utterances are left out, %s", folder, len(left_out), len(utterances), first)
    augment = config.data.augment if training else PLAIN
    dataset = Dataset(utterances.take(kept), SAMPLE_RATE, factors, config.train.seed, augment=augment)
    return Corpus(dataset, None if tokens is None else tokens[kept], config.data.batch, left_out)


def _check_longest(folder: Path, utterances: Utterances, limits: BatchConfig) -> None:
    """Refuse utterances that are wanted, not being over `max_seconds_utterance`, but larger than a batch."""
    seconds = utterances.seconds
    large = np.flatnonzero((seconds > limits.max_seconds) & (seconds <= limits.max_seconds_utterance))
    if len(large):
        longest = int(large[np.argmax(seconds[large])])
        raise UserError(
            f"{folder}: utterance {utterances[longest].utt_id} has {seconds[longest]:.1f} s, more than a batch "
            f"(data.batch.max_seconds {limits.max_seconds:g}), as have {len(large)} in all: raise that, or lower "
            "data.batch.max_seconds_utterance to leave them out"
        )


def _label_counts(
    folder: Path, utterances: Utterances, model: SpeechLLM, units: Path, intermediate: bool, keep: bool
) -> NDArray[np.int32]:
    """Of each transcript (N, 2): its CTC labels, and the frames that CTC needs for them."""

    def measure(text: str) -> tuple[int, int]:
        labels = model.ctc_tokenizer.encode(text)
        needed = frames_needed(labels)
        if intermediate:
            needed = max(needed, frames_needed(model.language.lower_units.encode(text)))
        return len(labels), needed

    depends = (units / "tokenizer.json").read_text(), type(model.language.lower_units).__name__, str(intermediate)
    return measures.of_texts(utterances, measure, folder, *depends, keep=keep)


def cache_frames(corpus: Corpus, model: SpeechLLM, config: ModelConfig, folder: Path, device: torch.device) -> Corpus:
    """The corpus with the outputs of the frozen encoder read from disk; they are computed once for all experiments.

    The store is keyed by the encoder's weights and configuration and by the audio.
    """
    utterances = corpus.dataset.utterances
    digest = hashlib.sha256(config.encoder.model_dump_json().encode())
    for name, weight in model.encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for each in utterances:
        path = Path(each.source.rpartition(":")[0] if ":" in each.source else each.source)
        stamp = (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else ()
        digest.update(repr((each.utt_id, each.source, each.start, each.end, each.channel, stamp)).encode())
    key = digest.hexdigest()
    place = folder / key[:16]
    if dist.rank() == 0 and not (cache := FrameCache(place, key)).is_complete:
        cache.write(_encode_all(corpus, model, device), dtype="fp16")  # outputs of a last norm: well inside its range
    dist.barrier()
    dataset = Dataset(utterances, SAMPLE_RATE, frames=FrameCache(place, key).get)
    return replace(corpus, dataset=dataset)


def encoding_flops(corpus: Corpus, model: SpeechLLM) -> float:
    """What `cache_frames` costs, whether or not another experiment has paid it."""
    samples = (corpus.lengths.seconds * SAMPLE_RATE).round().astype(np.int64)
    return model.encoder.flops(torch.from_numpy(samples)).forward


@torch.inference_mode()
def _encode_all(corpus: Corpus, model: SpeechLLM, device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    plan = sampler.plan(corpus.lengths, corpus.batch, 0, 0)
    model.eval()
    for batch in console.track(batches(corpus.dataset, plan), "encoding", len(plan), "batches"):
        frames, lens = model.encode(batch.to(device))
        for utt_id, row, size in zip(batch.utt_ids, frames.cpu(), lens.tolist(), strict=True):
            yield utt_id, row[:size]
