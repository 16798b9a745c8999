"""Stage 1: write data/{train,dev,test} from LoquaciousSet (Hugging Face: speechbrain/LoquaciousSet), English, 25,000
hours.

The dataset is streamed once into tar shards, in which the audio stays; a start that was stopped goes on behind its last
whole shard. The data directories point into the shards, so run.sh trains on them as they are (`--format false`).
"""

import argparse
import sys
from pathlib import Path

from asrllm.console import UserError, run
from asrllm.data import corpora, importing, shards
from asrllm.data.importing import Columns

HOURS = {"small": 250, "medium": 2500, "clean": 13000, "large": 25000}  # of training speech
BYTES_PER_HOUR = 3600 * 16000 * 2
COLUMNS = Columns(audio="wav", text="text", utt_id="ID", speaker="spk_id")


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = corpora.parser(__doc__, "loquacious")
    options.add_argument("--subset", choices=HOURS, default="large", help="how much to train on (%(default)s)")
    options.add_argument("--source", default="speechbrain/LoquaciousSet", help="hub id or a folder with a copy")
    options.add_argument("--shard_mb", type=int, default=1000, help="size of a shard (%(default)s)")
    return options


def main(argv: list[str]) -> None:
    """Fill the shards, then write the data directories."""
    args = parser().parse_args(argv)
    sets = {}
    for split in ("train", "dev", "test"):
        folder: Path = args.corpus.resolve() / args.subset / split
        if not (folder / "shards.json").exists():
            if not args.download:
                size = HOURS[args.subset] * BYTES_PER_HOUR / 1e9
                raise UserError(
                    f"{folder}: not there: name the corpus' folder with --corpus, or fetch "
                    f"https://huggingface.co/datasets/{args.source} (subset {args.subset}: {HOURS[args.subset]} hours, "
                    f"about {size:.0f} GB) into {args.corpus} with --download"
                )
            shards.write(
                lambda done, split=split: importing.huggingface(args.source, args.subset, split, COLUMNS, done),
                folder,
                args.shard_mb * 1_000_000,
            )
        sets[split] = list(shards.utterances(folder))
    corpora.write(sets, args.out)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
