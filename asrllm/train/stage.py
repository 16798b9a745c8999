"""Training as data: which parts learn at which rate, which losses count, for how long; phases in turn, repeated.

Projector alignment (SLAM-ASR), encoder first (EFIN), taking turns (iterative asynchronous SFT) and joint SFT differ
only in these values. It knows parts by name, not what they compute.
"""

from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator
from torch import nn

from asrllm.config import Config
from asrllm.console import UserError


class Phase(Config):
    """One stretch of training with fixed parts and losses; what is not named is frozen or not computed."""

    steps: int | None = Field(default=None, ge=1)  # budget: optimizer steps, or
    epochs: int | None = Field(default=None, ge=1)  # passes over the training data
    train: dict[str, float]  # part -> peak learning rate
    losses: dict[str, float]  # loss -> weight
    warmup_steps: int = Field(default=0, ge=0)  # the rate rises linearly to its peak
    schedule: Literal["constant", "cosine"] = "constant"
    final_rate_share: float = Field(default=0.0, ge=0, le=1)  # cosine: share of the peak rate at the last step

    @model_validator(mode="after")
    def _one_budget(self) -> "Phase":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one budget, steps or epochs")
        return self

    @field_validator("train", "losses")
    @classmethod
    def _above_zero(cls, values: dict[str, float]) -> dict[str, float]:
        if not values:
            raise ValueError("name at least one")
        for name, value in values.items():
            if not value > 0:
                raise ValueError(f"{name}: expected a number above 0, found {value}; leave it out instead")
        return values


class Stage(Config):
    """What one experiment does: where parts come from, then its phases in order, `repeat` times over."""

    init: dict[str, str] = {}  # part -> experiment folder
    phases: tuple[Phase, ...] = Field(min_length=1)
    repeat: int = Field(default=1, ge=1)

    @property
    def trained(self) -> list[str]:
        """Every part that some phase trains, in order of first mention."""
        return list(dict.fromkeys(part for phase in self.phases for part in phase.train))


def check(stage: Stage, parts: Collection[str]) -> None:
    """Refuse a stage that names a part which the model does not have.

    Raises:
        UserError: names the key, the part and the parts that are there.
    """
    named = [("stage.init", part) for part in stage.init]
    named += [(f"stage.phases.{n}.train", part) for n, phase in enumerate(stage.phases) for part in phase.train]
    for key, part in named:
        if part not in parts:
            raise UserError(f"{key}: the model has no part {part!r}: its parts are {', '.join(parts)}")


def apply(phase: Phase, model: nn.Module, parts: Mapping[str, nn.Module]) -> None:
    """Make the phase's parts trainable and put them in training mode; everything else is frozen, in evaluation mode."""
    model.requires_grad_(False)
    model.eval()
    for name in phase.train:
        parts[name].requires_grad_(True)
        parts[name].train()
