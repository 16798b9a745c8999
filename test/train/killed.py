"""The body of a training process that kills itself between two file operations; for test_kill.py."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import toy

from asrllm.batch import Batch

OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")


def train(exp: Path, pretraining: Path | None, kill_at: int) -> None:
    """A pretraining that keeps snapshots; or, where `pretraining` is given, head, then both, on its encoders in turn.

    Counts as events what opens, renames, removes or makes something in `exp` and the making of a batch. At event
    `kill_at` the process kills itself; one that ends writes how many there were.
    """
    events = 0

    def happen() -> None:
        nonlocal events
        if events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        events += 1

    def watch(name: str, arguments: tuple) -> None:
        if name in OPERATIONS and str(arguments[0]).startswith(f"{exp}/"):
            happen()

    class Loader(toy.ToyLoader):
        def batches(self, epoch: int, start: int) -> Iterator[Batch]:
            for batch in super().batches(epoch, start):
                happen()
                yield batch

    torch.set_num_threads(1)
    sys.addaudithook(watch)
    toy.seed_everything(2)
    settings: dict = {"checkpoint_every_steps": 2, "valid_every_steps": 3, "keep_checkpoints": 2, "average_best": 2}
    if pretraining is None:
        phases, settings["snapshot_every_steps"] = [toy.PRETRAINING], 3
    else:
        swaps = toy.swapping(pretraining, mode="fixed", fractions=[0.4, 0.7, 1.0], cka={"utterances": 5})
        phases = [swaps, {"steps": 4, "train": {"encoder": 0.01, "head": 0.02}, "losses": {"near": 1.0}}]
    toy.make_trainer(exp, toy.ToyModel(0.3, True), Loader(), phases, **settings).run()
    Path(f"{exp}.events").write_text(str(events))
