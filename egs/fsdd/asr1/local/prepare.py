"""Stage 1: write data/{train,dev,test} from the Free Spoken Digit Dataset: single digits at 8 kHz, six speakers.

`recordings/{digit}_{speaker}_{index}.wav` (or .flac). The test set is one speaker, who is heard nowhere else; of the
others the recordings 0 to 4 of each digit, which the dataset calls its test split, are the development set.
"""

import argparse
import re
import sys
from pathlib import Path

from asrllm.console import UserError, run
from asrllm.data import corpora
from asrllm.data.corpora import Archive
from asrllm.data.kaldi import Utterance

ARCHIVE = Archive(
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.9.tar.gz",
    "some 20 MB",
    "recordings",
    top="free-spoken-digit-dataset-1.0.9",
)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAME = re.compile(r"(\d)_([a-z]+)_(\d+)")


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = corpora.parser(__doc__, "fsdd")
    options.add_argument("--test_speaker", default="george", help="who is kept for the test (%(default)s)")
    return options


def main(argv: list[str]) -> None:
    """Write the three data directories."""
    args = parser().parse_args(argv)
    corpora.provide(args.corpus, [ARCHIVE], args.download)
    folder: Path = args.corpus.resolve() / "recordings"
    sets: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    speakers = set()
    for path in sorted([*folder.glob("*.wav"), *folder.glob("*.flac")]):
        match = NAME.fullmatch(path.stem)
        if not match:
            raise UserError(f"{path}: expected a name such as 7_george_12{path.suffix}")
        digit, speaker, index = match.groups()
        speakers.add(speaker)
        name = "test" if speaker == args.test_speaker else "dev" if int(index) < 5 else "train"
        utt_id = f"{speaker}-{digit}-{int(index):02}"
        sets[name].append(Utterance(utt_id, speaker, DIGITS[int(digit)], str(path)))
    if args.test_speaker not in speakers:
        raise UserError(f"--test_speaker {args.test_speaker}: {folder} has {', '.join(sorted(speakers)) or 'nobody'}")
    corpora.write(sets, args.out)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
