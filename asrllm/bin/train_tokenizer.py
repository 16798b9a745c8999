"""Stage 3: train the units of the CTC head on transcripts."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from asrllm import config, console
from asrllm.text import tokenizer
from asrllm.text import tokenizer_training as training

SCHEMA = training.TokenizerFile
log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="train_tokenizer", description=__doc__, allow_abbrev=False)
    parse.add_argument("--config", type=Path, required=True, help="YAML with the key `tokenizer`")
    parse.add_argument("--text", type=Path, required=True, help="Kaldi `text` of the training set")
    parse.add_argument("--out", type=Path, required=True, help="folder to write")
    parse.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the YAML")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Train the tokenizer, unless the folder holds the one of this YAML and text already."""
    args = parser().parse_args(argv)
    wanted = config.load(args.config, SCHEMA, args.set)
    texts = training.read_transcripts(args.text)
    if training.is_trained(args.out, wanted.tokenizer, texts):
        log.info("%s: up to date", args.out)
        return
    training.train(wanted.tokenizer, texts, args.out)
    if (listed := args.out / training.OOV_FILE).is_file():
        rows = [line.split("\t") for line in listed.read_text(encoding="utf-8").splitlines()]
        count = sum(int(row[1]) for row in rows)
        log.info(
            "%d words, %d running ones, are in no dictionary, listed with their phonemes in %s",
            len(rows),
            count,
            listed,
        )
    units = tokenizer.load(args.out)
    labels = sum(len(units.encode(text)) for text in texts)
    words = sum(len(text.split()) for text in texts)
    log.info("%s: %d units with the blank, %.2f labels a word", args.out, units.size, labels / max(1, words))


if __name__ == "__main__":
    console.run(main)
