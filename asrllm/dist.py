"""The process group as torchrun describes it, or a group of one.

It knows devices, ranks and sums; not models.
"""

import os
from typing import TypeVar

import torch
import torch.distributed

from asrllm.console import UserError

Value = TypeVar("Value")


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def start(ngpu: int, number: int | None = None) -> torch.device:
    """Join the process group that torchrun made, if any, and return the device of this process.

    Args:
        ngpu: GPUs asked for on this machine; 0 means CPU.
        number: which of them to use; torchrun's local rank where none is given.

    Raises:
        UserError: fewer GPUs than asked for.
    """
    here = torch.cuda.device_count()
    if ngpu > here:
        raise UserError(f"--ngpu {ngpu}: this machine has {here} usable GPU(s): give --ngpu 0 to run on the CPU")
    if world_size() > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if ngpu else "gloo")
    if ngpu == 0:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if number is None else number)
    torch.cuda.set_device(device)
    return device


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes."""
    if world_size() > 1:
        torch.distributed.all_reduce(values)
    return values


def same(value: Value) -> Value:
    """What rank 0 has, on every process."""
    if world_size() == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        torch.distributed.barrier()
