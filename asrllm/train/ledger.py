"""What a training run has computed: model FLOPs by part, and what padding and recomputation added to them.

Model FLOPs are those of real frames and tokens, forward and backward in the role that each part has (Kaplan et
al. 2020 for 2 P and 6 P, Hoffmann et al. 2022 for attention and vocabulary; the roles are ours, see `asrllm.flops`).
What is executed beyond them, because rows are padded or activations are computed twice, is kept apart. Validation and
decoding are not counted. It knows parts by name only.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from asrllm import dist
from asrllm.flops import Work


@dataclass(frozen=True)
class Cost:
    """FLOPs of a step, or of several."""

    parts: Mapping[str, float]  # part -> model FLOPs
    padding: float  # more, since rows are as long as the longest
    recomputation: float  # more, since activations are not kept

    @property
    def total(self) -> float:
        """Model FLOPs of all parts."""
        return sum(self.parts.values())


def step_cost(
    work: Iterable[Work],
    names: Collection[str],
    trained: Collection[str],
    device: torch.device,
    recomputed: Collection[str] = (),
) -> Cost:
    """Cost of some batches, forward and backward, summed over all processes.

    Args:
        work: of the batches of this process.
        names: of all parts.
        trained: parts that are trained; what comes after them passes gradients on.
        device: where processes add up.
        recomputed: parts that run forward once more for their gradient.
    """
    sums = dict.fromkeys((*names, "padding", "recomputation"), 0.0)
    for each in work:
        roles = each.part in trained, not each.upstream.isdisjoint(trained)
        sums[each.part] += each.real.step(*roles)
        sums["padding"] += each.padded.step(*roles) - each.real.step(*roles)
        if each.part in recomputed and any(roles):
            sums["recomputation"] += each.padded.forward
    values = dist.total(torch.tensor(list(sums.values()), dtype=torch.float64, device=device)).tolist()
    *parts, padding, recomputation = values
    return Cost(dict(zip(names, parts, strict=True)), padding, recomputation)


@dataclass
class Ledger:
    """Running totals; a checkpoint holds them, so that a resumed run counts on."""

    parts: dict[str, float] = field(default_factory=dict)  # part -> model FLOPs
    padding: float = 0.0
    recomputation: float = 0.0
    phases: list[float] = field(default_factory=list)  # model FLOPs of each phase, in the order they were trained

    def add(self, cost: Cost, phase: int) -> None:
        """Enter the cost of a step of phase number `phase`, from 1."""
        for part, flops in cost.parts.items():
            if flops:
                self.parts[part] = self.parts.get(part, 0.0) + flops
        self.padding += cost.padding
        self.recomputation += cost.recomputation
        self.phases += [0.0] * (phase - len(self.phases))
        self.phases[phase - 1] += cost.total

    @property
    def total(self) -> float:
        """Model FLOPs of all parts."""
        return sum(self.parts.values())

    def summary(self) -> dict[str, Any]:
        """For summary.json; `hardware` is all that was executed."""
        return {"model": self.total, "hardware": self.total + self.padding + self.recomputation, **asdict(self)}
