"""Stage 1: write data/{train,dev,test} of one language of Common Voice.

Mozilla gives a personal address for each download (https://commonvoice.mozilla.org/datasets, after one's e-mail
address), so there is no archive to fetch without it: give it with --url, or unpack it yourself and name the folder of
the language, which holds train.tsv, dev.tsv, test.tsv and clips/.
"""

import argparse
import sys
from pathlib import Path

from asrllm.console import UserError, run
from asrllm.data import corpora, layouts
from asrllm.data.corpora import Archive

PARTS = ("train", "dev", "test")


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = corpora.parser(__doc__, "commonvoice")
    options.add_argument("--language", default="en", help="code of the language (%(default)s)")
    options.add_argument("--url", help="with --download: the personal address of the archive")
    options.add_argument("--train", default="train", help="table to train on, such as validated or other (%(default)s)")
    return options


def find(corpus: Path, language: str) -> Path | None:
    """The folder of the language, in `corpus` or in a release below it."""
    places = [corpus, corpus / language, *sorted(corpus.glob(f"cv-corpus-*/{language}"), reverse=True)]
    return next((place for place in places if (place / "train.tsv").is_file()), None)


def main(argv: list[str]) -> None:
    """Write the three data directories."""
    args = parser().parse_args(argv)
    folder = find(args.corpus, args.language)
    if folder is None and args.download and args.url:
        size = "a few MB to some 90 GB, by language"
        corpora.fetch(Archive(args.url, size, "."), args.corpus)
        folder = find(args.corpus, args.language)
    if folder is None:
        raise UserError(
            f"{args.corpus / args.language / 'train.tsv'}: not there: name the corpus' folder with --corpus, or fetch "
            f"https://commonvoice.mozilla.org/datasets (a few MB to some 90 GB) into {args.corpus} with "
            "--download --url URL"
        )
    tables = {"train": args.train, "dev": "dev", "test": "test"}
    held = {name: list(layouts.common_voice(folder.resolve(), table)) for name, table in tables.items()}
    kept = {each.utt_id for name in ("dev", "test") for each in held[name]}
    speakers = {each.speaker for name in ("dev", "test") for each in held[name]}
    held["train"] = [each for each in held["train"] if each.utt_id not in kept and each.speaker not in speakers]
    corpora.write(held, args.out)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
