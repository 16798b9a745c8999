"""A model within one phase: one exact step of the optimizer, one validation.

The gradient of a step is that of sum over losses of weight * (sum over targets) / (targets in the whole step), whatever
the number of micro-batches and processes. It knows parts and losses by name; not schedules, files or positions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from asrllm import dist
from asrllm.batch import Batch, Loss
from asrllm.console import UserError
from asrllm.train import optim
from asrllm.train import stage as stages
from asrllm.train.ledger import Cost, step_cost
from asrllm.train.log import Tally
from asrllm.train.parallel import Parallel
from asrllm.train.stage import Phase


@dataclass(frozen=True)
class StepResult:
    """What came of a step, summed over all micro-batches and processes."""

    tally: Tally
    norm: float  # of the gradient, before it was clipped
    norms: dict[str, float]  # part -> that of its part of the gradient
    rates: dict[str, float]  # part -> learning rate
    samples: int  # of audio
    cost: Cost
    finite: bool  # False: a loss or the gradient was not, and weights and buffers are as before


class Learner:
    """Trains the parts of a phase; all others are frozen and in evaluation mode.

    Args:
        model: an `nn.Module` with `parts`, modules by name; `model(batch, losses)`, `Loss` by name; and
            `model.targets(batch, losses)`, the counts of these losses without computing them; and
            `model.work(batch, losses, speech_lens)`, what each part does for them, parts `model.recomputed` twice.
        phase: which parts, which losses.
        optimizer: over the weights of these parts.
        precision: of activations.
        device: where the model is.
        parallel: how processes share it; not at all if that is not given.
    """

    def __init__(
        self,
        model: Any,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        precision: Literal["fp32", "bf16"],
        device: torch.device,
        parallel: Parallel | None = None,
    ) -> None:
        self.model, self.phase, self.optimizer, self.precision, self.device = model, phase, optimizer, precision, device
        self.losses = tuple(phase.losses)
        trained = [model.parts[part] for part in phase.train]
        self.weights = [weight for part in trained for weight in part.parameters()]
        self.buffers = [buffer for part in trained for buffer in part.buffers() if buffer.is_floating_point()]
        self.checked = False
        self.parallel = parallel or Parallel(model)
        stages.apply(phase, model, model.parts)
        self.parallel.begin()

    def step(self, batches: Sequence[Batch], rate: float, clip_norm: float, seed: tuple[int, ...]) -> StepResult:
        """Move the weights once.

        Args:
            batches: the micro-batches of this process.
            rate: share of the peak learning rates.
            clip_norm: the gradient of all parts together is scaled down to this norm.
            seed: with the rank and the number of the micro-batch it seeds the random generators.

        Raises:
            UserError: a part of the phase got no gradient in its first step, or the model does not make a loss.
        """
        rates = optim.set_rates(self.optimizer, rate)
        shares, samples = self._shares(batches)
        before = [buffer.clone() for buffer in self.buffers]
        tally = Tally(self.phase.losses, self.device)
        heard = []
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches):
            optim.seed_everything(*seed, dist.rank(), number)
            with self.parallel.micro_batch(last=number == len(batches) - 1):
                losses = self._forward(self.parallel.module, batch)
                tally.add(losses)
                heard.append(next((loss.speech_lens for loss in losses.values() if loss.speech_lens is not None), None))
                objective = torch.stack([share * losses[name].sum.float() for name, share in shares.items()]).sum()
                if objective.requires_grad:
                    (objective * dist.world_size()).backward()  # the gradients of all processes are averaged
        self._check_reached()
        self.parallel.finish(self.weights, self.buffers)
        dist.total(tally.rows)
        norms = {part: self._norm(part) for part in self.phase.train}
        norm = torch.stack(list(norms.values())).norm()
        nn.utils.clip_grads_with_norm_(self.weights, clip_norm, norm)
        finite = bool(torch.isfinite(norm) & torch.isfinite(tally.rows).all())
        if finite:
            self.optimizer.step()
        else:
            for buffer, old in zip(self.buffers, before, strict=True):
                buffer.copy_(old)
        by_part = {part: float(each) for part, each in norms.items()}
        return StepResult(tally, float(norm), by_part, rates, samples, self._cost(batches, heard), finite)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Losses and accuracies over the validation batches of all processes.

        Raises:
            UserError: no target among them.
        """
        self.model.eval()
        tally = Tally(self.phase.losses, self.device)
        for batch in batches:
            tally.add(self._forward(self.model, batch.to(self.device)))
        dist.total(tally.rows)
        stages.apply(self.phase, self.model, self.model.parts)
        if not tally.rows[:, 1].any():
            raise UserError("the validation data have no targets: give a directory with transcripts")
        return tally.figures()

    def _shares(self, batches: Sequence[Batch]) -> tuple[dict[str, float], int]:
        """Factor of each loss, its weight per target of the whole step; and samples of audio in the step."""
        targets = [self.model.targets(batch, self.losses) for batch in batches]
        here = [sum(each[name] for each in targets) for name in self.losses]
        here.append(sum(int(batch.wave_lens.sum()) for batch in batches))
        *counts, samples = dist.total(torch.tensor(here, device=self.device)).tolist()
        weights = self.phase.losses
        return {name: weights[name] / max(count, 1) for name, count in zip(self.losses, counts, strict=True)}, samples

    def _norm(self, part: str) -> torch.Tensor:
        gradients = [weight.grad for weight in self.model.parts[part].parameters() if weight.grad is not None]
        return dist.whole(nn.utils.get_total_norm(gradients))

    def _cost(self, batches: Sequence[Batch], heard: Sequence[torch.Tensor | None]) -> Cost:
        """FLOPs of the step; `heard` are the speech positions that the LLM was given of each micro-batch."""
        work = [
            each
            for batch, speech_lens in zip(batches, heard, strict=True)
            for each in self.model.work(batch, self.losses, speech_lens)
        ]
        return step_cost(work, self.model.parts, self.phase.train, self.device, self.model.recomputed)

    def _forward(self, module: Any, batch: Batch) -> dict[str, Loss]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            losses = module(batch, self.losses)
        unknown = [name for name in self.losses if name not in losses]
        if unknown:
            raise UserError(
                f"stage.phases: the model makes no loss named {', '.join(unknown)}: mend the phase's losses"
            )
        return losses

    def _check_reached(self) -> None:
        for part in () if self.checked else self.phase.train:
            if all(weight.grad is None for weight in self.model.parts[part].parameters()):
                raise UserError(
                    f"a phase trains {part}, but none of its losses ({', '.join(self.losses)}) reaches that part: "
                    "leave it out of train, or add its loss"
                )
        self.checked = True
