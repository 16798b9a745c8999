"""The frozen encoders of a phase, chosen in turn and put into the model.

It ties the rule of `swap` to a model, to held-out batches and to the snapshot folder; it knows nothing of the training
around it. All processes do the same here; where one could see another state of the folder, rank 0 decides.
"""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from asrllm import dist
from asrllm.batch import Batch
from asrllm.console import UserError
from asrllm.train import checkpoint, swap
from asrllm.train.cka import CkaConfig, linear_cka, pool
from asrllm.train.snapshot import Snapshot, Snapshots
from asrllm.train.swap import Choice, SwapConfig

log = logging.getLogger("asrllm")

Probe = Callable[[int, int], Iterable[Batch]]  # (utterances, seed): the same held-out batches on every process
Ckas = dict[tuple[Path, Path, CkaConfig], float]  # of two encoders, by their folders
_HELD = 3  # outputs in memory at a time: the snapshot that is watched, the one before it and the reference


class Encoders:
    """The encoders of one phase.

    Args:
        config: which.
        model: has `parts`, modules by name, and `encode(batch)`, frames (B, T, D) and lengths.
        probe: makes the batches that CKA is measured on.
        device: where the model is.
        choices: those made before an interruption.
        ckas: those known already; what is measured is put in, so that another phase need not measure it again.
    """

    def __init__(
        self,
        config: SwapConfig,
        model: Any,
        probe: Probe,
        device: torch.device,
        choices: Iterable[Choice],
        ckas: Ckas,
    ) -> None:
        self.config, self.model, self.probe, self.device = config, model, probe, device
        self.choices = list(choices)
        self.snapshots = Snapshots(Path(config.pretraining))
        self.ckas = ckas
        self.held: dict[Path, torch.Tensor] = {}  # outputs of the encoders that were compared last

    def take(self, turn: int) -> Choice:
        """Choose the encoder of a turn, unless that is done, and put it into the model.

        Raises:
            UserError: the pretraining is not there, has no snapshots or lets us wait too long; weights do not fit.
        """
        if not self.choices and self.config.mode != "online":
            choose = swap.replay if self.config.mode == "replay" else swap.fixed
            final = self.snapshots.final()
            assert final is not None, "checked before training"
            self.choices = choose(self.snapshots.all(), final, self.config, self._cka)
        while len(self.choices) <= turn:
            self.choices.append(self._watch())
        choice = self.choices[turn]
        self._load(Path(choice.folder))
        self.held.clear()
        return choice

    def _watch(self) -> Choice:
        """The next choice of a pretraining that may still run, waited for."""
        armed = len(self.choices) < self.config.most
        reference = self._find(self.choices[-1].step) if self.choices else None
        walk = swap.Walk(self.config, self._cka, reference)
        seen = reference.step if reference else 0
        begin = time.monotonic()
        while True:
            final, snapshots = dist.same(
                (self.snapshots.final(), self.snapshots.all())
            )  # final first: it is asked later
            for each in [each for each in snapshots if each.step > seen]:
                seen, begin = each.step, time.monotonic()
                choice = walk.see(each, armed)
                if choice is not None:
                    return choice
            if final is not None:
                return walk.end(final)
            self._wait(begin, seen)

    def _wait(self, begin: float, seen: int) -> None:
        hours = (time.monotonic() - begin) / 3600
        if hours > self.config.max_wait_hours:
            raise UserError(
                f"{self.config.pretraining}: no new snapshot after step {seen} for {hours:.1f} hours "
                "(stage.phases.encoder_swaps.max_wait_hours): see whether the pretraining runs, then start this again"
            )
        log.info("waiting for a snapshot of %s after step %d", self.config.pretraining, seen)
        time.sleep(self.config.poll_seconds)

    def _find(self, step: int) -> Snapshot:
        return next(each for each in self.snapshots.all() if each.step == step)

    def _cka(self, one: Snapshot, other: Snapshot) -> float:
        pair = (one.folder, other.folder, self.config.cka)
        if pair not in self.ckas:
            before, now = self._outputs(other.folder), self._outputs(one.folder)  # the later one is asked for again
            self.ckas[pair] = dist.same(linear_cka(now, before))
        return self.ckas[pair]

    @torch.no_grad()
    def _outputs(self, folder: Path) -> torch.Tensor:
        """Frames (N, D) of the held-out utterances from the encoder of a folder; those used last are kept."""
        frames = self.held.pop(folder, None)
        if frames is None:
            self._load(folder)
            self.model.eval()
            cka = self.config.cka
            outputs = (self.model.encode(batch.to(self.device)) for batch in self.probe(cka.utterances, cka.seed))
            frames = pool(outputs, cka.frames, cka.seed)
        self.held[folder] = frames
        while len(self.held) > _HELD:
            del self.held[next(iter(self.held))]
        return frames

    def _load(self, folder: Path) -> None:
        path = folder / "weights.safetensors"
        tensors = checkpoint.read_weights(path)
        for part in self.config.parts:
            checkpoint.load_part(self.model.parts[part], tensors, part, str(path))
