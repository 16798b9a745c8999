"""The training loop: phases of steps, validation, checkpoints, a resume that is exact to the step.

Every micro-batch seeds the random generators from (seed, step, rank, its
number), so the position alone says how training goes on. It knows parts and losses by name; not speech, nor data files.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from asrllm import dist
from asrllm.batch import Batch
from asrllm.config import Config
from asrllm.console import UserError, progress, sweep, tells_no_memory
from asrllm.train import checkpoint, optim, swap
from asrllm.train import log as logs
from asrllm.train import stage as stages
from asrllm.train.budget import Budget
from asrllm.train.encoders import Ckas, Encoders, Probe
from asrllm.train.feed import Feed, Group, Loader
from asrllm.train.journal import Journal
from asrllm.train.learner import Learner
from asrllm.train.ledger import Ledger
from asrllm.train.parallel import DdpConfig, ParallelConfig, share
from asrllm.train.position import Position
from asrllm.train.snapshot import Snapshots
from asrllm.train.spikes import Spikes
from asrllm.train.stage import Phase, Stage

log = logging.getLogger("asrllm")


class TrainConfig(Config):
    """How any stage is trained."""

    seed: int = Field(default=1, ge=0)
    parallel: ParallelConfig = DdpConfig()  # how several processes share the model
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of activations; weights are fp32
    accumulate: int = Field(default=1, ge=1)  # micro-batches per step and process
    clip_norm: float = Field(default=5.0, gt=0)  # of the gradient of all trained parts together
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    max_bad_steps: int = Field(default=10, ge=1)  # non-finite steps in a row that end the run
    log_every_steps: int = Field(default=20, ge=1)
    valid_every_steps: int | None = Field(default=None, ge=1)  # none: after every epoch; always after a phase
    checkpoint_every_steps: int | None = Field(default=None, ge=1)  # beside one after every validation
    snapshot_every_steps: int | None = Field(default=None, ge=1)  # keeps the parts for encoder_swaps of later stages
    best_by: str = "loss"  # validation figure: loss (weighted sum), <name>_loss or <name>_accuracy
    keep_checkpoints: int = Field(default=5, ge=1)  # the best of the last phase, beside the latest
    average_best: int = Field(default=5, ge=1)  # of them make the final weights
    early_stop_patience: int | None = Field(default=None, ge=1)  # validations without a new best that end a phase

    @model_validator(mode="after")
    def _kept(self) -> "TrainConfig":
        if self.average_best > self.keep_checkpoints:
            raise ValueError(f"average_best {self.average_best} is above keep_checkpoints {self.keep_checkpoints}")
        return self


class Trainer:
    """Trains one stage in an experiment folder, from its latest checkpoint if there is one.

    Args:
        model: as `Learner` wants it.
        loader: training batches; the first of an epoch should be its longest, as a probe of memory.
        valid: makes the validation batches of this process.
        stage: what to train.
        config: how.
        exp: the experiment folder.
        device: where to run.
        keep: parts to write to `exp/weights.safetensors` beside the trained ones.
        command: the command line, for the summary.
        sample_rate: Hz, to count audio.
        probe: makes the held-out batches that CKA of encoders is measured on.
        ledger: what was computed before the first step.
        leave_out: from the checkpoint on, do without the batches of steps that were skipped after it.
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
        probe: Probe = lambda utterances, seed: (),
        ledger: Ledger | None = None,
        leave_out: bool = False,
    ) -> None:
        stages.check(stage, model.parts)
        if config.snapshot_every_steps is not None:
            stage.progress(0, 0, 0.0)  # refuses a stage in which it cannot be told
        self.model, self.valid = model.to(device), valid
        self.stage, self.config, self.exp, self.device = stage, config, exp, device
        self.keep, self.command, self.sample_rate, self.probe = keep, command, sample_rate, probe
        self.precision = optim.pick_precision(config.precision, device)
        self.parallel = share(config.parallel, self.model, stage, self.precision, device)
        self.checkpoints = checkpoint.Checkpoints(exp / "checkpoints", config.best_by, config.keep_checkpoints)
        self.snapshots = Snapshots(exp)
        self.spikes, self.leave_out = Spikes(exp), leave_out
        self.feed = Feed(loader, config.accumulate, self.spikes.left_out, device)
        self.at = Position()
        self.ledger = ledger or Ledger()
        self.choices: list[swap.Choice] = []  # encoders of this phase
        self.ckas: Ckas = {}
        self.optimizer_state: dict[str, Any] | None = None  # of the checkpoint that is resumed, or of the turn before
        self.first = dist.rank() == 0

    def run(self) -> dict[str, Any]:
        """Train to the end of the stage; writes weights.safetensors and summary.json, and returns the summary.

        Raises:
            UserError: too many non-finite steps, too little memory, no data, a part that no loss reaches.
        """
        self.started = time.monotonic()
        self._resume()
        self.journal = Journal(self.exp, self.at, self.ledger, self.stage, self.device)
        try:
            while True:
                self._run_turn(self._phase)
                if not self._next():
                    return self._finish()
        except (MemoryError, RuntimeError) as fault:
            if not tells_no_memory(fault):
                raise
            raise UserError(
                f"step {self.at.step + 1}: not enough memory on {self.device}: "
                "lower the seconds per batch and raise accumulate in the configuration"
            ) from None
        finally:
            self.journal.close()

    @property
    def _phase(self) -> Phase:
        return self.stage.phases[self.at.phase]

    def _run_turn(self, phase: Phase) -> None:
        """A phase, or the part of it that has one encoder."""
        at = self.at
        self._begin(phase)
        unit = "steps" if self.budget.unit == "steps" else "%"
        bar = progress(f"phase {at.number}", self.budget.size, unit) if self.first else nullcontext(_no_bar)
        with bar as advance:
            advance(self.budget.marks(at), "")
            while not self._ended():
                for group in self.feed.groups(at.epoch, at.batch):
                    before = self.budget.marks(at)
                    figures = self._step(phase, group)
                    advance(self.budget.marks(at) - before, f"loss {figures['loss']:.3f}")
                    self._after_step(figures)
                    if self._ended():
                        break

    def _begin(self, phase: Phase) -> None:
        """Take the encoder, freeze and thaw, make the optimizer."""
        config = self.config
        self.budget = self._budget(phase)
        if phase.encoder_swaps is not None:
            self._take_encoder(phase.encoder_swaps)
        optimizer = optim.make_optimizer(phase, self.model.parts, config.betas, config.weight_decay)
        if self.optimizer_state is not None:
            optim.load_state(optimizer, self.optimizer_state)
            self.optimizer_state = None
        self.learner = Learner(self.model, phase, optimizer, self.precision, self.device, self.parallel)
        self._keep_snapshot()
        self.journal.begin(phase, f"{self.budget.spent(self.at):g} of {self.budget}", self.precision)

    def _take_encoder(self, config: swap.SwapConfig) -> None:
        """At the start of a turn, swap the encoder and say why; it has its share of the phase's budget."""
        at = self.at
        if at.phase_step == 0:
            encoders = Encoders(config, self.model, self.probe, self.device, self.choices, self.ckas)
            choice = encoders.take(at.turn)
            self.choices = encoders.choices
            self.journal.swap(choice)
        self.budget = self.budget.of_turn(config.shares, at.turn, self.choices[at.turn].last)

    def _budget(self, phase: Phase) -> Budget:
        """The budget of a phase."""
        if self.feed.steps(self.at.first_epoch) == 0:
            raise UserError("the training data make no batch: look at the limits of utterances and batches")
        return Budget.of_phase(phase, self.at.first_epoch, self.feed.steps)

    def _ended(self) -> bool:
        patience = self.config.early_stop_patience
        return self.budget.share(self.at) >= 1 or (patience is not None and self.at.stale >= patience)

    def _next(self) -> bool:
        """Move to the next turn, or to the first of the next phase; False after the last."""
        at, swaps = self.at, self._phase.encoder_swaps
        if swaps is not None and not self.choices[at.turn].last and any(swaps.shares[at.turn + 1 :]):
            self.optimizer_state = self.learner.optimizer.state_dict()
            at.next_turn()
            return True
        self.choices = []
        return at.next_phase(self.stage)

    def _step(self, phase: Phase, group: Group) -> dict[str, float]:
        """One step, counted and tallied; returns its figures."""
        at, config, place = self.at, self.config, self.budget.place(self.at)
        if at.phase_step <= phase.warmup_steps:
            at.warmed = place
        rate = optim.rate_factor(phase, at.phase_step, place, at.warmed)
        result = self.learner.step(group.batches, rate, config.clip_norm, (config.seed, at.step))
        self.ledger.add(result.cost, at.number)
        at.count_step(group.numbers[-1] + 1, result.cost.total, result.samples / self.sample_rate)
        if result.finite:
            self.journal.add(result.tally)
            at.bad_steps = 0
        else:
            self._count_skipped(group)
        rates = {f"rate_{part}": rate for part, rate in result.rates.items()}
        norms = {f"gradient_norm_{part}": norm for part, norm in result.norms.items()}
        flops = {"step_tflops": result.cost.total / 1e12, "step_padding_tflops": result.cost.padding / 1e12}
        return {"loss": result.tally.figures()["loss"], "gradient_norm": result.norm, **flops, **norms, **rates}

    def _count_skipped(self, group: Group) -> None:
        """List a step that was not finite; end the run after too many in a row."""
        at = self.at
        at.bad_steps += 1
        said = " ".join(group.utt_ids)
        log.warning("step %d skipped: loss or gradient not finite; utterances here: %s", at.step, said)
        if self.first:
            self.spikes.note(at.step, at.epoch, group.numbers, group.utt_ids)
        if at.bad_steps >= self.config.max_bad_steps:
            raise UserError(
                f"{at.bad_steps} steps in a row had a loss or gradient that is not finite (the last: step {at.step}): "
                f"lower the learning rates, or look at the utterances in {self.spikes.skipped} and start again with "
                "--leave_out_skipped"
            )

    def _after_step(self, figures: dict[str, float]) -> None:
        """Log, validate and save where that is due."""
        at, config = self.at, self.config
        if at.phase_step == 1 and self.first:
            log.info("memory after the longest batch: %.2f GiB", logs.memory_gib(self.device))
        before = at.epoch
        at.epoch, at.batch = self.feed.place(at.epoch, at.batch)
        epoch_done = at.epoch > before
        if at.step % config.log_every_steps == 0:
            self.journal.step(figures)
        every = config.valid_every_steps
        ended = self.budget.share(at) >= 1
        if ended or (epoch_done if every is None else at.phase_step % every == 0):
            self._save(self._judge(), ended)
            self.journal.go_on()
        elif config.checkpoint_every_steps is not None and at.step % config.checkpoint_every_steps == 0:
            self._save({})
        self._keep_snapshot()

    def _keep_snapshot(self) -> None:
        """Write the snapshot of this step where one is due, after its checkpoint, so that none is taken back later."""
        at, every = self.at, self.config.snapshot_every_steps
        if every is None or at.step == 0 or at.step % every or at.bad_steps:
            return
        # As rank 0 sees it before it writes: what others see depends on when they look.
        kept, stored = dist.same((at.step in self.snapshots.steps(), at.step in self.checkpoints.steps()))
        if kept:
            return
        if not stored:
            self._save({})
        weights = checkpoint.gather(self.model.parts, self.stage.changed)
        if self.first:
            self.snapshots.save(at.step, self.stage.progress(at.round, at.phase, self.budget.share(at)), weights)

    def _judge(self) -> dict[str, float]:
        """Validate, log it, and keep count of validations without a new best."""
        at, key = self.at, self.config.best_by
        figures = self.learner.validate(self.valid())
        if key not in figures:
            raise UserError(f"train.best_by: no figure {key!r} in validation: choose one of {', '.join(figures)}")
        value = -figures[key] if key.endswith("accuracy") else figures[key]
        if math.isfinite(value) and (at.best is None or value < at.best):
            at.best, at.stale = value, 0
        else:
            at.stale += 1
        self.journal.valid(figures)
        return figures

    def _save(self, figures: dict[str, float], last: bool = False) -> None:
        """Write a checkpoint, in a row of skipped steps only if it is the last of the turn: a run that fails there can
        be started again from before them."""
        if self.at.bad_steps and not last:
            return
        state = {
            "position": asdict(replace(self.at, wall_seconds=self._wall_seconds())),
            "choices": [asdict(choice) for choice in self.choices],
            "ledger": asdict(self.ledger),
            "optimizer": optim.gather_state(self.learner.optimizer),
        }
        weights = checkpoint.gather(self.model.parts, self.stage.changed)
        if self.first:
            self.checkpoints.save(self.at.step, weights, state, {"phase": self.at.number, **figures})
        dist.barrier()

    def _wall_seconds(self) -> float:
        """Time of training, interrupted runs counted up to their last checkpoint."""
        return self.at.wall_seconds + time.monotonic() - self.started

    def _resume(self) -> None:
        """Go to the latest checkpoint, if there is one."""
        if self.first:
            sweep(self.exp)
            sweep(self.snapshots.folder)
            self.checkpoints.sweep()
        dist.barrier()
        latest = self.checkpoints.latest()
        if self.first:  # without a checkpoint they are those of a run with another configuration
            self.snapshots.cut(0 if latest is None else latest[1]["position"]["step"])
        if latest is not None:
            self._restore(*latest)
        if self.leave_out:
            self._leave_out()

    def _restore(self, weights: checkpoint.Tensors, state: dict[str, Any]) -> None:
        self.at = Position(**state["position"])
        self.choices = [swap.Choice.of(choice) for choice in state["choices"]]
        self.ledger = Ledger(**state["ledger"])
        self.optimizer_state = state["optimizer"]
        self._load(weights, f"{self.checkpoints.folder}/step-{self.at.step}")
        if self.first:
            log.info("continuing after step %d", self.at.step)

    def _leave_out(self) -> None:
        """Do without the batches of skipped steps from here on."""
        at = self.at
        if self.first:
            self.spikes.leave_out(at.epoch, at.batch)
        dist.barrier()
        self.spikes = Spikes(self.exp)
        self.feed.left_out = self.spikes.left_out
        at.epoch, at.batch = self.feed.place(at.epoch, at.batch)
        if self.first:
            log.info("%d batches are left out, listed in %s", len(self.spikes.left_out), self.spikes.removed)

    def _load(self, weights: checkpoint.Tensors, where: str) -> None:
        for part in self.stage.changed:
            checkpoint.load_part(self.model.parts[part], weights, part, where)

    def _finish(self) -> dict[str, Any]:
        """Average the best checkpoints, validate that, write the weights, then the summary."""
        steps = self.checkpoints.best(self.config.average_best)
        weights = self.checkpoints.average(steps)
        self._load(weights, f"{self.checkpoints.folder}: average of steps {steps}")
        figures = self.learner.validate(self.valid())
        parts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in self.model.parts.items()}
        emergence = self.journal.emergence()
        summary = {
            "parameters": parts,
            "trained": {part: parts[part] for part in self.stage.trained},
            "wall_hours": self._wall_seconds() / 3600,
            "audio_hours": self.at.audio_seconds / 3600,
            "flops": self.ledger.summary(),
            "steps": self.at.step,
            "averaged_steps": sorted(steps),
            "valid": figures,
            "emergence": asdict(emergence) if emergence else None,
            "command": self.command,
            "commit": logs.commit(),
            "precision": self.precision,
            "device": logs.device_name(self.device),
            "threads": torch.get_num_threads(),
            "processes": dist.world_size(),
        }
        kept = checkpoint.gather(self.model.parts, self.keep)
        if self.first:
            checkpoint.write_weights({**kept, **weights}, self.exp / "weights.safetensors")
            self.journal.go_on()
            logs.write_summary(self.exp, summary)
            log.info("average of steps %s, validation: %s", sorted(steps), logs.said(figures))
        dist.barrier()
        return summary


def _no_bar(count: int, note: str) -> None:
    """Progress of a process that draws none."""
