"""curves.png of an experiment: its figures over the steps, with marks where a phase began and an encoder was swapped.

It knows the lines of metrics.jsonl; not models.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asrllm.console import write_atomically

Lines = Sequence[Mapping[str, Any]]

_GROUPS = {  # title -> what the names of its figures begin with
    "learning rate": "rate_",
    "gradient norm": "gradient_norm",
    "audio seconds / s": "audio_seconds_per_second",
    "memory, GiB": "memory_gib",
}


def draw(lines: Lines, path: Path, emergence: int | None = None) -> None:
    """Draw losses and accuracies, rates, gradients, speed and memory; and CKA where encoders were chosen by it."""
    names = sorted({name for line in lines for name in line if name.endswith(("loss", "accuracy"))})
    panels = [(name, [name]) for name in names]
    for title, start in _GROUPS.items():
        panels.append((title, sorted({name for line in lines for name in line if name.startswith(start)})))
    drift = [line for line in lines if line["kind"] == "cka"]
    rows = len(panels) + bool(drift)
    figure = Figure(figsize=(8, 2.2 * rows), layout="tight")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for axis, (title, shown) in zip(axes, panels, strict=False):
        axis.sharex(axes[0])
        _draw_panel(axis, title, shown, lines)
        if title == "llm_accuracy" and emergence is not None:
            axis.axvline(emergence, color="tab:red", linewidth=1, label=f"emergence, step {emergence}")
            axis.legend(loc="best", fontsize="small")
    axes[len(panels) - 1].set_xlabel("step (dotted: a phase begins; dashed: the encoder is swapped)")
    if drift:
        _draw_drift(axes[-1], drift, [line for line in lines if line["kind"] == "swap"])
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _draw_panel(axis: Axes, title: str, names: Sequence[str], lines: Lines) -> None:
    for name in names:
        for kind, style in (("train", "-"), ("valid", "o-")):
            points = [(line["step"], line[name]) for line in lines if line["kind"] == kind and name in line]
            if points:
                axis.plot(*zip(*points, strict=True), style, label=_label(name, title, kind), markersize=3)
    for line in lines:
        if line["kind"] in ("phase", "swap"):
            axis.axvline(line["step"], color="grey", linestyle="--" if line["kind"] == "swap" else ":", linewidth=1)
    axis.set_ylabel(title)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="best", fontsize="small")


def _label(name: str, title: str, kind: str) -> str:
    """The kind of a figure that has a panel of its own; else the part of the model that it is about."""
    if name == title:
        return kind
    return "all" if name == "gradient_norm" else name.removeprefix("rate_").removeprefix("gradient_norm_")


def _draw_drift(axis: Axes, drift: Lines, swaps: Lines) -> None:
    """CKA over the steps of the pretraining, a line for each reference, which begins there with its CKA to itself."""
    for reference in dict.fromkeys(line["reference"] for line in drift):
        points = {(line["snapshot"], line["cka"]) for line in drift if line["reference"] == reference}
        axis.plot(*zip(*sorted({(reference, 1.0)} | points), strict=True), "o-", markersize=3)
    for line in swaps:
        axis.axvline(line["snapshot"], color="grey", linestyle="--", linewidth=1)
    axis.set_ylabel("CKA to a reference")
    axis.set_xlabel("step of the pretraining (a line begins at its reference; dashed: its encoder is taken)")
