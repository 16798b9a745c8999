"""Stage 1: write data/{train,dev,test} from a corpus of one's own. Change what is between the two lines of dashes.

As it stands it takes CORPUS/train.tsv, dev.tsv and test.tsv with a first line `audio text speaker` (TAB between),
paths of audio relative to the table. `asrllm.data.importing` and `layouts` read folders, CSV, JSON lines and
published layouts too.
"""

import argparse
import sys

from asrllm.console import run
from asrllm.data import corpora, importing
from asrllm.data.importing import Columns


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    return corpora.parser(__doc__, "TEMPLATE")


def main(argv: list[str]) -> None:
    """Write the data directories."""
    args = parser().parse_args(argv)
    # ------------------------------------------------------------------
    corpora.provide(args.corpus, [], args.download)  # an Archive(url, size, what it holds) for each part to be fetched
    sets = {name: list(importing.table(args.corpus / f"{name}.tsv", Columns())) for name in ("train", "dev", "test")}
    # ------------------------------------------------------------------
    corpora.write(sets, args.out)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
