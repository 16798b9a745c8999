"""The training loop: phases of steps, exact gradients, validation, checkpoints, a resume that is exact to the step.

The gradient of a step is that of sum over losses of weight * (sum over targets) / (targets in the whole step), whatever
the number of micro-batches and processes. Every micro-batch seeds the random generators from (seed, step, rank, its
number), so the position alone says how training goes on. It knows parts and losses by name; not speech, nor data files.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch import nn

from asrllm import dist
from asrllm.batch import Batch
from asrllm.config import Config
from asrllm.console import UserError, progress
from asrllm.train import checkpoint, optim
from asrllm.train import log as logs
from asrllm.train import stage as stages
from asrllm.train.stage import Phase, Stage

log = logging.getLogger("asrllm")


class TrainConfig(Config):
    """How any stage is trained."""

    seed: int = Field(default=1, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of activations; weights are fp32
    accumulate: int = Field(default=1, ge=1)  # micro-batches per step and process
    clip_norm: float = Field(default=5.0, gt=0)  # of the gradient of all trained parts together
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    max_bad_steps: int = Field(default=10, ge=1)  # non-finite steps in a row that end the run
    log_every_steps: int = Field(default=20, ge=1)
    valid_every_steps: int | None = Field(default=None, ge=1)  # none: after every epoch; always after a phase
    checkpoint_every_steps: int | None = Field(default=None, ge=1)  # beside one after every validation
    best_by: str = "loss"  # validation figure: loss (weighted sum), <name>_loss or <name>_accuracy
    keep_checkpoints: int = Field(default=5, ge=1)  # the best of the last phase, beside the latest
    average_best: int = Field(default=5, ge=1)  # of them make the final weights
    early_stop_patience: int | None = Field(default=None, ge=1)  # validations without a new best that end a phase

    @model_validator(mode="after")
    def _kept(self) -> "TrainConfig":
        if self.average_best > self.keep_checkpoints:
            raise ValueError(f"average_best {self.average_best} is above keep_checkpoints {self.keep_checkpoints}")
        return self


class Model(Protocol):
    """A module of named parts with named losses; it is also an `nn.Module`."""

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        """All parts by name."""

    def targets(self, batch: Batch, losses: tuple[str, ...]) -> dict[str, int]:
        """How many targets each loss has in a batch, without computing it."""


class Loader(Protocol):
    """Training batches: as many on every rank, a pure function of the epoch."""

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""

    def count(self, epoch: int) -> int:
        """How many batches an epoch has."""


@dataclass
class Position:
    """Where training stands; with weights and optimizer, all that a resume needs."""

    round: int = 0
    phase: int = 0
    phase_step: int = 0
    step: int = 0  # over all phases
    epoch: int = 0
    batch: int = 0  # micro-batches of the epoch that are done
    first_epoch: int = 0  # of the phase
    bad_steps: int = 0  # in a row
    best: float | None = None  # best validation figure of the phase, lower is better
    stale: int = 0  # validations since then
    wall_seconds: float = 0.0
    audio_seconds: float = 0.0


class Trainer:
    """Trains one stage in an experiment folder, from its latest checkpoint if there is one.

    Args:
        model: an `nn.Module` that is also a `Model`; called with (batch, names of losses) it returns `Loss` by name.
        loader: training batches; the first of an epoch should be its longest, as a probe of memory.
        valid: makes the validation batches of this process.
        stage: what to train.
        config: how.
        exp: the experiment folder.
        device: where to run.
        keep: parts to write to `exp/weights.safetensors` beside the trained ones.
        command: the command line, for the summary.
        sample_rate: Hz, to count audio.
    """

    def __init__(
        self,
        model: Any,
        loader: Loader,
        valid: Callable[[], Iterable[Batch]],
        stage: Stage,
        config: TrainConfig,
        exp: Path,
        device: torch.device,
        keep: frozenset[str] = frozenset(),
        command: str = "",
        sample_rate: int = 16000,
    ) -> None:
        stages.check(stage, model.parts)
        self.model, self.loader, self.valid = model.to(device), loader, valid
        self.stage, self.config, self.exp, self.device = stage, config, exp, device
        self.keep, self.command, self.sample_rate = keep, command, sample_rate
        self.precision = optim.pick_precision(config.precision, device)
        self.checkpoints = checkpoint.Checkpoints(exp / "checkpoints", config.best_by, config.keep_checkpoints)
        self.at = Position()
        self.optimizer_state: dict[str, Any] | None = None  # of the checkpoint that is resumed
        self.first = dist.rank() == 0

    def run(self) -> dict[str, Any]:
        """Train to the end of the stage; writes weights.safetensors and summary.json, and returns the summary.

        Raises:
            UserError: too many non-finite steps, too little memory, no data, a part that no loss reaches.
        """
        self.started = time.monotonic()
        self._resume()
        self.log = logs.MetricLog(self.exp, self.at.step)
        try:
            while True:
                self._run_phase(self._phase)
                if not self._next_phase():
                    return self._finish()
        except torch.OutOfMemoryError:
            raise UserError(
                f"step {self.at.step + 1}: not enough memory on {self.device}: "
                "lower the seconds per batch and raise accumulate in the configuration"
            ) from None
        finally:
            self.log.close()

    @property
    def _phase(self) -> Phase:
        return self.stage.phases[self.at.phase]

    def _run_phase(self, phase: Phase) -> None:
        at = self.at
        steps = self._begin(phase)
        bar = progress(f"phase {self._phase_number}", steps, "steps") if self.first else nullcontext(_no_bar)
        with bar as advance:
            advance(at.phase_step, "")
            while not self._ended(steps):
                for batches in self._groups():
                    figures = self._step(phase, batches, steps)
                    advance(1, f"loss {figures['loss']:.3f}")
                    self._after_step(phase, steps, figures)
                    if self._ended(steps):
                        break

    def _begin(self, phase: Phase) -> int:
        """Freeze and thaw, make the optimizer; returns how many steps the phase has."""
        at, config = self.at, self.config
        stages.apply(phase, self.model, self.model.parts)
        trained = [self.model.parts[part] for part in phase.train]
        self.weights = [weight for part in trained for weight in part.parameters()]
        self.buffers = [buffer for part in trained for buffer in part.buffers() if buffer.is_floating_point()]
        self.optimizer = optim.make_optimizer(phase, self.model.parts, config.betas, config.weight_decay)
        if self.optimizer_state is not None:
            self.optimizer.load_state_dict(self.optimizer_state)
            self.optimizer_state = None
        self._restart_tally()
        steps = self._steps(phase)
        if at.phase_step == 0:
            self.log.write(at.step + 1, "phase", {"phase": self._phase_number})
        if self.first:
            what = f"trains {', '.join(phase.train)} on the losses {', '.join(phase.losses)}, {self.precision}"
            log.info("phase %d, %d of %d steps done: %s", self._phase_number, at.phase_step, steps, what)
        return steps

    @property
    def _phase_number(self) -> int:
        """Counts phases over all rounds, from 1."""
        return self.at.round * len(self.stage.phases) + self.at.phase + 1

    def _steps(self, phase: Phase) -> int:
        """The budget of a phase in steps."""
        if self.loader.count(self.at.first_epoch) == 0:
            raise UserError("the training data make no batch: look at the limits of utterances and batches")
        if phase.steps is not None:
            return phase.steps
        assert phase.epochs is not None, "a phase has one budget"
        epochs = range(self.at.first_epoch, self.at.first_epoch + phase.epochs)
        return sum(math.ceil(self.loader.count(epoch) / self.config.accumulate) for epoch in epochs)

    def _ended(self, steps: int) -> bool:
        patience = self.config.early_stop_patience
        return self.at.phase_step >= steps or (patience is not None and self.at.stale >= patience)

    def _next_phase(self) -> bool:
        """Move to the start of the next phase, which begins an epoch; False after the last."""
        at = self.at
        last = len(self.stage.phases) - 1
        if at.phase == last and at.round == self.stage.repeat - 1:
            return False
        at.round, at.phase = (at.round + 1, 0) if at.phase == last else (at.round, at.phase + 1)
        at.epoch, at.batch = at.epoch + (at.batch > 0), 0
        at.first_epoch, at.phase_step, at.best, at.stale = at.epoch, 0, None, 0
        return True

    def _groups(self) -> Iterator[list[Batch]]:
        """The micro-batches of each step, to the end of the epoch."""
        group: list[Batch] = []
        for batch in self.loader.batches(self.at.epoch, self.at.batch):
            group.append(batch.to(self.device))
            if len(group) == self.config.accumulate:
                yield group
                group = []
        if group:
            yield group

    def _step(self, phase: Phase, batches: list[Batch], steps: int) -> dict[str, float]:
        """One step of the optimizer, or none where a loss or the gradient is not finite; returns its figures."""
        at, names = self.at, tuple(phase.losses)
        rates = optim.set_rates(self.optimizer, optim.rate_factor(phase, at.phase_step, steps))
        targets = [self.model.targets(batch, names) for batch in batches]
        counts = [sum(each[name] for each in targets) for name in names]
        samples = sum(int(batch.wave_lens.sum()) for batch in batches)
        *counts, samples = dist.total(torch.tensor([*counts, samples], device=self.device)).tolist()
        shares = {name: phase.losses[name] / max(count, 1) for name, count in zip(names, counts, strict=True)}
        before = [buffer.clone() for buffer in self.buffers]
        tally = logs.Tally(phase.losses, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches):
            optim.seed_everything(self.config.seed, at.step, dist.rank(), number)
            with self._autocast():
                losses = self.model(batch, names)
            tally.add(losses)
            objective = torch.stack([share * losses[name].sum.float() for name, share in shares.items()]).sum()
            if objective.requires_grad:
                objective.backward()
        self._check_reached(phase)
        optim.share_gradients(self.weights, self.buffers)
        dist.total(tally.rows)
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.clip_norm)
        if bool(torch.isfinite(norm) & torch.isfinite(tally.rows).all()):
            self.optimizer.step()
            self.tally.rows += tally.rows
            at.bad_steps = 0
        else:
            self._skip(batches, before)
        at.audio_seconds += samples / self.sample_rate
        at.phase_step, at.step, at.batch = at.phase_step + 1, at.step + 1, at.batch + len(batches)
        rates = {f"rate_{part}": rate for part, rate in rates.items()}
        return {"loss": tally.figures()["loss"], "gradient_norm": float(norm), **rates}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _check_reached(self, phase: Phase) -> None:
        """In the first step of a phase: every part that it trains must get a gradient."""
        for part in phase.train if self.at.phase_step == 0 else ():
            if all(weight.grad is None for weight in self.model.parts[part].parameters()):
                raise UserError(
                    f"phase {self._phase_number} trains {part}, but none of its losses "
                    f"({', '.join(phase.losses)}) reaches that part: leave it out of train, or add its loss"
                )

    def _skip(self, batches: list[Batch], buffers: list[torch.Tensor]) -> None:
        """Leave weights as they were; end the run after too many such steps in a row."""
        at = self.at
        for buffer, old in zip(self.buffers, buffers, strict=True):
            buffer.copy_(old)
        at.bad_steps += 1
        utt_ids = " ".join(utt_id for batch in batches for utt_id in batch.utt_ids)
        log.warning("step %d skipped: loss or gradient not finite; utterances here: %s", at.step + 1, utt_ids)
        if at.bad_steps >= self.config.max_bad_steps:
            raise UserError(
                f"{at.bad_steps} steps in a row had a loss or gradient that is not finite (the last: step "
                f"{at.step + 1}): lower the learning rates or look at the utterances named in the log"
            )

    def _after_step(self, phase: Phase, steps: int, figures: dict[str, float]) -> None:
        """Log, validate and save where that is due."""
        at, config = self.at, self.config
        if at.phase_step == 1 and self.first:
            log.info("memory after the longest batch: %.2f GiB", logs.memory_gib(self.device))
        epoch_done = at.batch >= self.loader.count(at.epoch)
        if epoch_done:
            at.epoch, at.batch = at.epoch + 1, 0
        if at.step % config.log_every_steps == 0:
            self._log_step(figures)
        every = config.valid_every_steps
        if at.phase_step >= steps or (epoch_done if every is None else at.phase_step % every == 0):
            self._save(self._judge(phase))
            self.log.draw()
        elif config.checkpoint_every_steps is not None and at.step % config.checkpoint_every_steps == 0:
            self._save({})

    def _log_step(self, latest: dict[str, float]) -> None:
        """Means since the last such line, and the rate and gradient norm of the latest step."""
        seconds = time.monotonic() - self.since[0]
        figures = {
            **latest,
            **self.tally.figures(),
            "audio_seconds_per_second": (self.at.audio_seconds - self.since[1]) / max(seconds, 1e-9),
            "memory_gib": logs.memory_gib(self.device),
        }
        self._restart_tally()
        self.log.write(self.at.step, "train", figures)
        if self.first:
            log.info("step %d: %s", self.at.step, _said(figures))

    def _restart_tally(self) -> None:
        self.tally = logs.Tally(self._phase.losses, self.device)
        self.since = time.monotonic(), self.at.audio_seconds

    def _judge(self, phase: Phase) -> dict[str, float]:
        """Validate, log it, and keep count of validations without a new best."""
        at, key = self.at, self.config.best_by
        figures = self._validate(phase)
        if key not in figures:
            raise UserError(f"train.best_by: no figure {key!r} in validation: choose one of {', '.join(figures)}")
        value = -figures[key] if key.endswith("accuracy") else figures[key]
        if at.best is None or value < at.best:
            at.best, at.stale = value, 0
        else:
            at.stale += 1
        self.log.write(at.step, "valid", figures)
        if self.first:
            log.info("step %d, validation: %s", at.step, _said(figures))
        return figures

    @torch.no_grad()
    def _validate(self, phase: Phase) -> dict[str, float]:
        """Losses and accuracies over the validation batches of all processes."""
        self.model.eval()
        tally = logs.Tally(phase.losses, self.device)
        for batch in self.valid():
            with self._autocast():
                tally.add(self.model(batch.to(self.device), tuple(phase.losses)))
        dist.total(tally.rows)
        stages.apply(phase, self.model, self.model.parts)
        if not tally.rows[:, 1].any():
            raise UserError("the validation data have no targets: give a directory with transcripts")
        return tally.figures()

    def _save(self, figures: dict[str, float]) -> None:
        if self.first:
            position = replace(self.at, wall_seconds=self._wall_seconds())
            state = {"position": asdict(position), "optimizer": self.optimizer.state_dict()}
            weights = checkpoint.gather(self.model.parts, self.stage.trained)
            self.checkpoints.save(self.at.step, weights, state, {"phase": self._phase_number, **figures})
        dist.barrier()

    def _wall_seconds(self) -> float:
        """Time of training, interrupted runs counted up to their last checkpoint."""
        return self.at.wall_seconds + time.monotonic() - self.started

    def _resume(self) -> None:
        """Go to the latest checkpoint, if there is one."""
        if self.first:
            self.checkpoints.sweep()
        dist.barrier()
        latest = self.checkpoints.latest()
        if latest is None:
            return
        weights, state = latest
        self.at = Position(**state["position"])
        self.optimizer_state = state["optimizer"]
        self._load(weights, f"{self.checkpoints.folder}/step-{self.at.step}")
        if self.first:
            log.info("continuing after step %d", self.at.step)

    def _load(self, weights: checkpoint.Tensors, where: str) -> None:
        for part in self.stage.trained:
            checkpoint.load_part(self.model.parts[part], weights, part, where)

    def _finish(self) -> dict[str, Any]:
        """Average the best checkpoints, validate that, write the weights, then the summary."""
        steps = self.checkpoints.best(self.config.average_best)
        weights = self.checkpoints.average(steps)
        self._load(weights, f"{self.checkpoints.folder}: average of steps {steps}")
        figures = self._validate(self._phase)
        parts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in self.model.parts.items()}
        summary = {
            "parameters": parts,
            "trained": {part: parts[part] for part in self.stage.trained},
            "wall_hours": self._wall_seconds() / 3600,
            "audio_hours": self.at.audio_seconds / 3600,
            "steps": self.at.step,
            "averaged_steps": sorted(steps),
            "valid": figures,
            "command": self.command,
            "commit": logs.commit(),
            "precision": self.precision,
            "device": logs.device_name(self.device),
            "threads": torch.get_num_threads(),
            "processes": dist.world_size(),
        }
        if self.first:
            kept = checkpoint.gather(self.model.parts, self.keep)
            checkpoint.write_weights({**kept, **weights}, self.exp / "weights.safetensors")
            self.log.draw()
            logs.write_summary(self.exp, summary)
            log.info("average of steps %s, validation: %s", sorted(steps), _said(figures))
        dist.barrier()
        return summary


def _said(figures: Mapping[str, float]) -> str:
    """Figures in one line, small ones in scientific notation."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.1e}" if 0 < abs(value) < 1e-2 else f"{name.replace('_', ' ')} {value:.3f}"
        for name, value in figures.items()
    )


def _no_bar(count: int, note: str) -> None:
    """Progress of a process that draws none."""
