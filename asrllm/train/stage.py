"""Training as data: which parts learn at which rate, which losses count, for how long; phases in turn, repeated.

Projector alignment (SLAM-ASR), encoder first (EFIN), taking turns (iterative asynchronous SFT) and joint SFT differ
only in these values. It knows parts by name, not what they compute.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from torch import nn

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.train.swap import SwapConfig

BUDGETS = ("steps", "epochs", "flops", "audio_hours")


class Phase(Config):
    """One stretch of training with fixed parts and losses; what is not named is frozen or not computed."""

    steps: int | None = Field(default=None, ge=1)  # budget: optimizer steps, or
    epochs: int | None = Field(default=None, ge=1)  # passes over the training data, or
    flops: float | None = Field(default=None, gt=0)  # model FLOPs, forward and backward, or
    audio_hours: float | None = Field(default=None, gt=0)  # of training audio, as it is heard
    train: dict[str, float]  # part -> peak learning rate
    losses: dict[str, float]  # loss -> weight
    warmup_steps: int = Field(default=0, ge=0)  # the rate rises linearly to its peak
    schedule: Literal["constant", "cosine"] = "constant"
    final_rate_share: float = Field(default=0.0, ge=0, le=1)  # cosine: share of the peak rate at the end
    encoder_swaps: SwapConfig | None = None  # frozen encoders in turn; warm-up and schedule begin anew with each

    @model_validator(mode="after")
    def _one_budget(self) -> "Phase":
        if sum(getattr(self, unit) is not None for unit in BUDGETS) != 1:
            raise ValueError(f"give exactly one budget, {', '.join(BUDGETS[:-1])} or {BUDGETS[-1]}")
        return self

    @model_validator(mode="after")
    def _swaps_frozen(self) -> "Phase":
        if self.encoder_swaps is not None and (
            both := [part for part in self.encoder_swaps.parts if part in self.train]
        ):
            raise ValueError(f"encoder_swaps replaces {', '.join(both)}, so train must not name it")
        return self

    @property
    def budget(self) -> tuple[float, str]:
        """How long the phase is, and in which unit."""
        return next((float(size), unit) for unit in BUDGETS if (size := getattr(self, unit)) is not None)

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

    init: dict[str, str] = {}  # part -> experiment folder, or one snapshot of it: exp/NAME/snapshots/step-N; null: none
    phases: tuple[Phase, ...] = Field(min_length=1)
    repeat: int = Field(default=1, ge=1)

    @field_validator("init", mode="before")
    @classmethod
    def _without_null(cls, init: Any) -> Any:
        """Null takes back what a `base` file names."""
        return {part: source for part, source in init.items() if source is not None} if isinstance(init, dict) else init

    @property
    def trained(self) -> list[str]:
        """Every part that some phase trains, in order of first mention."""
        return list(dict.fromkeys(part for phase in self.phases for part in phase.train))

    @property
    def changed(self) -> list[str]:
        """Every part whose weights are others after the stage: trained, or swapped with its encoder."""
        swapped = [part for phase in self.phases if phase.encoder_swaps for part in phase.encoder_swaps.parts]
        return list(dict.fromkeys([*self.trained, *swapped]))

    def progress(self, round: int, phase: int, share: float) -> float:
        """Share of the whole stage that is done, 0 to 1, when `share` of a phase is.

        Raises:
            UserError: the budgets of the phases have different units.
        """
        sizes, units = zip(*(each.budget for each in self.phases), strict=True)
        if len(set(units)) > 1:
            raise UserError("train.snapshot_every_steps wants the budgets of all phases of the stage in one unit")
        done = round * sum(sizes) + sum(sizes[:phase]) + sizes[phase] * share
        return done / (self.repeat * sum(sizes))


def check(stage: Stage, parts: Collection[str]) -> None:
    """Refuse a stage that names a part which the model does not have.

    Raises:
        UserError: names the key, the part and the parts that are there.
    """
    named = [("stage.init", part) for part in stage.init]
    for number, phase in enumerate(stage.phases):
        named += [(f"stage.phases.{number}.train", part) for part in phase.train]
        if phase.encoder_swaps is not None:
            named += [(f"stage.phases.{number}.encoder_swaps.parts", part) for part in phase.encoder_swaps.parts]
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
