"""The table of local/compare_alignments.sh: when each alignment emerges, how good it gets, and for how many FLOPs.

Token error is 1 - accuracy of the next token on dev under teacher forcing. The FLOPs to the first one's error are those
at the first validation whose token error is no higher than the one that the first experiment ends with (ours).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from asrllm.console import UserError, run, write_atomically
from asrllm.score.results import markdown_table
from asrllm.train.log import read_metrics

HEAD = ["alignment", "parameters trained", "steps", "emergence step", "token accuracy, dev", "loss, dev"]
HEAD += ["WER %, dev (95 % interval)", "TFLOPs"]
Point = tuple[float, float]  # TFLOPs so far, token error


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("experiments", type=Path, nargs="+", help="finished ones, the first to compare with")
    options.add_argument("--out", type=Path, required=True, help="Markdown file that gets the table, beside the screen")
    return options


def main(argv: list[str]) -> None:
    """Read the finished experiments that are named, print and write a row for each."""
    args = parser().parse_args(argv)
    first = args.experiments[0]
    goal = curve(first)[-1][1]
    head = [*HEAD, f"TFLOPs to the token error of {first.name}"]
    table = markdown_table(head, [row(each, goal) for each in args.experiments])
    with write_atomically(args.out) as temporary:
        temporary.write_text(f"{table}\n", encoding="utf-8")
    print(table)


def row(folder: Path, goal: float) -> list[str]:
    """An experiment, and what it took to come to a token error of `goal`."""
    summary, score = (read(folder / name) for name in ("summary.json", "decode_greedy/dev/score.json"))
    jump, points, words = summary["emergence"], curve(folder), score["units"][0]
    interval = words["interval_percent"]  # none of a single utterance
    reached = next((tflops for tflops, error in points if error <= goal), None)
    return [
        folder.name,
        f"{sum(summary['trained'].values()) / 1e6:.2f} M",
        str(summary["steps"]),
        "too few points" if jump is None else "none" if jump["step"] is None else str(jump["step"]),
        f"{1 - points[-1][1]:.3f}",
        f"{summary['valid']['llm_loss']:.3f}",
        f"{words['err_percent']:.1f}" + (" ({:.1f} to {:.1f})".format(*interval) if interval else ""),
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
        raise UserError(f"{path}: no such file: let local/compare_alignments.sh run to its end")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
