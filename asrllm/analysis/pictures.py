"""The figures of an analysis as PNG: points with laws, curves with jumps, heat maps, shares with intervals.

It knows numbers and names; not where they come from.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from asrllm.analysis.listening import PROJECTOR
from asrllm.analysis.panel import Panel
from asrllm.analysis.scaling import Fit, Point
from asrllm.console import write_atomically
from asrllm.score.hallucination import Share
from asrllm.score.significance import percentiles
from asrllm.train.emergence import Emergence

Floats = NDArray[np.floating]


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all."""
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def scaling(points: Mapping[str, Sequence[Point]], fits: Mapping[str, Fit], rate: str) -> Figure:
    """Error against FLOPs, both logarithmic: the runs of each schedule, its law, and the 95 % band of that."""
    figure = Figure(figsize=(8, 5.5), layout="tight")
    axis = figure.subplots()
    for number, (name, runs) in enumerate(points.items()):
        color, flops = f"C{number}", [run.flops for run in runs]
        axis.plot(flops, [run.error for run in runs], "o", color=color, markersize=4)
        grid = np.geomspace(min(flops), max(flops), 60)
        drawn = np.array([[law.error(each) for each in grid] for law in fits[name].draws])
        low, high = np.array([percentiles(column) for column in drawn.T]).T
        axis.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)
        axis.plot(grid, [fits[name].law.error(each) for each in grid], color=color, label=name)
    axis.set(xscale="log", yscale="log", xlabel="model FLOPs, all stages", ylabel=f"{rate}, %")
    axis.grid(which="both", alpha=0.2)
    axis.legend()
    return figure


def jumps(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], found: Mapping[str, Emergence | None]) -> Figure:
    """Accuracy over the steps of each run, with a line at the step of its jump."""
    figure = Figure(figsize=(8, 5), layout="tight")
    axis = figure.subplots()
    for number, (name, (steps, accuracies)) in enumerate(curves.items()):
        axis.plot(steps, accuracies, color=f"C{number}", label=name, linewidth=1)
        jump = found[name]
        if jump is not None and jump.step is not None:
            axis.axvline(jump.step, color=f"C{number}", linestyle="--", linewidth=1)
    axis.set(xlabel="step (dashed: emergence)", ylabel="accuracy of the LLM under teacher forcing")
    axis.legend(fontsize="small")
    return figure


def heat_map(values: Floats, rows: Sequence[str], columns: Sequence[str], titles: tuple[str, str]) -> Figure:
    """CKA (rows, columns) from 0 to 1, with its figures; `titles` name what the rows and the columns are of."""
    size = 0.62 * max(len(rows), len(columns)) + 2.5
    figure = Figure(figsize=(size, size), layout="tight")
    axis = figure.subplots()
    _map(axis, values, 1.0)
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    axis.set(ylabel=titles[0], xlabel=titles[1])
    for (row, column), value in np.ndenumerate(values):
        if math.isfinite(value):
            shade = "white" if value < 0.6 else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=8)
    return figure


def attention(maps: Floats, titles: Sequence[str], parts: Mapping[str, int]) -> Figure:
    """Self-attention (M, L, L) as M panels: rows ask, columns are looked at; lines part prompt, audio and text.

    Args:
        maps: of a layer or a head each; every row sums to 1.
        titles: of the panels.
        parts: name -> positions, in their order; they sum to L.
    """
    across = math.ceil(math.sqrt(len(maps)))
    down = math.ceil(len(maps) / across)
    figure = Figure(figsize=(2.4 * across, 2.4 * down), layout="constrained")
    axes = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    ends = np.cumsum(list(parts.values()))
    centres = ends - np.array(list(parts.values())) / 2 - 0.5
    for axis, values, title in zip(axes, maps, titles, strict=False):
        _map(axis, np.sqrt(values), 1.0)  # the root: small weights are seen, too
        for end in ends[:-1]:
            axis.axhline(end - 0.5, color="white", linewidth=0.6)
            axis.axvline(end - 0.5, color="white", linewidth=0.6)
        axis.set_title(title, fontsize=9)
        axis.set_xticks(centres, list(parts), fontsize=6, rotation=90)
        axis.set_yticks(centres, list(parts), fontsize=6)
    for axis in axes[len(maps) :]:
        axis.set_axis_off()
    return figure


def shares(rows: Mapping[str, Mapping[str, Mapping[str, Share]]]) -> Figure:
    """Percentages with their exact intervals: a panel for each kind, a line for each decoding, a place for each set.

    A kind that no set has utterances for, such as output on non-speech where all is speech, has no panel, and in the
    panel of a kind such a set has no place.

    Args:
        rows: kind -> decoding -> set -> share.
    """
    kinds = {kind: {each: _known(line) for each, line in lines.items()} for kind, lines in rows.items()}
    kinds = {kind: lines for kind, lines in kinds.items() if any(lines.values())}
    height = max(2.4 * len(kinds), 0.18 * max(map(len, kinds.values())))  # a line of the legend for each decoding
    figure = Figure(figsize=(11, height), layout="constrained")
    for axis, (kind, lines) in zip(figure.subplots(len(kinds), 1, squeeze=False)[:, 0], kinds.items(), strict=True):
        sets = list(dict.fromkeys(name for line in lines.values() for name in line))
        for number, (decoding, line) in enumerate(lines.items()):
            shift = (number - (len(lines) - 1) / 2) * min(0.06, 0.8 / len(lines))
            places = [sets.index(name) + shift for name in line]
            values = np.array([share.percent for share in line.values()], dtype=float)
            ends = np.array([share.interval_percent for share in line.values()], dtype=float).reshape(-1, 2).T
            look = {"fmt": f"{'os^v'[number // 10 % 4]}-", "color": f"C{number}"}  # there are ten colours
            axis.errorbar(places, values, np.abs(ends - values), markersize=3, linewidth=1, label=decoding, **look)
        axis.set_xlim(-0.5, len(sets) - 0.5)
        axis.set_xticks(range(len(sets)), sets, fontsize=8)
        axis.set_ylabel(f"{kind}, %", fontsize=8)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize="x-small")
    return figure


def _known(line: Mapping[str, Share]) -> dict[str, Share]:
    """The sets that have utterances to take a share of."""
    return {name: share for name, share in line.items() if share.percent is not None}


def panels(found: Mapping[str, Panel]) -> Figure:
    """A panel for each figure, a dot with its interval for each experiment and site."""
    names = list(dict.fromkeys(name for panel in found.values() for name in panel.figures))
    figure = Figure(figsize=(11, 2.2 * math.ceil(len(names) / 3)), layout="tight")
    axes = figure.subplots(math.ceil(len(names) / 3), 3, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        for number, panel in enumerate(found.values()):
            for place, (site, each) in enumerate(panel.figures.get(name, {}).items()):
                low, high = each.interval or (each.value, each.value)
                errors = [[abs(each.value - low)], [abs(high - each.value)]]
                mark = "s" if site == PROJECTOR else "o"
                axis.errorbar([number + 0.15 * place], [each.value], errors, fmt=mark, color=f"C{number}")
        axis.set_title(name, fontsize=9)
        axis.set_xticks(range(len(found)), [Path(each).name for each in found], fontsize=6, rotation=20)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    return figure


def _map(axis: Axes, values: Floats, most: float) -> None:
    axis.imshow(values, vmin=0.0, vmax=most, cmap="viridis", interpolation="nearest")
