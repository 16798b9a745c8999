"""Find the weights of a decoding's scores on its references, without running anything.

Writes the weights as a YAML that bin.rescore takes, or, with --base, one that builds on the YAML of a rescoring or of a
search; and beside it a picture of the errors around them. Tune on a development set, apply to the test set.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from asrllm import config as configs
from asrllm import console
from asrllm.console import UserError, write_atomically
from asrllm.decode.decoder import DecodeConfig
from asrllm.decode.rescore import RescoreConfig
from asrllm.hypothesis import read_decoding
from asrllm.score import transcripts
from asrllm.score.tuning import Lists, TuneConfig, Tuned, count_errors, tune
from asrllm.text.normalize import normalizer

SCHEMA = TuneConfig
log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="tune", description=__doc__, allow_abbrev=False)
    parse.add_argument("--config", type=Path, required=True, help="YAML: which weights, in which ranges")
    parse.add_argument("--in", type=Path, required=True, dest="decoding", help="folder of a decoding with n-best lists")
    parse.add_argument("--ref", type=Path, required=True, help="Kaldi directory with the text of the same set")
    parse.add_argument("--out", type=Path, required=True, help="the YAML to write; the picture is written beside it")
    parse.add_argument("--base", type=Path, help="YAML of a rescoring or a search that gets these weights")
    parse.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the YAML")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Count, tune, print, write."""
    args = parser().parse_args(argv)
    config = configs.load(args.config, SCHEMA, args.set)
    place = _place(args.base) if args.base else []
    spelling = config.score.spelling_table
    normalize = normalizer(config.score.normalizer, Path(spelling) if spelling else None)
    lists = count_errors(read_decoding(args.decoding), transcripts.read_text(args.ref / "text"), config, normalize)
    if not lists.tokens:
        raise UserError(
            f"{args.ref}: its references hold no {config.score.units[0]}: there is nothing to count errors on"
        )
    found = tune(lists, config)
    print(_table(lists, found))
    tree: dict[str, object] = {"weights": found.weights}
    for key in reversed(place):
        tree = {key: tree}
    if args.base:
        tree = {"base": os.path.relpath(args.base, args.out.parent), **tree}
    with write_atomically(args.out) as temporary:
        comment = f"# Tuned by bin.tune on {args.decoding} and {args.ref}: {found.errors} errors in {lists.tokens}.\n"
        temporary.write_text(comment + yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    _draw(lists, found, args.out.with_suffix(".png"))
    log.info("%s: weights, and a picture beside it", args.out)


def _place(base: Path) -> list[str]:
    """The keys above `weights` in a YAML of a rescoring or of a search."""
    try:
        configs.load(base, RescoreConfig)
    except UserError:
        configs.load(base, DecodeConfig)
        return ["search"]
    return []


def _table(lists: Lists, found: Tuned) -> str:
    """The errors before and after, and along each tuned weight."""

    def rate(errors: int) -> str:
        return f"{100 * errors / lists.tokens:.2f} % [ {errors} / {lists.tokens} ]"

    lines = [
        f"as the lists are ordered   {rate(lists.errors_of_first)}",
        f"with the weights found     {rate(found.errors)}   "
        + " ".join(f"{k}={v:g}" for k, v in found.weights.items()),
        f"best texts of the lists    {rate(lists.fewest_errors)}",
    ]
    for name, curve in found.curves.items():
        lines += ["", f"{name:>10}  error rate, other weights as found"]
        lines += [f"{value:10.4g}  {rate(errors)}" for value, errors in curve]
    return "\n".join(lines)


def _draw(lists: Lists, found: Tuned, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(found.curves), 3), layout="constrained")
    for place, (name, curve) in enumerate(found.curves.items(), 1):
        axes = figure.add_subplot(1, len(found.curves), place, xlabel=f"weight of {name}", ylabel="error rate, %")
        axes.plot([value for value, _ in curve], [100 * errors / lists.tokens for _, errors in curve], marker=".")
        axes.axvline(found.weights[name], linestyle="dotted", color="grey")
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


if __name__ == "__main__":
    console.run(main)
