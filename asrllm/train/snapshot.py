"""What pretraining keeps of itself for later stages: weights at equal distances, in `exp/<name>/snapshots`.

A snapshot is a folder `step-N` with `weights.safetensors` and `progress.json`; it is whole or absent, so another
job may watch the folder. It knows files; not what the weights are of.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from asrllm.console import UserError, write_atomically
from asrllm.train.checkpoint import Tensors, is_finished, write_weights


@dataclass(frozen=True)
class Snapshot:
    """Weights at one moment of a pretraining."""

    step: int
    share: float  # of the pretraining that was done, 0 to 1
    folder: Path  # with weights.safetensors


class Snapshots:
    """The snapshots of the pretraining in folder `exp`."""

    def __init__(self, exp: Path) -> None:
        self.exp = exp
        self.folder = exp / "snapshots"

    def save(self, step: int, share: float, weights: Tensors) -> None:
        """Write the snapshot of a step."""
        with write_atomically(self.folder / f"step-{step}") as temporary:
            temporary.mkdir()
            write_weights(weights, temporary / "weights.safetensors")
            (temporary / "progress.json").write_text(json.dumps({"step": step, "share": share}) + "\n")

    def steps(self) -> list[int]:
        """Steps of all snapshots, ascending."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def all(self) -> list[Snapshot]:
        """All snapshots by step, ascending."""
        folders = [self.folder / f"step-{step}" for step in self.steps()]
        return [Snapshot(**json.loads((path / "progress.json").read_text()), folder=path) for path in folders]

    def final(self) -> Snapshot | None:
        """The weights that the pretraining ended with; None while it goes on."""
        if not is_finished(self.exp):
            return None
        return Snapshot(json.loads((self.exp / "summary.json").read_text())["steps"], 1.0, self.exp)

    def cut(self, step: int) -> None:
        """Remove snapshots later than `step`."""
        for each in self.steps():
            if each > step:
                shutil.rmtree(self.folder / f"step-{each}")

    def check(self, finished: bool) -> None:
        """Refuse a pretraining to take encoders from.

        Args:
            finished: it must have ended; else it must have begun.

        Raises:
            UserError: no experiment, or not finished, or without snapshots.
        """
        if not (self.exp / "config.yaml").is_file():
            raise UserError(f"{self.exp}: no pretraining there to take encoders from: start it first (stage 4)")
        if finished and self.final() is None:
            raise UserError(f"{self.exp}: the pretraining has not ended: let it end first, or take mode: online")
        if finished and not self.all():
            raise UserError(
                f"{self.folder}: holds no snapshots to swap encoders with: "
                "pretrain with train.snapshot_every_steps, into a new folder"
            )
