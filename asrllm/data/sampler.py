"""Which utterances share a batch, and in which order the batches come: a pure function, no state.

A plan follows from (lengths, config, seed, epoch, world size), so that all ranks agree without talking, and resuming
takes two integers: the epoch and the number of batches done. Utterances of like duration stand together; every one
occurs exactly once in an epoch over all ranks, and all ranks have equally many batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.data.kaldi import Utterance


@dataclass(frozen=True)
class Length:
    """What an utterance takes of a batch."""

    seconds: float
    tokens: int


@dataclass(frozen=True)
class Skipped:
    """An utterance that is left out of training, and why."""

    utt_id: str
    why: str


class BatchConfig(Config):
    """Limits of a batch on one rank; seconds and tokens count padding: utterances times the longest of them."""

    max_seconds: float = Field(default=120.0, gt=0)
    max_tokens: int = Field(default=0, ge=0)  # 0: no limit
    max_utterances: int = Field(default=0, ge=0)  # 0: no limit
    jitter: float = Field(default=0.1, ge=0)  # durations are sorted after a random change of up to this share
    min_seconds_utterance: float = Field(default=0.1, ge=0)  # shorter utterances are left out
    max_seconds_utterance: float = Field(default=30.0, gt=0)  # longer ones too


def select(
    utterances: Sequence[Utterance], lengths: Sequence[Length], config: BatchConfig
) -> tuple[list[int], list[Skipped]]:
    """Indices of the utterances to train on, and the others with the reason."""
    kept, skipped = [], []
    for index, (utterance, length) in enumerate(zip(utterances, lengths, strict=True)):
        why = _why_not(length, config)
        if why is None:
            kept.append(index)
        else:
            skipped.append(Skipped(utterance.utt_id, why))
    return kept, skipped


def _why_not(length: Length, config: BatchConfig) -> str | None:
    if length.seconds < config.min_seconds_utterance:
        return f"{length.seconds:.2f} s, less than min_seconds_utterance {config.min_seconds_utterance:g}"
    if length.seconds > config.max_seconds_utterance:
        return f"{length.seconds:.2f} s, more than max_seconds_utterance {config.max_seconds_utterance:g}"
    if length.seconds > config.max_seconds:
        return f"{length.seconds:.2f} s, more than max_seconds {config.max_seconds:g} of a batch"
    if config.max_tokens and length.tokens > config.max_tokens:
        return f"{length.tokens} tokens, more than max_tokens {config.max_tokens} of a batch"
    return None


def plan(
    lengths: Sequence[Length], config: BatchConfig, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> list[list[int]]:
    """The batches of one rank in one epoch, each a list of indices into `lengths`.

    Batches that the ranks work on at the same time are alike in size. In epoch 0 the largest come first, so that
    a lack of memory shows at once. An utterance above a limit gets a batch of its own (`select` leaves it out).

    Raises:
        UserError: fewer batches can be made than there are ranks, or batches of one cannot be shared out evenly.
    """
    generator = np.random.default_rng([seed, epoch])
    seconds = np.array([length.seconds for length in lengths])
    order = np.argsort(seconds * (1 + config.jitter * generator.uniform(-1, 1, len(lengths))), kind="stable")
    batches = _share_out(_fill([int(index) for index in order], lengths, config), world)
    batches.sort(key=lambda batch: _padded_seconds(batch, lengths))
    groups = [batches[first : first + world] for first in range(0, len(batches), world)]
    shuffled = [groups[index] for index in generator.permutation(len(groups))]
    if epoch == 0 and groups:
        shuffled.remove(groups[-1])
        shuffled.insert(0, groups[-1])
    return [group[rank] for group in shuffled]


def _fill(order: list[int], lengths: Sequence[Length], config: BatchConfig) -> list[list[int]]:
    """Cut an order into batches, each as full as the limits allow."""
    batches: list[list[int]] = []
    longest, most = 0.0, 0
    for index in order:
        longest, most = max(longest, lengths[index].seconds), max(most, lengths[index].tokens)
        count = len(batches[-1]) + 1 if batches else 1
        fits = (
            count * longest <= config.max_seconds
            and (not config.max_tokens or count * most <= config.max_tokens)
            and (not config.max_utterances or count <= config.max_utterances)
        )
        if batches and fits:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest, most = lengths[index].seconds, lengths[index].tokens
    return batches


def _share_out(batches: list[list[int]], world: int) -> list[list[int]]:
    """Halve batches, those of most utterances first, until every rank gets equally many."""
    while len(batches) % world:
        largest = max(range(len(batches)), key=lambda place: len(batches[place]))
        batch = batches[largest]
        if len(batch) < 2:
            raise UserError(
                f"{len(batches)} batches of one utterance cannot be shared out among {world} processes: "
                "raise max_seconds of the batch, or start fewer processes"
            )
        batches[largest : largest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    return batches


def _padded_seconds(batch: list[int], lengths: Sequence[Length]) -> float:
    return len(batch) * max(lengths[index].seconds for index in batch)


def padding_share(batches: Sequence[list[int]], lengths: Sequence[Length]) -> float:
    """Share of the seconds in `batches` that is padding, 0 to 1."""
    padded = sum(_padded_seconds(batch, lengths) for batch in batches)
    real = sum(lengths[index].seconds for batch in batches for index in batch)
    return 1 - real / padded if padded else 0.0
