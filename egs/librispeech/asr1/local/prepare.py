"""Stage 1: write data directories of LibriSpeech (OpenSLR 12): read English, 100 or 960 hours of training speech.

`train_clean_100` or `train_960`, `dev` (dev-clean and dev-other together), `test_clean`, `test_other`; words in lower
case.
"""

import argparse
import sys
from pathlib import Path

from asrllm.console import UserError, run
from asrllm.data import corpora, layouts
from asrllm.data.corpora import Archive

URL = "https://www.openslr.org/resources/12/"
PARTS = {  # bytes and MD5 of each archive
    "dev-clean": (337926286, "42e2234ba48799c1f50f24a7926300a1"),
    "dev-other": (314305928, "c8d0bcc9cca99d4f8b62fcc847357931"),
    "test-clean": (346663984, "32fa31d27d2e1cad72775fee3f4849a9"),
    "test-other": (328757843, "fb5a50374b501bb3bac4815ee91d3135"),
    "train-clean-100": (6387309499, "2a93770f6d5c6c964bc36631d331a522"),
    "train-clean-360": (23049477885, "c0e676e450a7ff2f54aeade5171606fa"),
    "train-other-500": (30593501606, "d1a0fd59409feb2c614ce4d30c387708"),
}
TESTS = {"dev": ["dev-clean", "dev-other"], "test_clean": ["test-clean"], "test_other": ["test-other"]}
TRAININGS = {
    100: {"train_clean_100": ["train-clean-100"]},
    960: {"train_960": ["train-clean-100", "train-clean-360", "train-other-500"]},
}


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = corpora.parser(__doc__, "librispeech_mini")
    options.add_argument("--hours", type=int, choices=TRAININGS, default=100, help="of training speech")
    options.add_argument("--partial", action="store_true", help="take the parts that are there, for an excerpt")
    return options


def main(argv: list[str]) -> None:
    """Write the data directories."""
    args = parser().parse_args(argv)
    sets = {**TRAININGS[args.hours], **TESTS}
    corpus: Path = args.corpus.resolve()
    parts = [part for names in sets.values() for part in names]
    if args.partial:
        parts = [part for part in parts if (corpus / "LibriSpeech" / part).is_dir()]
    archives = [
        Archive(f"{URL}{part}.tar.gz", f"{size / 1e9:.1f} GB", f"LibriSpeech/{part}", size, f"md5:{md5}")
        for part, (size, md5) in PARTS.items()
        if part in parts
    ]
    if not archives:
        raise UserError(
            f"{corpus}: holds no LibriSpeech/train-clean-100 nor any other part: name the folder by --corpus"
        )
    corpora.provide(corpus, archives, args.download)
    utterances = {part: list(layouts.librispeech(corpus / "LibriSpeech" / part)) for part in parts}
    corpora.write(
        {name: [each for part in names for each in utterances.get(part, [])] for name, names in sets.items()}, args.out
    )


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
