"""What a phase holds in memory at its peak: weights, gradients and moments exactly, activations by a trial.

Activations are the tensors that autograd keeps for the backward pass. They are weighed on one row and on two equal
rows; a batch of more rows holds that much more with each (ours). Tensors that live within one operation, such as logits
and their gradient, and what the allocator and the program itself take, come on top. It knows parts and losses by name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from asrllm.batch import Batch
from asrllm.train import stage as stages
from asrllm.train.optim import seed_everything
from asrllm.train.stage import Phase


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    weights: int
    training: int  # gradients and the two moments of AdamW
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.training + self.activations


def estimate(
    model: Any,
    phase: Phase,
    row: Batch,
    rows: int,
    precision: Literal["fp32", "bf16"],
    device: torch.device,
    processes: int = 1,
) -> Memory:
    """Peak of a phase whose largest batch has `rows` utterances as long as the one in `row`.

    Of `processes` that share the weights each holds an equal part; what they put together for a pass comes on top. The
    model is left as the phase wants it: its parts trainable and in training mode, all others frozen.
    """
    stages.apply(phase, model, model.parts)
    trained = [weight for part in phase.train for weight in model.parts[part].parameters()]
    one, two = (_saved(model, tuple(phase.losses), row.repeat(times), precision, device) for times in (1, 2))
    weights, training = _size(model.parameters()) // processes, 3 * _size(trained) // processes
    return Memory(weights, training, one + (rows - 1) * (two - one))


def _size(weights: Iterable[nn.Parameter]) -> int:
    return sum({id(weight): weight.nbytes for weight in weights}.values())


def _saved(model: Any, losses: tuple[str, ...], batch: Batch, precision: str, device: torch.device) -> int:
    """Bytes that a forward pass leaves for the backward pass, weights not counted."""
    own = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def weigh(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    seed_everything(0)
    with (
        torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        made = model(batch.to(device), losses)  # alive until all is weighed, so that no storage is used twice
    del made
    return sum(kept.values())
