"""Corpora in the folders and tables in which they are published: LibriSpeech, AISHELL-1, Common Voice."""

import csv
from collections.abc import Iterator
from pathlib import Path

from asrllm.console import UserError, log
from asrllm.data.kaldi import Utterance

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph")


def librispeech(part: Path) -> Iterator[Utterance]:
    """`<part>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt` and FLAC files beside it; texts in lower case.

    Raises:
        UserError: no such part, a line without words, or a recording that is listed or there alone.
    """
    tables = sorted(part.glob("*/*/*.trans.txt"))
    if not tables:
        raise UserError(f"{part}: holds no <speaker>/<chapter>/*.trans.txt: is it a part of LibriSpeech?")
    for table in tables:
        texts = _transcripts(table)
        files = {path.stem for path in table.parent.glob("*.flac")}
        if odd := sorted(files ^ texts.keys()):
            raise UserError(f"{table}: {odd[0]} and {len(odd) - 1} more are not both listed and there as FLAC")
        for utt_id, text in texts.items():
            path = str(table.parent / f"{utt_id}.flac")
            yield Utterance(utt_id, utt_id.split("-", 1)[0], text.lower(), path)


def aishell(corpus: Path, part: str) -> list[Utterance]:
    """`data_aishell/wav/<part>/<speaker>/*.wav` (or .flac) with the one table of transcripts.

    The spaces that AISHELL-1 puts between words are taken out, but for those between words in Latin letters. Recordings
    without a transcript, of which the corpus has some, are left out and counted.

    Raises:
        UserError: no recordings of the part, or no table.
    """
    texts = _transcripts(corpus / "transcript" / "aishell_transcript_v0.8.txt")
    files = [path for path in (corpus / "wav" / part).glob("*/*") if path.suffix in AUDIO_SUFFIXES]
    if not files:
        raise UserError(
            f"{corpus / 'wav' / part}: holds no <speaker>/*.wav: is it AISHELL-1, unpacked with its speakers?"
        )
    spoken = [path for path in sorted(files) if path.stem in texts]
    if len(spoken) < len(files):
        log.warning(
            "%s: %d recordings without a transcript are left out", corpus / "wav" / part, len(files) - len(spoken)
        )
    return [Utterance(path.stem, path.parent.name, join_han(texts[path.stem]), str(path)) for path in spoken]


def join_han(text: str) -> str:
    """A text without the spaces beside characters that are not ASCII, and without byte order marks."""
    joined = ""
    for word in text.replace("\ufeff", "").split():
        parted = joined and joined[-1].isascii() and word[0].isascii()
        joined += f" {word}" if parted else word
    return joined


def common_voice(language: Path, name: str) -> Iterator[Utterance]:
    """The rows of `<language>/<name>.tsv` with `<language>/clips`; a speaker is the begin of the contributor's hash.

    Raises:
        UserError: no such table, a column or a sentence that is missing.
    """
    table = language / f"{name}.tsv"
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            for row in rows:
                if not all(row.get(key) for key in ("client_id", "path", "sentence")):
                    raise UserError(
                        f"{table}: line {rows.line_num}: expected client_id, path and sentence, found {row}"
                    )
                speaker = row["client_id"][:16]
                text = row["sentence"].replace('""', '"').strip()
                yield Utterance(
                    f"{speaker}-{Path(row['path']).stem}", speaker, text, str(language / "clips" / row["path"])
                )
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a table of Common Voice ({error})") from None


def _transcripts(path: Path) -> dict[str, str]:
    """Lines of an utterance and its words."""
    texts: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable table of transcripts ({error})") from None
    for number, line in enumerate(lines, 1):
        utt_id, *words = line.split(maxsplit=1)[:2] or [""]
        if not words:
            raise UserError(f"{path}: line {number}: found {line!r}, expected an utterance and its words")
        texts[utt_id] = words[0].strip()
    return texts
