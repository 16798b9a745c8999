"""What an analysis says, as Markdown and as plain values for JSON.

It knows fits, jumps and estimates; neither experiments nor pictures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from asrllm.analysis.panel import Panel
from asrllm.analysis.runs import Run
from asrllm.analysis.scaling import Fit, budget_numbers, compute_ratio, reduction
from asrllm.console import UserError
from asrllm.score.results import NONE, markdown_table
from asrllm.score.scoring import RATE
from asrllm.train.emergence import FEWEST, Emergence

Interval = tuple[float, float]


def within(value: float, interval: Interval | None, places: int = 3) -> str:
    """A value with its interval; of numbers from a million on the power of ten."""
    said, *ends = (f"{each:.{places}f}" if abs(each) < 1e6 else f"{each:.0e}" for each in (value, *(interval or ())))
    return f"{said} ({ends[0]} to {ends[1]})" if ends else said


def scaling(
    runs: Mapping[str, Sequence[Run]], fits: Mapping[str, Fit], error: float | None
) -> tuple[str, dict[str, Any]]:
    """The laws of all schedules, and each schedule against the first.

    Args:
        runs: of each schedule.
        fits: of each schedule.
        error: at which FLOPs are compared; None: the best that every schedule reaches at its own largest budget.
    """
    unit = next(iter(runs.values()))[0].unit
    rows, notes = [], []
    for name, fit in fits.items():
        flops = [run.flops for run in runs[name]]
        rows.append([name, str(len(flops)), str(int(budget_numbers(flops).max()) + 1), *_law(fit)])
        notes += [f"- {name}: {fit.note}." for _ in range(bool(fit.note))]
    head = [
        "schedule",
        "runs",
        "budgets",
        "law",
        "E_inf, %",
        "exponent",
        "left out: power",
        "left out: floor",
        "held out",
    ]
    blocks = [f"# {RATE[unit]} against model FLOPs", markdown_table(head, rows), "\n".join(notes)]
    compared, against = _comparison(fits, runs, error) if len(fits) > 1 else ([], "")
    data = {
        "unit": unit,
        "laws": {name: _plain(fit) for name, fit in fits.items()},
        "comparison": compared,
        "runs": [
            {"schedule": name, "experiment": str(run.experiment), **asdict(run.point)}
            for name, each in runs.items()
            for run in each
        ],
    }
    points = [
        [str(run.experiment), name, f"{run.flops:.3e}", str(run.seed), f"{run.point.error:.2f}"]
        for name, each in runs.items()
        for run in sorted(each, key=lambda run: run.flops)
    ]
    blocks += [
        against,
        "Intervals: 95 %, bootstrap over (seed, budget). Left out: mean absolute residual of log error on the budget "
        "left out; the form with less is taken. Held out: relative error of the prediction for the largest budget.",
        "## Runs",
        markdown_table(["experiment", "schedule", "FLOPs, all stages", "seed", f"{RATE[unit]}, %"], points),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n", data


def _law(fit: Fit) -> list[str]:
    left = [f"{fit.left_out[form]:.4f}" if form in fit.left_out else NONE for form in ("power", "floor")]
    held = NONE if fit.held_out is None else f"{100 * fit.held_out:+.1f} %"
    if fit.law.floor:
        floor = within(fit.law.floor, fit.floor_interval, 2)
        return ["with floor", floor, within(fit.law.alpha, fit.alpha_interval), *left, held]
    return ["pure power", NONE, within(fit.law.alpha, fit.alpha_interval), *left, held]


def _plain(fit: Fit) -> dict[str, Any]:
    return {key: value for key, value in asdict(fit).items() if key != "draws"}


def _comparison(
    fits: Mapping[str, Fit], runs: Mapping[str, Sequence[Run]], error: float | None
) -> tuple[list[dict[str, Any]], str]:
    largest = {name: max(run.flops for run in each) for name, each in runs.items()}
    common = min(largest.values())
    target = error or max(fit.law.error(largest[name]) for name, fit in fits.items())
    (first, base), *others = fits.items()
    rows, data = [], []
    for name, fit in others:
        less, between = reduction(fit, base, common)
        row: dict[str, Any] = {"schedule": name, "against": first, "at_flops": common, "error_reduction": less}
        row["error_reduction_interval"] = between
        try:
            ratio, ends = compute_ratio(fit, base, target)
            row |= {"at_error": target, "flops_ratio": ratio, "flops_ratio_interval": ends}
            said = within(100 * ratio, (100 * ends[0], 100 * ends[1]), 1)
        except UserError as fault:
            said = str(fault)
        rows.append([name, within(100 * less, (100 * between[0], 100 * between[1]), 1), said])
        data.append(row)
    head = [
        "schedule",
        f"relative reduction of the error at {common:.2e} FLOPs, %",
        f"FLOPs at an error of {target:.2f} %, %",
    ]
    return data, f"## Against {first}\n\n" + markdown_table(head, rows)


def panels(found: Mapping[str, Panel]) -> str:
    """Figures by site, a column for each experiment; below, what to mind."""
    keys = list(
        dict.fromkeys((name, site) for panel in found.values() for name, at in panel.figures.items() for site in at)
    )
    rows, notes = [], []
    for name, site in keys:
        cells = []
        for experiment, panel in found.items():
            estimate = panel.figures.get(name, {}).get(site)
            known = estimate is not None and math.isfinite(estimate.value)
            cells.append(within(estimate.value, estimate.interval) if estimate and known else NONE)
            if estimate is not None and estimate.note:
                notes.append(f"- {name} {site} of `{experiment}`: {estimate.note}.".replace("  ", " "))
        rows.append([f"{name}, {site}" if site else name, *cells])
    blocks = [markdown_table(["", *(f"`{name}`" for name in found)], sorted(rows)), "\n".join(notes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def emergence(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], found: Mapping[str, Emergence | None]
) -> str:
    """Step, height and slope of the jump of each run; of one that logged too little, that it did."""
    rows, notes = [], []
    for name, jump in found.items():
        if jump is None:
            rows.append([name, *[NONE] * 3])
            few = len(curves[name][0])
            notes.append(
                f"- `{name}` has logged {few} points, {FEWEST} at least are needed: lower train.log_every_steps."
            )
        else:
            step = "none" if jump.step is None else str(jump.step)
            rows.append([name, step, f"{jump.height:.3f}", f"{1000 * jump.max_slope:.3f}"])
    blocks = [markdown_table(["experiment", "step", "height", "largest slope, per 1000 steps"], rows), "\n".join(notes)]
    return "\n\n".join(filter(None, blocks)) + "\n"
