"""Average the best checkpoints of an experiment into one weights file; parts that it did not train are copied."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from asrllm import console
from asrllm.console import UserError, positive
from asrllm.train import checkpoint


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = argparse.ArgumentParser(prog="average", description=__doc__, allow_abbrev=False)
    options.add_argument("--exp", type=Path, required=True, help="experiment folder with checkpoints/")
    options.add_argument("--best", type=positive, default=5, help="how many checkpoints (%(default)s)")
    options.add_argument(
        "--by", default="loss", help="validation figure that ranks them: loss, <name>_accuracy, ... (loss)"
    )
    options.add_argument("--out", type=Path, required=True, help="weights file to write, such as average.safetensors")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    options = parser().parse_args(argv)
    if not (options.exp / "checkpoints").is_dir():
        raise UserError(f"{options.exp}: no experiment with checkpoints there")
    checkpoints = checkpoint.Checkpoints(options.exp / "checkpoints", options.by, options.best)
    steps = checkpoints.best(options.best)
    if not steps:
        raise UserError(f"{options.exp}/checkpoints: no checkpoint with the validation figure {options.by!r}")
    weights = checkpoints.average(steps)
    final = options.exp / "weights.safetensors"
    kept = checkpoint.read_weights(final) if final.is_file() else {}
    checkpoint.write_weights({**kept, **weights}, options.out)
    console.log.info("average of steps %s -> %s", sorted(steps), options.out)


if __name__ == "__main__":
    console.run(main)
