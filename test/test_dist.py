"""The process group: one process without torchrun, sums over two with it, GPUs that are not there."""

import multiprocessing
import os
import socket

import pytest
import torch

from asrllm import dist
from asrllm.console import UserError


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert dist.start(0) == torch.device("cpu")
    assert (dist.rank(), dist.world_size()) == (0, 1)
    dist.barrier()
    assert dist.total(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("here", [0, 1])
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, here: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    said = rf"--ngpu {here + 1}: this machine has {here} usable GPU\(s\): give --ngpu 0 to run on the CPU"
    with pytest.raises(UserError, match=said):
        dist.start(here + 1)


def member(number: int, port: int, answers: multiprocessing.Queue) -> None:
    """One of two processes, as torchrun would start it."""
    place = {"RANK": number, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    device = dist.start(0)
    dist.start(0)  # twice is once
    dist.barrier()
    answers.put((dist.rank(), dist.world_size(), str(device), dist.total(torch.tensor([number + 1.0])).item()))
    torch.distributed.destroy_process_group()


def test_two_processes_add_up() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=member, args=(number, port, answers)) for number in range(2)]
    for child in children:
        child.start()
    found = sorted(answers.get(timeout=60) for _ in children)
    for child in children:
        child.join(60)
    assert found == [(0, 2, "cpu", 3.0), (1, 2, "cpu", 3.0)]
