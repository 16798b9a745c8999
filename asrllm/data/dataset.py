"""Utterances by number, and a loader that makes the batches of a plan one ahead of their use.

What an item is depends on (its number, the epoch, the seed) alone, so results do not depend on prefetching, on the
rank or on where a run was resumed. It knows nothing of tokens or features; batch plans come from `asrllm.data.sampler`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from asrllm.batch import Batch, pad
from asrllm.console import UserError
from asrllm.data import audio, augment
from asrllm.data.kaldi import Utterance

_BATCHES_AHEAD = 2


class Dataset:
    """Utterances of a data directory as waves and texts.

    Args:
        utterances: from `asrllm.data.kaldi.read`.
        sample_rate: Hz of all waves.
        speed_factors: one of them is drawn for each utterance and epoch.
        seed: of these draws.
        frames: encoder outputs (T, D) of an utterance by its id; where given, no audio is read.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        sample_rate: int,
        speed_factors: Sequence[float] = (1.0,),
        seed: int = 0,
        frames: Callable[[str], torch.Tensor] | None = None,
    ) -> None:
        if frames is not None and tuple(speed_factors) != (1.0,):
            raise UserError("speed perturbation changes the audio, so encoder outputs cannot be cached: turn one off")
        self.utterances = utterances
        self.sample_rate = sample_rate
        self.speed_factors = speed_factors
        self.seed = seed
        self.frames = frames

    def __len__(self) -> int:
        return len(self.utterances)

    def seconds(self, epoch: int) -> list[float]:
        """Length of every utterance in an epoch, speed perturbation counted in; opens only files without `utt2dur`."""
        return [audio.seconds(utterance) / self._factor(utterance, epoch) for utterance in self.utterances]

    def item(self, index: int, epoch: int) -> tuple[torch.Tensor, str]:
        """The wave (S,) and the text of one utterance in an epoch."""
        utterance = self.utterances[index]
        wave = audio.load(utterance, self.sample_rate)
        return augment.speed(wave, self._factor(utterance, epoch)), utterance.text

    def batch(self, indices: Sequence[int], epoch: int) -> Batch:
        """Some utterances, padded; with encoder outputs instead of waves where `frames` is given."""
        chosen = [self.utterances[index] for index in indices]
        utt_ids = [utterance.utt_id for utterance in chosen]
        if self.frames is not None:
            frames, frame_lens = pad([self.frames(utt_id) for utt_id in utt_ids])
            samples = [round(audio.seconds(utterance) * self.sample_rate) for utterance in chosen]
            texts = [utterance.text for utterance in chosen]
            return Batch(utt_ids, texts, None, torch.tensor(samples), frames, frame_lens)
        items = [self.item(index, epoch) for index in indices]
        waves, wave_lens = pad([wave for wave, _ in items])
        return Batch(utt_ids, [text for _, text in items], waves, wave_lens)

    def _factor(self, utterance: Utterance, epoch: int) -> float:
        return augment.draw_factor(self.speed_factors, self.seed, epoch, utterance.utt_id)


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
