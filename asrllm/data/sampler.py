"""Which utterances share a batch, and in which order the batches come: a pure function, no state.

A plan follows from (lengths, config, seed, epoch, world size), so that all ranks agree without talking, and resuming
takes two integers: the epoch and the number of batches done. Utterances of like duration stand together; every one
occurs exactly once in an epoch over all ranks, and all ranks have equally many batches. Everything is held in arrays:
ten million utterances take some seconds.
"""

import itertools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from asrllm.config import Config
from asrllm.console import UserError

_AT_ONCE = 1 << 20  # utterances that are Python numbers at a time


@dataclass(frozen=True)
class Lengths:
    """What each of N utterances takes of a batch."""

    seconds: NDArray[np.float64]  # (N,)
    tokens: NDArray[np.int32] | None = None  # (N,); None where no limit asks for them

    def __len__(self) -> int:
        return len(self.seconds)


class BatchConfig(Config):
    """Limits of a batch on one rank; seconds and tokens count padding: utterances times the longest of them."""

    max_seconds: float = Field(default=120.0, gt=0)
    max_tokens: int = Field(default=0, ge=0)  # 0: no limit
    max_utterances: int = Field(default=0, ge=0)  # 0: no limit
    jitter: float = Field(default=0.1, ge=0)  # durations are sorted after a random change of up to this share
    min_seconds_utterance: float = Field(default=0.1, ge=0)  # shorter utterances are left out
    max_seconds_utterance: float = Field(default=30.0, gt=0)  # longer ones too


def select(lengths: Lengths, config: BatchConfig) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Numbers of the utterances to train on, and why each of the others is left out."""
    seconds = lengths.seconds
    fits = (seconds >= config.min_seconds_utterance) & (
        seconds <= min(config.max_seconds_utterance, config.max_seconds)
    )
    if config.max_tokens and lengths.tokens is not None:
        fits &= lengths.tokens <= config.max_tokens
    return np.flatnonzero(fits), {
        int(number): _why_not(lengths, int(number), config) for number in np.flatnonzero(~fits)
    }


def _why_not(lengths: Lengths, number: int, config: BatchConfig) -> str:
    seconds = lengths.seconds[number]
    if seconds < config.min_seconds_utterance:
        return f"{seconds:.2f} s, less than min_seconds_utterance {config.min_seconds_utterance:g}"
    if seconds > config.max_seconds_utterance:
        return f"{seconds:.2f} s, more than max_seconds_utterance {config.max_seconds_utterance:g}"
    if seconds > config.max_seconds:
        return f"{seconds:.2f} s, more than max_seconds {config.max_seconds:g} of a batch"
    assert lengths.tokens is not None
    return f"{lengths.tokens[number]} tokens, more than max_tokens {config.max_tokens} of a batch"


class Plan:
    """The batches of one rank in one epoch; each is a list of numbers of utterances.

    Args:
        order: all utterances, those of a batch one after another.
        starts: where each batch begins in it, and where the last one ends.
        chosen: numbers of the batches of this rank, in their order.
    """

    def __init__(self, order: NDArray[np.int64], starts: NDArray[np.int64], chosen: NDArray[np.int64]) -> None:
        self.order, self.starts, self.chosen = order, starts, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> list[int]:
        batch = self.chosen[number]
        return self.order[self.starts[batch] : self.starts[batch + 1]].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return (self[number] for number in range(len(self)))

    def padding_share(self, seconds: NDArray[np.float64]) -> float:
        """Share of the seconds in the batches that is padding, 0 to 1."""
        if not len(self):
            return 0.0
        padded = _padded(seconds[self.order], self.starts)[self.chosen].sum()
        return float(1 - np.add.reduceat(seconds[self.order], self.starts[:-1])[self.chosen].sum() / padded)


def plan(lengths: Lengths, config: BatchConfig, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Plan:
    """The batches of one rank in one epoch.

    Batches that the ranks work on at the same time hold utterances of like durations. In epoch 0 the largest batch
    comes first, so that a lack of memory shows at once. An utterance above a limit gets a batch of its own (`select`
    leaves it out).

    Raises:
        UserError: fewer batches can be made than there are ranks, or batches of one cannot be shared out evenly.
    """
    generator = np.random.default_rng([seed, epoch])
    jittered = generator.uniform(-1, 1, len(lengths))
    jittered *= config.jitter
    jittered += 1
    jittered *= lengths.seconds
    order = np.argsort(jittered, kind="stable")
    seconds = lengths.seconds[order]
    starts = _share_out(_fill(seconds, None if lengths.tokens is None else lengths.tokens[order], config), world)
    groups = generator.permutation((len(starts) - 1) // world)
    if epoch == 0 and len(groups):
        largest = np.argmax(_padded(seconds, starts)) // world
        groups = np.concatenate([[largest], groups[groups != largest]])
    return Plan(order, starts, groups * world + rank)


def plan_alike(seconds: NDArray[np.float64], max_seconds: float) -> Plan:
    """Batches of utterances of like durations, the largest first, each utterance once: for inference."""
    return plan(Lengths(seconds), BatchConfig(max_seconds=max_seconds, jitter=0.0), 0, 0)


def _fill(seconds: NDArray[np.float64], tokens: NDArray[np.int32] | None, config: BatchConfig) -> NDArray[np.int64]:
    """Cut utterances in their order into batches, each as full as the limits allow; where each begins, and the end."""
    most_tokens, most_utterances = config.max_tokens or np.inf, config.max_utterances or np.inf
    starts = array("q")
    number, count, longest, most = 0, 0, 0.0, 0
    for first in range(0, len(seconds), _AT_ONCE):
        chunk = slice(first, first + _AT_ONCE)
        sizes = itertools.repeat(0) if tokens is None else tokens[chunk].tolist()
        for length, size in zip(seconds[chunk].tolist(), sizes, strict=False):
            count += 1
            longest = length if length > longest else longest
            most = size if size > most else most
            if (
                number == 0
                or count * longest > config.max_seconds
                or count * most > most_tokens
                or count > most_utterances
            ):
                starts.append(number)
                count, longest, most = 1, length, size
            number += 1
    return np.array([*starts, number] if number else [0], dtype=np.int64)


def _share_out(starts: NDArray[np.int64], world: int) -> NDArray[np.int64]:
    """Halve batches, those of most utterances first, until every rank gets equally many."""
    while (count := len(starts) - 1) % world:
        sizes = np.diff(starts)
        largest = int(sizes.argmax())
        if sizes[largest] < 2:
            raise UserError(
                f"{count} batches of one utterance cannot be shared out among {world} processes: "
                "raise max_seconds of the batch, or start fewer processes"
            )
        starts = np.insert(starts, largest + 1, starts[largest] + sizes[largest] // 2)
    return starts


def _padded(seconds: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds of each batch with its padding."""
    if len(starts) < 2:
        return np.zeros(0)
    return np.diff(starts) * np.maximum.reduceat(seconds, starts[:-1])
