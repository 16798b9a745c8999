"""What a model holds of each utterance of a data directory: after each layer of the encoder, and at the projector.

Everything is per encoder frame. Positions of the projector are laid back on frames: each frame has the position
that was made of it; of a projector that makes positions of some frames only (`posterior`) the others have none.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asrllm.batch import Batch
from asrllm.console import UserError, track
from asrllm.data import index, sampler
from asrllm.data.dataset import Dataset, batches
from asrllm.data.kaldi import Utterance
from asrllm.data.sampler import BatchConfig, Lengths
from asrllm.experiment import Corpus, Experiment, probe
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.posterior import PosteriorProjector
from asrllm.models.projector import LinearProjector, TransformerProjector
from asrllm.models.recomputation import blocks
from asrllm.models.speech_llm import SpeechLLM

BATCH_SECONDS = 60.0
ENCODER, PROJECTOR = "encoder", "projector"


@dataclass
class Held:
    """Of all utterances, in one order."""

    utt_ids: list[str] = field(default_factory=list)
    layers: dict[str, list[torch.Tensor]] = field(default_factory=dict)  # inner layer, `encoder` -> (T_u, D) each
    positions: list[torch.Tensor] = field(default_factory=list)  # (P_u, H) of the projector; none without an LLM
    owners: list[torch.Tensor] = field(default_factory=list)  # (T_u,) position that a frame belongs to, -1: none
    log_probs: list[torch.Tensor] = field(default_factory=list)  # (T_u, V) of the CTC head

    @property
    def sites(self) -> list[str]:
        """The layers from the bottom, `encoder` for its output, and `projector` where there is one."""
        return [*self.layers, *([PROJECTOR] if self.positions else [])]

    def frames(self, site: str, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors (T_u, D) of an utterance at a site, and which of them are real (T_u,)."""
        if site != PROJECTOR:
            frames = self.layers[site][number]
            return frames, torch.ones(len(frames), dtype=torch.bool)
        owners, positions = self.owners[number], self.positions[number]
        if not len(positions):
            return positions.new_zeros(len(owners), positions.shape[1]), owners >= 0
        return positions[owners.clamp(min=0)], owners >= 0


class Audio:
    """A data directory as it is, at normal speed, in batches that are always the same."""

    def __init__(self, data: Path) -> None:
        self.data, self.utterances = data, index.read(data)
        longest = max(BATCH_SECONDS, float(self.utterances.seconds.max(initial=0.0)))
        limits = BatchConfig(max_seconds=longest, max_seconds_utterance=longest, jitter=0.0)
        self.corpus = Corpus(Dataset(self.utterances, SAMPLE_RATE), None, limits)
        self.numbers = {each.utt_id: number for number, each in enumerate(self.utterances)}

    def listed(self) -> dict[str, Utterance]:
        """The utterances with their seconds, by id."""
        pairs = zip(self.utterances, self.utterances.seconds.tolist(), strict=True)
        return {each.utt_id: replace(each, seconds=seconds) for each, seconds in pairs}

    def drawn(self, utterances: int, seed: int) -> Iterator[Batch]:
        """A draw of utterances."""
        return track(probe(self.corpus, utterances, seed), f"listening to {self.data}", None, "batches")

    def batches(self, utt_ids: Iterable[str] | None = None) -> Iterator[Batch]:
        """These utterances, or all."""
        chosen = np.array([self.numbers[utt_id] for utt_id in utt_ids or self.numbers])
        plan = sampler.plan(Lengths(self.utterances.seconds[chosen]), self.corpus.batch, 0, 0)
        listed = [chosen[batch].tolist() for batch in map(list, plan)]
        return track(batches(self.corpus.dataset, listed), f"listening to {self.data}", len(listed), "batches")

    def one(self, utt_id: str | None) -> Batch:
        """One utterance, the first if none is named."""
        if utt_id is not None and utt_id not in self.numbers:
            raise UserError(f"{self.data}: no utterance {utt_id!r} in it: it begins with {next(iter(self.numbers))}")
        return self.corpus.dataset.batch([self.numbers[utt_id] if utt_id else 0], 0)


