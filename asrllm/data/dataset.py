"""Examples by number, and a loader that makes the batches of a plan one ahead of their use.

What an item is depends on (its number, the epoch, the seed) alone, so results do not depend on prefetching, on the
rank or on where a run was resumed. It knows nothing of tokens or features; batch plans come from `asrllm.data.sampler`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch

from asrllm.batch import Batch, pad
from asrllm.console import UserError
from asrllm.data import audio
from asrllm.data import augment as augments
from asrllm.data.augment import PLAIN, AugmentConfig, Augmenter, JoinConfig, generator
from asrllm.data.clips import Clips
from asrllm.data.kaldi import Utterance

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Item:
    """One example of an epoch."""

    utt_id: str
    members: tuple[int, ...]  # utterances one after another; none: a clip without speech
    seconds: float


class Dataset:
    """Utterances of a data directory as waves and texts, changed in training.

    Args:
        utterances: from `asrllm.data.kaldi.read`.
        sample_rate: Hz of all waves.
        speed_factors: one of them is drawn for each utterance and epoch.
        seed: of these draws and those of `augment`.
        frames: encoder outputs (T, D) of an utterance by its id; where given, no audio is read.
        augment: noise, rooms, examples without speech, utterances joined.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
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
        self.utterances = utterances
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

    def seconds(self, epoch: int) -> list[float]:
        """Length of every example of an epoch, all changes counted in; opens only files without `utt2dur`."""
        return [item.seconds for item in self.items(epoch)]

    def item(self, index: int, epoch: int) -> tuple[torch.Tensor, str]:
        """The wave (S,) and the text of one example of an epoch."""
        item = self.items(epoch)[index]
        if not item.members:
            return self._clip(item, epoch), ""
        members = [self.utterances[member] for member in item.members]
        waves = [augments.speed(audio.load(each, self.sample_rate), self._factor(each, epoch)) for each in members]
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

    def _items(self, epoch: int) -> list[Item]:
        """The examples of an epoch: utterances in their order, some of them joined, then clips without speech."""
        made = []
        for members in join([audio.seconds(each) for each in self.utterances], self.augment.join, self.seed, epoch):
            chosen = [self.utterances[member] for member in members]
            utt_id = "+".join(each.utt_id for each in chosen)
            change = self._augmenter.draw(epoch, utt_id)
            seconds = sum(audio.seconds(each) / self._factor(each, epoch) for each in chosen)
            made.append(Item(utt_id, members, seconds + (change.before + change.after) / self.sample_rate))
        if (empty := self.augment.empty) is not None:
            for number in range(round(empty.share * len(self.utterances))):
                utt_id = f"no-speech-{number}"
                draws = generator(self.seed, epoch, utt_id)
                samples = round(draws.uniform(empty.min_seconds, empty.max_seconds) * self.sample_rate)
                made.append(Item(utt_id, (), samples / self.sample_rate))
        return made

    def _clip(self, item: Item, epoch: int) -> torch.Tensor:
        assert self._silent is not None
        draws = generator(self.seed, epoch, item.utt_id, "clip")
        number, place = int(draws.integers(len(self._silent.paths))), float(draws.random())
        return self._silent.piece(number, place, round(item.seconds * self.sample_rate))

    def _factor(self, utterance: Utterance, epoch: int) -> float:
        return augments.draw_factor(self.speed_factors, self.seed, epoch, utterance.utt_id)


def join(seconds: Sequence[float], config: JoinConfig | None, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Which utterances of an epoch are spoken one after another: each in one tuple, ordered by their first ones."""
    if config is None:
        return [(index,) for index in range(len(seconds))]
    draws = generator(seed, epoch, "join")
    made: list[list[int]] = []
    total = 0.0
    for index in draws.permutation(len(seconds)).tolist():
        follows = draws.random() < config.share
        if made and follows and total + seconds[index] <= config.max_seconds:
            made[-1].append(index)
            total += seconds[index]
        else:
            made.append([index])
            total = seconds[index]
    return sorted(map(tuple, made))


def batches(dataset: Dataset, plan: Sequence[Sequence[int]], epoch: int = 0, start: int = 0) -> Iterator[Batch]:
    """The batches of a plan in its order, from number `start` on, made by one thread ahead of their use.

    Closing the iterator, or leaving its loop by an error, ends the thread.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    waiting: deque[Future[Batch]] = deque()
    try:
        for indices in plan[start:]:
            waiting.append(pool.submit(dataset.batch, indices, epoch))
            if len(waiting) > _BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
