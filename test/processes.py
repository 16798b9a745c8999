"""Processes that form a group as those of torchrun do.

This one hosts the store where they meet, on a port that it keeps, so that there is no race for one.
"""

import multiprocessing
import os
from collections.abc import Callable

import torch

PRELOADED = ["asrllm.train.trainer", "torch.distributed.fsdp", "torch.utils.tensorboard", "matplotlib.pyplot"]


def run(target: Callable[..., None], *args: object, count: int = 2, seconds: float = 300) -> list[int | None]:
    """Call `target` in processes that import torch once; their exit codes, None for one that hung and was killed."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    children = [context.Process(target=_member, args=(rank, count, store.port, target, args)) for rank in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(seconds)
    codes = [child.exitcode for child in children]
    for child in children:
        child.kill()
    return codes


def _member(rank: int, count: int, port: int, target: Callable[..., None], args: tuple) -> None:
    place = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # nobody else serves it
    torch.set_num_threads(1)
    target(*args)
    if count > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
