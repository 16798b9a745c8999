"""How long a stretch of training is: a number of steps, of model FLOPs, or of hours of audio.

The end is the first step at which the budget is spent. It knows counts; not parts or losses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

from asrllm.train import swap
from asrllm.train.position import Position
from asrllm.train.stage import Phase


@dataclass(frozen=True)
class Budget:
    """An amount in one unit."""

    amount: float
    unit: Literal["steps", "flops", "audio_hours"]

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit.replace('_', ' ')}"

    @classmethod
    def of_phase(cls, phase: Phase, first_epoch: int, steps: Callable[[int], int]) -> "Budget":
        """That of a phase that begins with `first_epoch`; an epoch has `steps(epoch)` steps."""
        size, unit = phase.budget
        match unit:
            case "epochs":
                epochs = range(first_epoch, first_epoch + int(size))
                return cls(sum(map(steps, epochs)), "steps")
            case "flops" | "audio_hours":
                return cls(size, unit)
        return cls(size, "steps")

    def of_turn(self, shares: Sequence[float], turn: int, last: bool) -> "Budget":
        """The part of a phase that has one encoder; the last encoder takes all that is left."""
        if self.unit == "steps":
            return replace(self, amount=swap.turn_steps(int(self.amount), shares, turn, last))
        begin = [0.0, *accumulate(shares)][turn]
        return replace(self, amount=self.amount * (1 - begin if last else shares[turn]))

    def spent(self, at: Position) -> float:
        """How much of it is."""
        match self.unit:
            case "steps":
                return at.phase_step
            case "flops":
                return at.phase_flops
            case "audio_hours":
                return at.phase_audio_seconds / 3600

    def share(self, at: Position) -> float:
        """How much of it is, 0 to 1; at 1 the stretch ends."""
        spent = self.spent(at)
        return 1.0 if spent >= self.amount else spent / self.amount

    def place(self, at: Position) -> float:
        """Where the step to come stands in a schedule, 0 to 1: counted in steps, the last one at 1."""
        return at.phase_step / max(1.0, self.amount - 1) if self.unit == "steps" else self.share(at)

    def marks(self, at: Position) -> int:
        """Where a progress bar of `size` stands."""
        return int(self.share(at) * self.size)

    @property
    def size(self) -> int:
        """Length of a progress bar: steps, else percent."""
        return int(self.amount) if self.unit == "steps" else 100
