"""The process group as torchrun describes it, or a group of one.

It knows devices, ranks, sums, and tensors that are split over processes; not models.
"""

import logging
import os
from typing import Any, TypeVar

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
        UserError: fewer GPUs than asked for, or fewer than none.
    """
    here = torch.cuda.device_count()
    if not 0 <= ngpu <= here:
        raise UserError(f"--ngpu {ngpu}: this machine has {here} usable GPU(s): give --ngpu 0 to run on the CPU")
    if world_size() > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if ngpu else "gloo")
        if rank() > 0:
            logging.getLogger("asrllm").setLevel(logging.WARNING)  # rank 0 says what all of them do
    if ngpu == 0:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if number is None else number)
    torch.cuda.set_device(device)
    return device


def stop() -> None:
    """Leave the process group once the work is done; a process that just exits may abort with threads still there."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes."""
    if world_size() > 1:
        torch.distributed.all_reduce(values)
    return values


def is_split(tensor: torch.Tensor) -> bool:
    """Whether each process holds only its share of a tensor."""
    if world_size() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Any) -> torch.Tensor:
    """All of a tensor that may be split; the processes have to ask for it together."""
    return tensor.full_tensor() if is_split(tensor) else tensor


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """The same for one that is large: of a split tensor all of it is on the CPU of rank 0, nothing elsewhere."""
    if not is_split(tensor):
        return tensor
    full = whole(tensor)
    return full.cpu() if rank() == 0 else full.new_empty(0)


def split_like(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """The share of a whole tensor that this process holds of `like`; all of it where that is not split."""
    if not is_split(like) or is_split(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


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
