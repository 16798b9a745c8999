"""Examples by number, and a loader that makes the batches of a plan one ahead of their use.

What an item is depends on (its number, the epoch, the seed) alone, so results do not depend on prefetching, on the
rank or on where a run was resumed. It knows nothing of tokens or features; batch plans come from `asrllm.data.sampler`.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from asrllm.batch import Batch, pad
from asrllm.console import UserError
from asrllm.data import audio
from asrllm.data import augment as augments
from asrllm.data.augment import PLAIN, AugmentConfig, Augmenter, JoinConfig, generator
from asrllm.data.clips import Clips
from asrllm.data.index import Utterances
from asrllm.data.kaldi import Utterance
from asrllm.data.sampler import Plan

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Item:
    """One example of an epoch."""

    utt_id: str
    members: tuple[int, ...]  # utterances one after another; none: a clip without speech
    seconds: float


@dataclass(frozen=True)
class Examples:
    """All examples of an epoch by number: utterances in their order, some of them joined, then clips without speech."""

    utterances: Utterances
    factors: NDArray[np.float64] | None  # speed of each utterance; None: all at 1
    joined: tuple[NDArray[np.int64], NDArray[np.int64]] | None  # see `join`; None: every utterance for itself
    seconds: NDArray[np.float64]  # of each example, all changes counted in

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, number: int) -> Item:
        members = self._members(number)
        named = "+".join(self.utterances[member].utt_id for member in members)
        return Item(named or f"no-speech-{number - self.spoken}", members, float(self.seconds[number]))

    def __iter__(self) -> Iterator[Item]:
        return (self[number] for number in range(len(self)))

    @property
    def spoken(self) -> int:
        """How many examples hold speech."""
        return len(self.utterances) if self.joined is None else len(self.joined[1]) - 1

    def factor(self, member: int) -> float:
        """The speed of an utterance."""
        return 1.0 if self.factors is None else float(self.factors[member])

    def sums(self, counts: NDArray[np.int32]) -> NDArray[np.int32]:
        """What the utterances have of something, for each example."""
        spoken = counts if self.joined is None else np.add.reduceat(counts[self.joined[0]], self.joined[1][:-1])
        return np.pad(spoken, (0, len(self) - self.spoken))

    def _members(self, number: int) -> tuple[int, ...]:
        if number >= self.spoken:
            return ()
        if self.joined is None:
            return (number,)
        members, starts = self.joined
        return tuple(members[starts[number] : starts[number + 1]].tolist())


class Dataset:
    """Utterances of a data directory as waves and texts, changed in training.

    Args:
        utterances: from `asrllm.data.index.read`, or any in memory.
        sample_rate: Hz of all waves.
        speed_factors: one of them is drawn for each utterance and epoch.
        seed: of these draws and those of `augment`.
        frames: encoder outputs (T, D) of an utterance by its id; where given, no audio is read.
        augment: noise, rooms, examples without speech, utterances joined.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance] | Utterances,
        sample_rate: int,
        speed_factors: Sequence[float] = (1.0,),
        seed: int = 0,
        frames: Callable[[str], torch.Tensor] | None = None,
        augment: AugmentConfig = PLAIN,
    ) -> None:
        if frames is not None and (tuple(speed_factors) != (1.0,) or augment != PLAIN):
            raise UserError(
                "speed_factors and augment change the audio, so encoder outputs cannot be cached: turn one of them off"
            )
        self.utterances = utterances if isinstance(utterances, Utterances) else Utterances.of(utterances)
        self.sample_rate = sample_rate
        self.speed_factors = speed_factors
        self.seed = seed
        self.frames = frames
        self.augment = augment
        self._augmenter = Augmenter(augment, sample_rate, seed)
        self._silent = Clips(augment.empty.folders, sample_rate) if augment.empty else None
        self.items = lru_cache(maxsize=2)(self._items)

    def __len__(self) -> int:
        return len(self.utterances)

    def seconds(self, epoch: int) -> NDArray[np.float64]:
        """Length of every example of an epoch, all changes counted in."""
        return self.items(epoch).seconds

    def item(self, index: int, epoch: int) -> tuple[torch.Tensor, str]:
        """The wave (S,) and the text of one example of an epoch."""
        item = self.items(epoch)[index]
        if not item.members:
            return self._clip(item, epoch), ""
        members = [self.utterances[member] for member in item.members]
        factors = [self.items(epoch).factor(member) for member in item.members]
        waves = [
            augments.speed(audio.load(each, self.sample_rate), factor)
            for each, factor in zip(members, factors, strict=True)
        ]
        wave = waves[0] if len(waves) == 1 else torch.cat(waves)
        wave = self._augmenter.apply(wave, self._augmenter.draw(epoch, item.utt_id))
        return wave, " ".join(each.text for each in members if each.text)

    def batch(self, indices: Sequence[int], epoch: int) -> Batch:
        """Some examples, padded; with encoder outputs instead of waves where `frames` is given."""
        utt_ids = [self.items(epoch)[index].utt_id for index in indices]
        if self.frames is not None:
            chosen = [self.utterances[index] for index in indices]
            frames, frame_lens = pad([self.frames(utt_id) for utt_id in utt_ids])
            samples = [round(audio.seconds(utterance) * self.sample_rate) for utterance in chosen]
            texts = [utterance.text for utterance in chosen]
            return Batch(utt_ids, texts, None, torch.tensor(samples), frames, frame_lens)
        items = [self.item(index, epoch) for index in indices]
        waves, wave_lens = pad([wave for wave, _ in items])
        return Batch(utt_ids, [text for _, text in items], waves, wave_lens)

    def outline(self, indices: Sequence[int], epoch: int) -> Batch:
        """The same examples without their audio: ids, texts and lengths."""
        items = [self.items(epoch)[index] for index in indices]
        texts = [" ".join(self.utterances[member].text for member in item.members) for item in items]
        samples = torch.tensor([round(item.seconds * self.sample_rate) for item in items])
        return Batch([item.utt_id for item in items], texts, None, samples)

    def _items(self, epoch: int) -> Examples:
        utterances, factors, joined = self.utterances, None, None
        seconds = utterances.seconds
        if tuple(self.speed_factors) != (1.0,):
            factors = augments.draw_factors(self.speed_factors, self.seed, epoch, len(utterances))
            seconds = seconds / factors
        if self.augment.join is not None:
            joined = join(utterances.seconds, self.augment.join, self.seed, epoch)
            seconds = np.add.reduceat(seconds[joined[0]], joined[1][:-1])
        if self.augment.noise is not None:
            changes = (
                self._augmenter.draw(epoch, item.utt_id) for item in Examples(utterances, factors, joined, seconds)
            )
            silences = np.fromiter((change.before + change.after for change in changes), np.float64, len(seconds))
            seconds = seconds + silences / self.sample_rate
        if (empty := self.augment.empty) is not None:
            draws = (
                generator(self.seed, epoch, f"no-speech-{number}").uniform(empty.min_seconds, empty.max_seconds)
                for number in range(round(empty.share * len(utterances)))
            )
            seconds = np.append(seconds, [round(each * self.sample_rate) / self.sample_rate for each in draws])
        return Examples(utterances, factors, joined, seconds)

    def _clip(self, item: Item, epoch: int) -> torch.Tensor:
        assert self._silent is not None
        draws = generator(self.seed, epoch, item.utt_id, "clip")
        number, place = int(draws.integers(len(self._silent.paths))), float(draws.random())
        return self._silent.piece(number, place, round(item.seconds * self.sample_rate))


