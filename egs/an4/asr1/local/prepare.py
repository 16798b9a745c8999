"""Stage 1: write data/{train,dev,test} from CMU AN4: people spelling and counting, an hour, 16 kHz.

`an4/etc/an4_{train,test}.{fileids,transcription}` and `an4/wav/<fileid>.{sph,wav,flac}`. The last speakers of the
training part, with a tenth of its utterances, are the development set.
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
    "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz",
    "64 MB",
    "an4/etc",
    checksum="sha256:a0525579493735d32b60fb6fa5975dd0eaacde087b0a4eeb7f13b7ef33077b12",
)
LINE = re.compile(r"(?:<s> )?(.*?)(?: </s>)? ?\(([^()]+)\)")


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    return corpora.parser(__doc__, "an4_pieces")


def transcripts(path: Path) -> dict[str, str]:
    """Texts by utterance from lines such as `<s> GO </s> (an253-fash-b)`."""
    texts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = LINE.fullmatch(line.strip())
        if not match:
            raise UserError(f"{path}: line {number}: found {line!r}, expected words and an utterance in brackets")
        texts[match[2]] = match[1].lower()
    return texts


def part(corpus: Path, name: str) -> list[Utterance]:
    """The utterances of the part train or test."""
    texts = transcripts(corpus / "etc" / f"an4_{name}.transcription")
    ids = corpus / "etc" / f"an4_{name}.fileids"
    utterances = []
    for number, file_id in enumerate(ids.read_text(encoding="utf-8").split(), 1):
        key = file_id.rsplit("/", 1)[-1]
        files = [path for path in (corpus / "wav").glob(f"{file_id}.*") if path.suffix in (".sph", ".wav", ".flac")]
        if key not in texts or not files:
            what = "no transcript" if key not in texts else f"no recording {corpus / 'wav' / file_id}.sph"
            raise UserError(f"{ids}: line {number}: {what} for {key}: is the corpus whole?")
        utterance, speaker, _ = key.split("-")
        utterances.append(Utterance(f"{speaker}-{utterance}", speaker, texts[key], str(files[0])))
    return utterances


def main(argv: list[str]) -> None:
    """Write the three data directories."""
    args = parser().parse_args(argv)
    corpora.provide(args.corpus, [ARCHIVE], args.download)
    corpus = args.corpus.resolve() / "an4"
    train, dev = corpora.held_out(part(corpus, "train"), 0.1)
    corpora.write({"train": train, "dev": dev, "test": part(corpus, "test")}, args.out)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
