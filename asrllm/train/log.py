"""What training leaves to be read: metrics.jsonl, TensorBoard, curves.png, summary.json, lines of the log.

It knows figures by name and step; not models. Only the process of rank 0 writes.
"""

import json
import platform
import resource
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from asrllm import dist
from asrllm.batch import Loss
from asrllm.console import write_atomically


class Tally:
    """Sums over batches of every loss, so that means are exact.

    Args:
        weights: loss -> its weight in `loss`.
        device: where the losses are.
    """

    def __init__(self, weights: Mapping[str, float], device: torch.device) -> None:
        self.weights = weights
        self.rows = torch.zeros(len(weights), 4, dtype=torch.float64, device=device)  # sum, count, correct, judged

    def add(self, losses: Mapping[str, Loss]) -> None:
        """Add the losses of one batch."""
        for row, name in zip(self.rows, self.weights, strict=True):
            loss = losses[name]
            row[0] += loss.sum.detach()
            row[1] += loss.count
            if loss.correct is not None:
                row[2] += loss.correct
                row[3] += loss.count

    def figures(self) -> dict[str, float]:
        """`loss`, the weighted sum, and of every loss its mean `<name>_loss` and, where judged, `<name>_accuracy`."""
        figures = {"loss": 0.0}
        for name, (total, count, correct, judged) in zip(self.weights, self.rows.tolist(), strict=True):
            figures[f"{name}_loss"] = total / max(count, 1)
            figures["loss"] += self.weights[name] * figures[f"{name}_loss"]
            if judged:
                figures[f"{name}_accuracy"] = correct / judged
        return figures


class MetricLog:
    """Figures by step, of kind `train`, `valid` or `phase` (the first step of a phase).

    Args:
        exp: experiment folder.
        step: where training goes on; what an interrupted run logged beyond it is cut off.
    """

    def __init__(self, exp: Path, step: int) -> None:
        self.exp = exp
        self.path = exp / "metrics.jsonl"
        self.writes = dist.rank() == 0
        self.board: Any = None
        if self.writes:
            kept = [line for line in self._lines() if line["step"] <= step]
            with write_atomically(self.path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            self.board = SummaryWriter(str(exp / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, kind: str, figures: Mapping[str, float | int]) -> None:
        """Add the figures of one step."""
        if not self.writes:
            return
        with self.path.open("a") as stream:
            stream.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(f"{kind}/{name}", value, step)

    def draw(self) -> None:
        """Draw curves.png: every loss and accuracy of training and validation, and the learning rates."""
        if not self.writes:
            return
        lines = self._lines()
        names = sorted({name for line in lines for name in line if name.endswith(("loss", "accuracy"))})
        rates = sorted({name for line in lines for name in line if name.startswith("rate_")})
        panels = [(name, [name]) for name in names] + [("learning rate", rates)]
        figure = Figure(figsize=(8, 2.4 * len(panels)), layout="tight")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axis, (title, shown) in zip(axes[:, 0], panels, strict=True):
            for name in shown:
                for kind, style in (("train", "-"), ("valid", "o-")):
                    points = [(line["step"], line[name]) for line in lines if line["kind"] == kind and name in line]
                    if points:
                        label = kind if name == title else name.removeprefix("rate_")
                        axis.plot(*zip(*points, strict=True), style, label=label, markersize=3)
            for line in lines:
                if line["kind"] == "phase":
                    axis.axvline(line["step"], color="grey", linestyle=":", linewidth=1)
            axis.set_ylabel(title)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(loc="best", fontsize="small")
        axes[-1, 0].set_xlabel("step (dotted: a phase begins)")
        with write_atomically(self.exp / "curves.png") as temporary:
            figure.savefig(temporary, format="png", dpi=100)

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self.board is not None:
            self.board.close()

    def _lines(self) -> list[dict[str, Any]]:
        """All whole lines; a killed process may have left part of one at the end."""
        if not self.path.is_file():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def write_summary(exp: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json, the mark of a finished experiment."""
    with write_atomically(exp / "summary.json") as temporary:
        temporary.write_text(json.dumps(dict(summary), indent=1) + "\n")


def commit() -> str:
    """The git commit of this code, `unknown` where it is not in a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def memory_gib(device: torch.device) -> float:
    """Peak memory of this process, GiB: of its GPU if it has one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def device_name(device: torch.device) -> str:
    """The processor's name as its maker gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
