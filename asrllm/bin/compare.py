"""Say whether two decodings of the same references differ: a plain sentence, then every test.

A and B are folders that asrllm.bin.score has written, or sgml files of sclite.
"""

import argparse
from pathlib import Path

from asrllm import console
from asrllm.console import UserError
from asrllm.score.comparison import compare, shown
from asrllm.score.reports import ROOT
from asrllm.score.scoring import RATE, Unit, read_score
from asrllm.score.sgml import Read, read_sgml


def parser() -> argparse.ArgumentParser:
    """Options of the program."""
    options = argparse.ArgumentParser(prog="compare", description=__doc__, allow_abbrev=False)
    options.add_argument("a", type=Path, help="folder of a scored decoding, or an sgml file")
    options.add_argument("b", type=Path, help="the same of the other system")
    options.add_argument("--unit", choices=list(RATE), default="word", help="what is counted (word)")
    return options


def main(argv: list[str] | None = None) -> None:
    """Read both, test, print."""
    args = parser().parse_args(argv)
    _check_normalizers(args.a, args.b)
    found = compare(_read(args.a, args.unit), _read(args.b, args.unit))
    print(found.sentence(str(args.a), str(args.b), RATE[args.unit]))
    print(f"\nA = {args.a}, B = {args.b}; two-sided tests of the hypothesis that A and B do not differ:")
    width = max((len(test.name) for test in found.tests), default=0)
    for test in found.tests:
        print(f"  {test.name.ljust(width)}  {shown(test.p_value)}  ({test.detail})")


def _read(place: Path, unit: Unit) -> dict[str, Read]:
    path = place / f"score_{RATE[unit].lower()}" / f"{ROOT}.sgml" if place.is_dir() else place
    if not path.is_file():
        raise UserError(f"{path}: no such file: score {place} with the report sgml and the unit {unit} first")
    return read_sgml(path)


def _check_normalizers(a: Path, b: Path) -> None:
    paths = [place / "score.json" for place in (a, b)]
    if all(path.is_file() for path in paths):
        one, other = (read_score(path) for path in paths)
        names = [f"{score.normalizer} ({score.normalizer_version})" for score in (one, other)]
        if names[0] != names[1] or one.match != other.match:
            raise UserError(
                f"{a} was scored under {names[0]} and {b} under {names[1]}, or with other options: score both again"
            )


if __name__ == "__main__":
    console.run(main)
