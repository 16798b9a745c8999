"""Data-parallel training: how the processes of a group share a model, its gradients and the moments of its weights.

`ddp` holds the whole model on every process and averages gradients while the backward pass runs (PyTorch Distributed,
Li et al. 2020). `fsdp2` holds one share of every weight, gradient and moment on each process and puts a block together
just when it runs (PyTorch FSDP, Zhao et al. 2023; `torch.distributed.fsdp.fully_shard`). One process is the simplest
case of both. It knows modules and weights; not losses, steps or files.
"""

import gc
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from asrllm import dist
from asrllm.config import Config
from asrllm.console import UserError
from asrllm.train.stage import Stage


class DdpConfig(Config):
    """The whole model on every process."""

    type: Literal["ddp"] = "ddp"


class Fsdp2Config(Config):
    """A share of every weight on each process, for models that one GPU cannot train."""

    type: Literal["fsdp2"]


ParallelConfig = Annotated[DdpConfig | Fsdp2Config, Field(discriminator="type")]


class Parallel:
    """A model that nobody shares: that of a single process.

    Args:
        model: has `parts`, modules by name.

    Attributes:
        module: what to call for losses whose gradient is wanted; gradients are means over all processes.
    """

    def __init__(self, model: Any) -> None:
        self.model: Any = model
        self.module: Any = model

    def begin(self) -> None:
        """Take notice of which weights are trained from now on."""

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Where one micro-batch of a step runs forward and backward."""
        return nullcontext()

    def finish(self, weights: Sequence[nn.Parameter], buffers: Sequence[torch.Tensor]) -> None:
        """After the last micro-batch: weights that no loss reached get gradient zero, buffers the mean of all."""
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        if buffers and dist.world_size() > 1:
            flat = dist.total(torch.cat([buffer.float().flatten() for buffer in buffers])) / dist.world_size()
            for buffer, mean in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))


class Ddp(Parallel):
    """A model that each process has as a whole."""

    def begin(self) -> None:
        """Wrap anew: the gradients of a bucket are averaged as soon as all of them are there."""
        self.module = None
        gc.collect()  # the hooks of the wrapping before are gone with it
        self.module = nn.parallel.DistributedDataParallel(
            _Beside(self.model), find_unused_parameters=True, gradient_as_bucket_view=True
        )
        self.module.broadcast_buffers = False  # `finish` averages them

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged with the last micro-batch, when they are complete."""
        return nullcontext() if last else self.module.no_sync()


class _Beside(nn.Module):
    """A model and a weight that no loss reaches: where there is none, DDP warns of having looked for one in vain."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unreached = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, *args: Any) -> Any:
        return self.model(*args)


class Fsdp2(Parallel):
    """A model of which each process has a share; its blocks are put together one at a time, the rest at once.

    In bf16 blocks are put together in bf16, and their gradients added up in fp32. Every micro-batch of a phase has to
    reach the same weights on all processes.

    Args:
        model: as above, with `blocks`, modules that run one after another, and `encode`, a second way in.
        stage: whose phases are trained.
        precision: of activations.
        device: where the model is.

    Raises:
        UserError: a weight that cannot be split, or trained weights of several types.
    """

    def __init__(self, model: Any, stage: Stage, precision: Literal["fp32", "bf16"], device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        super().__init__(model)
        _check(model, stage)
        mesh = init_device_mesh(device.type, (dist.world_size(),))
        policy = MixedPrecisionPolicy()
        if precision == "bf16":
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        self.units: list[Any] = []
        for block in model.blocks:
            for norm in block.modules():
                if isinstance(norm, nn.BatchNorm1d):  # its weights stay in fp32
                    self.units.append(fully_shard(norm, mesh=mesh))
            self.units.append(fully_shard(block, mesh=mesh, mp_policy=policy))
        # With each pass at an end no weight is left whole, so that weights may be read, loaded and frozen.
        self.units.append(fully_shard(model, mesh=mesh, reshard_after_forward=True))
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        model.encode = autocast(model.encode)  # also where it is called by itself, blocks being in bf16
        register_fsdp_forward_method(model, "encode")

    def begin(self) -> None:
        """A unit looks at what is trained of it when it is put together outside of a pass."""
        for unit in self.units:
            unit.unshard()
            unit.reshard()


def share(
    config: DdpConfig | Fsdp2Config,
    model: Any,
    stage: Stage,
    precision: Literal["fp32", "bf16"],
    device: torch.device,
) -> Parallel:
    """The model as the processes of this group share it; a single process has it for itself."""
    if dist.world_size() == 1:
        return Parallel(model)
    return Ddp(model) if config.type == "ddp" else Fsdp2(model, stage, precision, device)


def _check(model: Any, stage: Stage) -> None:
    for name, weight in model.named_parameters():
        if weight.ndim == 0:
            raise UserError(f"train.parallel: weight {name} is a single number, which fsdp2 cannot split: choose ddp")
    for number, phase in enumerate(stage.phases):
        kinds = {str(each.dtype) for part in phase.train for each in model.parts[part].parameters()}
        if len(kinds) > 1:
            raise UserError(
                f"stage.phases.{number}.train: the weights are of types {', '.join(sorted(kinds))}, but fsdp2 trains "
                "weights of one type: set model.llm.dtype to fp32, or choose train.parallel.type ddp"
            )
