"""Show an experiment as one HTML page: what it is, its results, curves and analyses, and examples to hear and read."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from asrllm import console
from asrllm.analysis.page import choose, page
from asrllm.console import UserError, write_atomically
from asrllm.score.results import Decoding, collect

log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="show", description=__doc__, allow_abbrev=False)
    parse.add_argument("experiment", type=Path, metavar="EXP", help="finished experiment with a scored decoding")
    parse.add_argument("--data", type=Path, help="data directory of --decoding, whose audio the examples have")
    parse.add_argument("--decoding", help="that the examples are of, such as decode_greedy/test (the last one)")
    parse.add_argument("--examples", type=int, default=12, help="how many, evenly from most errors to fewest (12)")
    parse.add_argument(
        "--figures", type=Path, nargs="+", default=[], metavar="DIR", help="folders of asrllm.bin.analyze"
    )
    parse.add_argument("--out", type=Path, help="the page (EXP/page.html)")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    args = parser().parse_args(argv)
    folder = args.experiment
    if not folder.is_dir():
        raise UserError(f"{folder}: no such experiment")
    decodings = [each for each in collect(folder.parent).decodings if each.experiment == folder.name]
    decoding = _named(folder, decodings, args.decoding)
    where, told, examples = folder / decoding.name / decoding.set, "None: no --data was given.", []
    if args.data is not None:
        examples = choose(decoding, where, args.data, args.examples)
        told = f"{len(examples)} utterances of {where}, from most errors to fewest."
    out = args.out or folder / "page.html"
    text = page(folder, decodings, args.figures, told, examples)
    with write_atomically(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    log.info("%s: %d decodings, %d examples", out, len(decodings), len(examples))


def _named(folder: Path, decodings: Sequence[Decoding], name: str | None) -> Decoding:
    known = {f"{each.name}/{each.set}": each for each in decodings}
    if not known:
        raise UserError(f"{folder}: none of its decodings is scored: run stages 8 and 9")
    if name is not None and name not in known:
        raise UserError(f"--decoding {name}: {folder} has {', '.join(known)}")
    return known[name] if name else decodings[-1]


if __name__ == "__main__":
    console.run(main)
