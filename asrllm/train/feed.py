"""The micro-batches of each step, in the order of a plan and without those that a run leaves out.

It knows epochs and numbers of batches; not what is in them.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from asrllm.batch import Batch


class Loader(Protocol):
    """Training batches: as many on every rank, a pure function of the epoch."""

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""

    def count(self, epoch: int) -> int:
        """How many batches an epoch has."""


@dataclass(frozen=True)
class Group:
    """What one step is made of."""

    batches: list[Batch]
    numbers: list[int]  # of the micro-batches in their epoch

    @property
    def utt_ids(self) -> list[str]:
        """Of all utterances of this process."""
        return [utt_id for batch in self.batches for utt_id in batch.utt_ids]


class Feed:
    """Batches for steps of `accumulate` micro-batches.

    Args:
        loader: makes the batches.
        accumulate: how many make a step; the last step of an epoch may have fewer.
        left_out: (epoch, number) of batches that are passed over.
        device: where to put batches.
    """

    def __init__(
        self, loader: Loader, accumulate: int, left_out: Collection[tuple[int, int]], device: torch.device
    ) -> None:
        self.loader, self.accumulate, self.left_out, self.device = loader, accumulate, left_out, device

    def steps(self, epoch: int) -> int:
        """How many steps an epoch has."""
        out = sum(each == epoch for each, _ in self.left_out)
        return math.ceil((self.loader.count(epoch) - out) / self.accumulate)

    def place(self, epoch: int, number: int) -> tuple[int, int]:
        """Where the first batch stands that is not left out, from a place on: its epoch and number."""
        while (epoch, number) in self.left_out:
            number += 1
        if number < self.loader.count(epoch):
            return epoch, number
        return self.place(epoch + 1, 0) if (epoch + 1, 0) in self.left_out else (epoch + 1, 0)

    def groups(self, epoch: int, start: int) -> Iterator[Group]:
        """What each step is made of, from batch number `start` to the end of the epoch."""
        group = Group([], [])
        for number, batch in enumerate(self.loader.batches(epoch, start), start):
            if (epoch, number) in self.left_out:
                continue
            group.batches.append(batch.to(self.device))
            group.numbers.append(number)
            if len(group.batches) == self.accumulate:
                yield group
                group = Group([], [])
        if group.batches:
            yield group
