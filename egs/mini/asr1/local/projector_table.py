"""The table of local/compare_projectors.sh: when each projector emerges, how good it gets, and for how many FLOPs.

Token error is 1 - accuracy of the next token on dev under teacher forcing. The FLOPs to the first one's error are those
at the first validation whose token error is no higher than the one that the first experiment ends with (ours).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrllm import console
from asrllm.console import UserError
from asrllm.score.results import markdown_table
from asrllm.train.log import read_metrics

HEAD = ["projector", "parameters", "steps", "emergence step", "token accuracy, dev", "WER %, dev", "TFLOPs"]
Point = tuple[float, float]  # TFLOPs so far, token error


def main(argv: Sequence[str] | None = None) -> None:
    """Read the finished experiments that are named, print a row for each."""
    folders = [Path(name) for name in (sys.argv[1:] if argv is None else argv)]
    if not folders:
        raise UserError("projector_table.py: names no experiment: give their folders, the first to compare with")
    goal = curve(folders[0])[-1][1]
    print(
        markdown_table(
            [*HEAD, f"TFLOPs to the token error of {folders[0].name}"], [row(each, goal) for each in folders]
        )
    )


def row(folder: Path, goal: float) -> list[str]:
    """An experiment, and what it took to come to a token error of `goal`."""
    summary, score = (read(folder / name) for name in ("summary.json", "decode_greedy/dev/score.json"))
    jump, points = summary["emergence"], curve(folder)
    reached = next((tflops for tflops, error in points if error <= goal), None)
    return [
        folder.name,
        f"{summary['parameters']['projector'] / 1e6:.2f} M",
        str(summary["steps"]),
        "none" if jump is None or jump["step"] is None else str(jump["step"]),
        f"{1 - points[-1][1]:.3f}",
        f"{score['units'][0]['err_percent']:.1f}",
        f"{summary['flops']['model'] / 1e12:.1f}",
        "not reached" if reached is None else f"{reached:.1f}",
    ]


def curve(folder: Path) -> list[Point]:
    """At each validation; the last one is that of the averaged weights."""
    summary, points = read(folder / "summary.json"), []
    tflops, total = 0.0, summary["flops"]["model"] / 1e12
    for line in read_metrics(folder):
        if line["kind"] == "train":
            tflops = line["tflops"]
        elif line["kind"] == "valid":
            points.append((total if line["step"] == summary["steps"] else tflops, 1 - line["llm_accuracy"]))
    return [*points, (total, 1 - summary["valid"]["llm_accuracy"])]


def read(path: Path) -> Any:
    """A JSON file of an experiment."""
    if not path.is_file():
        raise UserError(f"{path}: no such file: let local/compare_projectors.sh run to its end")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    console.run(main)
