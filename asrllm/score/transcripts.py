"""Files of transcripts that scoring reads and writes: Kaldi's `text` and `utt2spk`, sclite's `trn`.

Joined by utterance id, never by line number.
"""

from collections.abc import Mapping
from pathlib import Path

from asrllm.console import UserError, write_atomically

# What sclite reads as alternatives, optional words, comments, the null word. A backslash mends only some of them.
_MARKUP = str.maketrans(
    {
        "&": "&amp;",
        "{": "&lbrace;",
        "}": "&rbrace;",
        "(": "&lpar;",
        ")": "&rpar;",
        "@": "&commat;",
        ";": "&semi;",
        "*": "&ast;",
        "\\": "&bsol;",
    }
)


def read_text(path: Path) -> dict[str, str]:
    """Kaldi `text`: utterance id -> transcript, which may be empty.

    Raises:
        UserError: no file, not UTF-8, an empty line, an utterance given twice; names file and line.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(_read_lines(path), 1):
        utt_id, _, text = line.strip().replace("\t", " ").partition(" ")
        if not utt_id:
            raise UserError(f"{path}: line {number}: found an empty line, expected an utterance id and its words")
        if utt_id in table:
            raise UserError(f"{path}: line {number}: utterance {utt_id} is given twice: keep one of them")
        table[utt_id] = text.strip()
    if not table:
        raise UserError(f"{path}: the file is empty: expected one line for each utterance")
    return table


def read_utt2spk(path: Path) -> dict[str, str]:
    """Kaldi `utt2spk`: utterance id -> speaker.

    Raises:
        UserError: as `read_text`; a line that is not an utterance and one speaker.
    """
    speakers = read_text(path)
    for number, (utt_id, speaker) in enumerate(speakers.items(), 1):
        if not speaker or " " in speaker:
            raise UserError(f"{path}: line {number}: expected one speaker for utterance {utt_id}, found {speaker!r}")
    return speakers


def _read_lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise UserError(f"{path}: cannot be read: {fault.strerror or fault}") from None
    try:
        return data.decode("utf-8-sig").removesuffix("\n").split("\n") if data else []
    except UnicodeDecodeError as fault:
        number = data.count(b"\n", 0, fault.start) + 1
        raise UserError(f"{path}: line {number}: not UTF-8: convert the file") from None


def write_trn(texts: Mapping[str, str], speakers: Mapping[str, str], path: Path) -> None:
    """Write sclite's `trn`: the words, then `(speaker-utterance)`; read it with `sclite -i rm -e utf-8`.

    Characters that are markup there are written as HTML entities, the same in references and hypotheses.
    """
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for utt_id, text in texts.items():
            words = " ".join(text.split()).translate(_MARKUP)
            stream.write(f"{words} ({speakers[utt_id]}-{utt_id})\n".lstrip())
