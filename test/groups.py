"""The bodies of processes of a group; for test_dist.py."""

import json
from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from asrllm import dist


def member(folder: Path) -> None:
    """One of two processes, as torchrun would start it."""
    device = dist.start(0)
    dist.start(0)  # twice is once
    dist.barrier()
    answer = [dist.rank(), dist.world_size(), str(device), dist.total(torch.tensor([dist.rank() + 1.0])).item()]
    assert dist.same(answer) == [0, 2, "cpu", 3.0]
    (folder / str(dist.rank())).write_text(json.dumps(answer))


def splitter() -> None:
    """Seven rows over two processes: a share each, whole again on all, or on rank 0 alone."""
    device = dist.start(0)
    mesh = init_device_mesh("cpu", (2,))
    rows = torch.arange(14.0, device=device).view(7, 2)
    like = distribute_tensor(torch.zeros(7, 2), mesh, [Shard(0)])
    split = dist.split_like(rows, like)
    assert dist.is_split(split) and not dist.is_split(rows) and dist.split_like(split, like) is split
    assert split.to_local().equal(rows[:4] if dist.rank() == 0 else rows[4:])
    assert dist.whole(split).equal(rows) and dist.whole(rows) is rows
    assert dist.gather(split).equal(rows if dist.rank() == 0 else torch.zeros(0))
