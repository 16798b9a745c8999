"""Stage 1: write data/{train,dev,test} from AISHELL-1 (OpenSLR 33): read Mandarin, 150 hours of training speech.

Transcripts lose the spaces between words: the units are characters, and so is what is scored.
"""

import argparse
import sys

from asrllm.console import run
from asrllm.data import corpora, layouts
from asrllm.data.corpora import Archive

ARCHIVE = Archive(
    "https://www.openslr.org/resources/33/data_aishell.tgz",
    "15.6 GB",
    "data_aishell",
    15582913665,
    "md5:2f494334227864a8a8fec932999db9d8",
    inner="data_aishell/wav/*.tar.gz",
)
PARTS = ("train", "dev", "test")


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    return corpora.parser(__doc__, "aishell_mini")


def main(argv: list[str]) -> None:
    """Write the three data directories."""
    args = parser().parse_args(argv)
    corpora.provide(args.corpus, [ARCHIVE], args.download)
    corpus = args.corpus.resolve() / "data_aishell"
    corpora.write({part: layouts.aishell(corpus, part) for part in PARTS}, args.out)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
