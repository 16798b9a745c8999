"""What training leaves to be read: metrics.jsonl, TensorBoard, curves.png, summary.json, lines of the log.

It knows figures by name and step; not models. Only the process of rank 0 writes.
"""

import json
import platform
import resource
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from asrllm import dist
from asrllm.batch import Loss
from asrllm.console import write_atomically
from asrllm.train import curves
from asrllm.train.emergence import Emergence, find


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


class Speed:
    """How fast audio and model FLOPs go by, from now on."""

    def __init__(self, audio_seconds: float, flops: float) -> None:
        self.audio_seconds, self.flops, self.since = audio_seconds, flops, time.monotonic()

    def figures(self, audio_seconds: float, flops: float) -> dict[str, float]:
        """Rates since the start, from the totals of now."""
        seconds = max(time.monotonic() - self.since, 1e-9)
        return {
            "audio_seconds_per_second": (audio_seconds - self.audio_seconds) / seconds,
            "tflops_per_second": (flops - self.flops) / 1e12 / seconds,
        }


class MetricLog:
    """Figures by step, of kind `train`, `valid`, `phase`, `swap` (both at the first step after it) or `cka`.

    Args:
        exp: experiment folder.
        step: where training goes on; what an interrupted run logged beyond it is cut off.
        warmup_steps: of the first phase, before which no plateau is looked for.
    """

    def __init__(self, exp: Path, step: int, warmup_steps: int = 0) -> None:
        self.exp, self.warmup_steps = exp, warmup_steps
        self.path = exp / "metrics.jsonl"
        self.writes = dist.rank() == 0
        self.board: Any = None
        if self.writes:
            kept = [line for line in read_metrics(exp) if line["step"] <= step]
            with write_atomically(self.path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            self.board = SummaryWriter(str(exp / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, kind: str, figures: Mapping[str, float | int | str]) -> None:
        """Add the figures of one step; those of a `snapshot` stand at its own step in TensorBoard."""
        if not self.writes:
            return
        with self.path.open("a") as stream:
            stream.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        place = figures["snapshot"] if kind == "cka" else step
        for name, value in figures.items():
            add = self.board.add_text if isinstance(value, str) else self.board.add_scalar
            add(f"{kind}/{name}", value, place)

    def draw(self) -> None:
        """Draw curves.png."""
        if self.writes:
            found = self.emergence()
            curves.draw(read_metrics(self.exp), self.exp / "curves.png", found.step if found else None)

    def emergence(self) -> Emergence | None:
        """The jump of the accuracy of the loss `llm` in training, if there is enough of it."""
        return find(*accuracies(read_metrics(self.exp)), self.warmup_steps)

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self.board is not None:
            self.board.close()


def read_metrics(exp: Path) -> list[dict[str, Any]]:
    """All whole lines of metrics.jsonl, none where there is no file; a killed process may leave half of one."""
    path = exp / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def accuracies(lines: Iterable[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    """Steps, and the LLM's accuracy in training at each."""
    found = [line for line in lines if line["kind"] == "train" and "llm_accuracy" in line]
    return [line["step"] for line in found], [line["llm_accuracy"] for line in found]


def said(figures: Mapping[str, float]) -> str:
    """Figures in one line, small ones in scientific notation."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.1e}" if 0 < abs(value) < 1e-2 else f"{name.replace('_', ' ')} {value:.3f}"
        for name, value in figures.items()
    )


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