def load(place: Path, device: torch.device) -> SpeechLLM:
    """The model of an experiment, a checkpoint or a snapshot, in eval mode."""
    if not place.is_dir():
        raise UserError(f"{place}: no such folder: name an experiment, or a folder in its checkpoints or snapshots")
    return Experiment.holding(place).model(place).to(device)


@torch.inference_mode()
def listen(model: SpeechLLM, heard: Iterable[Batch], device: torch.device, layers: bool = False) -> Held:
    """Run encoder, CTC head and projector; with `layers` keep what each layer of the encoder gives, too."""
    held = Held()
    for batch in heard:
        batch = batch.to(device)
        with _taps(model.encoder if layers else None) as taps:
            frames, lens = model.encode(batch)
        log_probs = model.ctc(frames)
        held.utt_ids += batch.utt_ids
        for name, outputs in {**taps, ENCODER: frames}.items():
            held.layers.setdefault(name, []).extend(_rows(outputs, lens))
        held.log_probs += _rows(log_probs, lens)
        if model.projector is not None:
            positions, sizes = model.projector(frames, lens, log_probs)
            held.positions += _rows(positions, sizes)
            held.owners += _rows(_owners(model.projector, log_probs, lens, sizes), lens)
    if not all(bool(each.isfinite().all()) for rows in held.layers.values() for each in rows):
        raise UserError("the encoder gives values that are not finite: its training has failed")
    return held


def _rows(values: torch.Tensor, lens: torch.Tensor) -> list[torch.Tensor]:
    return [row[:size].cpu() for row, size in zip(values, lens.tolist(), strict=True)]


def _owners(projector: Any, log_probs: torch.Tensor, lens: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """(B, T) position of each frame, -1 where it has none."""
    if isinstance(projector, PosteriorProjector):
        return projector.owners(log_probs, lens)
    steps = torch.arange(log_probs.shape[1], device=lens.device).expand(log_probs.shape[:2])
    if isinstance(projector, LinearProjector | TransformerProjector):
        owners = steps // projector.stride  # the tail is dropped
    else:  # evenly
        owners = steps * sizes[:, None] // lens.clamp(min=1)[:, None]
    return owners.masked_fill(owners >= sizes[:, None], -1)


@contextmanager
def _taps(encoder: Any) -> Iterator[dict[str, torch.Tensor]]:
    """What the layers of an encoder give in a run, but for the last, whose output is the encoder's up to a norm."""
    taps: dict[str, torch.Tensor] = {}
    handles = []
    if encoder is not None:
        stack = blocks(encoder)
        stack = [each for each in stack if type(each) is type(stack[-1])]  # wav2vec's convolutions are blocks as well
        for number, block in enumerate(stack[:-1], 1):

            def keep(module: Any, given: Any, made: Any, name: str = f"layer {number}") -> None:
                taps[name] = made[0] if isinstance(made, tuple) else made

            handles.append(block.register_forward_hook(keep))
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def paired(one: Held, other: Held, sites: tuple[str, str], most: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Up to `most` frames (N, D) and (N, E) of two models that hear the same moments of the same utterances.

    Where one has more frames a second, each frame of the other is paired with its nearest one in time.
    """
    pairs = []
    for number in range(len(one.utt_ids)):
        (left, real), (right, there) = one.frames(sites[0], number), other.frames(sites[1], number)
        size = min(len(left), len(right))
        places = (torch.arange(size) + 0.5) / max(1, size)
        first, second = ((places * len(side)).long() for side in (left, right))
        kept = real[first] & there[second]
        pairs.append((left[first[kept]], right[second[kept]]))
    lefts, rights = (torch.cat(side) for side in zip(*pairs, strict=True))
    order = torch.randperm(len(lefts), generator=torch.Generator().manual_seed(seed))[:most].sort().values
    return lefts[order], rights[order]


def pooled(rows: Iterable[torch.Tensor]) -> np.ndarray:
    """All vectors (N, D) of some utterances, in float64."""
    return torch.cat(list(rows)).double().numpy()
