"""Estimate an n-gram LM over the CTC units on transcripts, into an ARPA file, for `look_ahead` of delayed fusion."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from asrllm import console
from asrllm.console import UserError, positive
from asrllm.text import tokenizer
from asrllm.text.ngram import witten_bell, write_arpa
from asrllm.text.tokenizer_training import read_transcripts

log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="estimate_ngram", description=__doc__, allow_abbrev=False)
    parse.add_argument("--tokenizer", type=Path, required=True, help="folder of the CTC units (stage 3)")
    parse.add_argument("--text", type=Path, required=True, help="Kaldi `text` of the training set")
    parse.add_argument("--order", type=positive, default=4, help="units of the longest n-gram (4)")
    parse.add_argument("--out", type=Path, required=True, help="ARPA file to write")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Count, smooth, write."""
    args = parser().parse_args(argv)
    units, texts = tokenizer.load(args.tokenizer), read_transcripts(args.text)
    if not texts:
        raise UserError(f"{args.text}: no transcript in it, expected those of the training set")
    ngrams = witten_bell(map(units.encode, texts), args.order, units.size)
    write_arpa(ngrams, units, args.out)
    log.info("%s: %d n-grams of %d transcripts", args.out, len(ngrams.log_probs), len(texts))


if __name__ == "__main__":
    console.run(main)
