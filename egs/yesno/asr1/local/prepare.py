"""Stage 1: write data/{train,dev,test} from yesno (OpenSLR 1): 60 recordings of eight words, "yes" or "no", in Hebrew.

A file's name is its transcript: 1 is yes, 0 is no. As in Kaldi's recipe, the first half of the files by name is for
training, the rest the test set; every eighth of the former is the development set. There is one speaker.
"""

import argparse
import sys
from pathlib import Path

from asrllm.console import UserError, run
from asrllm.data import corpora
from asrllm.data.corpora import Archive
from asrllm.data.kaldi import Utterance

ARCHIVE = Archive("https://www.openslr.org/resources/1/waves_yesno.tar.gz", "4.5 MB", "waves_yesno")
WORDS = {"0": "no", "1": "yes"}


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    return corpora.parser(__doc__, "yesno")


def utterance(path: Path) -> Utterance:
    """The utterance of a file such as 0_1_0_0_1_1_1_0.wav."""
    digits = path.stem.split("_")
    if not set(digits) <= WORDS.keys():
        raise UserError(f"{path}: expected a name of digits 0 and 1, such as 0_1_0_0_1_1_1_0.wav")
    return Utterance(f"speaker-{path.stem}", "speaker", " ".join(WORDS[digit] for digit in digits), str(path))


def main(argv: list[str]) -> None:
    """Write the three data directories."""
    args = parser().parse_args(argv)
    corpora.provide(args.corpus, [ARCHIVE], args.download)
    files = sorted((args.corpus.resolve() / "waves_yesno").glob("*.wav"))
    utterances = [utterance(path) for path in files]
    train, test = utterances[: len(utterances) // 2], utterances[len(utterances) // 2 :]
    dev = train[::8]
    corpora.write({"train": [each for each in train if each not in dev], "dev": dev, "test": test}, args.out)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