def join(
    seconds: NDArray[np.float64], config: JoinConfig, seed: int, epoch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which utterances of an epoch are spoken one after another.

    Returns:
        All utterances, those of an example one after another; where each example begins in them, and the end. Examples
        are ordered by their first utterances.
    """
    draws = generator(seed, epoch, "join")
    members = draws.permutation(len(seconds))
    follows = draws.random(len(seconds)) < config.share
    starts, total = array("q"), 0.0
    for place, (size, wanted) in enumerate(zip(seconds[members].tolist(), follows.tolist(), strict=True)):
        if place and wanted and total + size <= config.max_seconds:
            total += size
        else:
            starts.append(place)
            total = size
    bounds = np.array([*starts, len(members)])
    order = np.argsort(members[bounds[:-1]])
    sizes = np.diff(bounds)[order]
    ends = np.cumsum(sizes)
    places = np.arange(len(members)) + np.repeat(bounds[:-1][order] - (ends - sizes), sizes)
    return members[places], np.concatenate([np.zeros(1, np.int64), ends])


def batches(dataset: Dataset, plan: Sequence[Sequence[int]] | Plan, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
    """The batches of a plan in its order, from number `start` on, made by one thread ahead of their use.

    Closing the iterator, or leaving its loop by an error, ends the thread.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    waiting: deque[Future[Batch]] = deque()
    try:
        for number in range(start, len(plan)):
            waiting.append(pool.submit(dataset.batch, plan[number], epoch))
            if len(waiting) > _BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
