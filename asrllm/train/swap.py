"""Which snapshots of a pretraining serve as the frozen encoder, in turn: the rule of iterative asynchronous SFT.

NIM4-ASR (section on IA-SFT; its numbers are the defaults): where CKA of the pretraining's encoder to the last reference
falls below a threshold, that encoder is taken and becomes the reference; the finished one comes last. The cap, the ways
out of it and the fixed shares of the steps are ours. It knows snapshots and a measure between two; not models.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

from pydantic import Field, model_validator

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.train.cka import CkaConfig
from asrllm.train.snapshot import Snapshot

log = logging.getLogger("asrllm")


class SwapConfig(Config):
    """Which encoders a phase trains on, each for its share of the steps.

    `replay` walks the snapshots of a pretraining that has ended; where the rule finds none, or more than there are
    shares for, it takes them at equal arc lengths of CKA. `online` takes them from a pretraining that still runs, and
    waits for it where it must. `fixed` takes those nearest to given fractions of the pretraining.
    """

    mode: Literal["replay", "online", "fixed"] = "replay"
    pretraining: str  # experiment folder
    parts: tuple[str, ...] = ("encoder", "ctc")  # the projector may read the CTC head, so it goes with its encoder
    shares: tuple[float, ...] = Field(default=(0.25, 0.25, 0.5), min_length=1)  # of the steps, for each encoder in turn
    threshold: float = Field(default=0.975, gt=0, lt=1)  # of CKA
    start: float = Field(default=0.25, ge=0, lt=1)  # share of the pretraining from which it is watched
    fractions: tuple[float, ...] = ()  # of the pretraining, for mode fixed; 1 is its end
    cka: CkaConfig = CkaConfig()
    poll_seconds: float = Field(default=10.0, gt=0)  # online: how often to look for a new snapshot
    max_wait_hours: float = Field(default=24.0, gt=0)  # online: for the next one

    @model_validator(mode="after")
    def _fits(self) -> "SwapConfig":
        if min(self.shares) < 0 or not math.isclose(sum(self.shares), 1, abs_tol=1e-6):
            raise ValueError(f"shares: expected numbers that add up to 1, found {list(self.shares)}")
        if (self.mode == "fixed") != bool(self.fractions):
            raise ValueError("fractions belong to mode fixed: give both or neither")
        if self.fractions and len(self.fractions) != len(self.shares):
            raise ValueError(f"give as many fractions as shares, found {len(self.fractions)} and {len(self.shares)}")
        if (
            any(later <= earlier for earlier, later in pairwise((0.0, *self.fractions)))
            or max(self.fractions, default=1) > 1
        ):
            raise ValueError(f"fractions: expected ascending numbers above 0, up to 1, found {list(self.fractions)}")
        return self

    @property
    def most(self) -> int:
        """How often the rule may fire: the finished encoder has the last share."""
        return len(self.shares) - 1


@dataclass(frozen=True)
class Watched:
    """One value of CKA between two moments of a pretraining, by step."""

    snapshot: int
    reference: int
    cka: float


@dataclass(frozen=True)
class Choice:
    """An encoder that was chosen, and why."""

    folder: str  # with weights.safetensors
    step: int  # of the pretraining
    reason: str
    last: bool  # no other comes after it
    watched: tuple[Watched, ...] = ()  # since the choice before

    @classmethod
    def of(cls, tree: dict[str, Any]) -> "Choice":
        """A choice from what `dataclasses.asdict` made of it."""
        return cls(**{**tree, "watched": tuple(Watched(**each) for each in tree["watched"])})


Measure = Callable[[Snapshot, Snapshot], float]  # CKA


class Walk:
    """The rule, snapshot by snapshot.

    Args:
        config: threshold and start.
        measure: CKA of two snapshots.
        reference: where the walk goes on; none at its start.
    """

    def __init__(self, config: SwapConfig, measure: Measure, reference: Snapshot | None = None) -> None:
        self.config, self.measure, self.reference = config, measure, reference
        self.watched: list[Watched] = []

    def see(self, snapshot: Snapshot, armed: bool = True) -> Choice | None:
        """Watch the next snapshot; where the rule fires and it is armed, choose it.

        The first from `start` on becomes the reference.
        """
        if snapshot.share < self.config.start:
            return None
        if self.reference is None:
            self.reference = snapshot
            return None
        value = self._watch(snapshot, self.reference)
        if not armed or not value < self.config.threshold:
            return None
        reason = f"CKA {value:.4f} to step {self.reference.step} is below {self.config.threshold:g}"
        self.reference = snapshot
        return self._choice(snapshot, reason, False)

    def end(self, final: Snapshot) -> Choice:
        """The finished encoder, whatever its CKA."""
        if self.reference is not None:
            self._watch(final, self.reference)
        return self._choice(final, "the pretraining ended here", True)

    def _watch(self, snapshot: Snapshot, reference: Snapshot) -> float:
        value = self.measure(snapshot, reference)
        self.watched.append(Watched(snapshot.step, reference.step, value))
        log.info("pretraining step %d: CKA %.4f to step %d", snapshot.step, value, reference.step)
        return value

    def _choice(self, snapshot: Snapshot, reason: str, last: bool) -> Choice:
        watched, self.watched = tuple(self.watched), []
        return Choice(str(snapshot.folder), snapshot.step, reason, last, watched)


def replay(snapshots: Sequence[Snapshot], final: Snapshot, config: SwapConfig, measure: Measure) -> list[Choice]:
    """The encoders of a pretraining that has ended, by the rule or else at equal arc lengths."""
    walk = Walk(config, measure)
    stops = [*(each for each in snapshots if each.share >= config.start), final]
    chosen, steps = [], []
    for place, each in enumerate(stops):
        choice = walk.end(each) if each is final else walk.see(each)
        if choice is not None:
            chosen.append(choice)
        if place > 0:  # now, while the outputs of both are at hand
            before = stops[place - 1]
            steps.append(Watched(each.step, before.step, measure(each, before)))
    fired = len(chosen) - 1
    if 1 <= fired <= config.most:
        return chosen
    log.warning(
        "CKA fell below %g %d times, wanted are 1 to %d: the encoders are taken at equal arc lengths of CKA instead; "
        "threshold and shares decide",
        config.threshold,
        fired,
        config.most,
    )
    watched = tuple(value for choice in chosen for value in choice.watched)
    return _by_arc(stops, config, steps, watched)


def _by_arc(
    stops: Sequence[Snapshot], config: SwapConfig, steps: Sequence[Watched], watched: tuple[Watched, ...]
) -> list[Choice]:
    """As many encoders as shares, at equal distances on the way from the first snapshot to the last weights (ours).

    CKA is the cosine of the angle between two centred kernels, so the way is the sum of these angles.
    """
    *snapshots, final = stops
    way = [0.0, *accumulate(math.acos(min(1.0, step.cka)) for step in steps)]
    goals = [number / len(config.shares) for number in range(1, len(config.shares))] if snapshots else []
    places = [min(range(len(snapshots)), key=lambda place: abs(way[place] - goal * way[-1])) for goal in goals]
    chosen = [
        Choice(str(stops[place].folder), stops[place].step, f"near {goal:.2f} of the arc length", False)
        for place, goal in dict(zip(places, goals, strict=True)).items()
    ]
    chosen.append(Choice(str(final.folder), final.step, "the pretraining ended here", True))
    first = chosen[0]
    return [Choice(first.folder, first.step, first.reason, first.last, (*watched, *steps)), *chosen[1:]]


def fixed(snapshots: Sequence[Snapshot], final: Snapshot, config: SwapConfig, measure: Measure) -> list[Choice]:
    """The snapshots nearest to the given fractions of the pretraining; CKA is only recorded.

    Raises:
        UserError: two fractions are nearest to one snapshot.
    """
    nearest = [min((final, *snapshots), key=lambda each: abs(each.share - share)) for share in config.fractions]
    if len({each.folder for each in nearest}) < len(nearest):
        steps = ", ".join(str(each.step) for each in nearest)
        raise UserError(
            f"{config.pretraining}: the snapshots nearest to fractions {list(config.fractions)} are of steps {steps}: "
            "keep more snapshots (train.snapshot_every_steps) or move the fractions apart"
        )
    chosen = []
    for number, (each, share) in enumerate(zip(nearest, config.fractions, strict=True)):
        before = nearest[number - 1] if number else None
        watched = () if before is None else (Watched(each.step, before.step, measure(each, before)),)
        last = number == len(nearest) - 1
        chosen.append(Choice(str(each.folder), each.step, f"nearest to {share:g} of the pretraining", last, watched))
    return chosen


def turn_steps(steps: int, shares: Sequence[float], turn: int, last: bool) -> int:
    """Steps of one turn out of those of its phase; the last encoder takes all that is left."""
    ends = [round(steps * share) for share in accumulate(shares)]
    begin = ends[turn - 1] if turn else 0
    return (steps if last or turn == len(shares) - 1 else ends[turn]) - begin
