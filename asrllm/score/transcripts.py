"""Files of transcripts that scoring reads and writes: Kaldi's `text` and `utt2spk`, sclite's `trn`.

Joined by utterance id, never by line number. A byte order mark and Windows line ends are let pass.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asrllm.console import UserError, write_atomically
from asrllm.score.markup import Item, MarkupError, parse

IdKind = Literal["spu_id", "rm", "swb", "wsj", "atis", "sp"]  # sclite -i: how the speaker stands in an utterance id
Transcript = str | tuple[Item, ...]  # plain words parted by spaces, or items where there is markup

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
_ASCII_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_SPECIAL = re.compile(r"[{}@;\\*]")


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance of a trn file."""

    number: int
    utt_id: str
    speaker: str
    transcript: Transcript


def read_text(path: Path) -> dict[str, str]:
    """Kaldi `text`: utterance id -> transcript, which may be empty.

    Raises:
        UserError: no file, not UTF-8, an empty line, an utterance given twice; names file and line.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
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


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file without their ends.

    Raises:
        UserError: no file, or bytes that are not UTF-8; names file and line.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise UserError(f"{path}: line {number}: not UTF-8: convert the file") from None
                if "\x00" in text:
                    raise UserError(f"{path}: line {number}: a zero byte, as in UTF-16 or binary: convert to UTF-8")
                yield text.removesuffix("\n").removesuffix("\r")
    except OSError as fault:
        raise UserError(f"{path}: cannot be read: {fault.strerror or fault}") from None


def fold(text: str) -> str:
    """ASCII letters in lower case and no others, which is how sclite ignores case."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def read_trn(path: Path, id_kind: IdKind = "spu_id", case_sensitive: bool = False) -> dict[str, Line]:
    """sclite's `trn`: utterance id -> line, `words (utterance)`; lines of `;;` and `**` are comments.

    Args:
        path: the file.
        id_kind: where the speaker ends in the id; `spu_id`, `rm` and `swb`: at the first `-`, else at the first `_`.
        case_sensitive: otherwise ids and words are folded, as sclite does.

    Raises:
        UserError: no file, not UTF-8, no id, one with a space or without a speaker, text behind it, an id given
            twice, broken markup; names file and line.
    """
    table: dict[str, Line] = {}
    for number, raw in enumerate(read_lines(path), 1):
        line = (raw if case_sensitive else fold(raw)).strip()
        if not line or line.startswith((";;", "**")):
            continue
        try:
            words, utt_id = _split_id(line)
            speaker = _speaker(utt_id, id_kind)
            transcript: Transcript = parse(words) if _SPECIAL.search(words) else words
        except MarkupError as fault:
            raise UserError(f"{path}: line {number}: {fault}") from None
        if utt_id in table:
            first = table[utt_id].number
            raise UserError(f"{path}: line {number}: utterance {utt_id} is given twice, first in line {first}")
        table[utt_id] = Line(number, utt_id, speaker, transcript)
    if not table:
        raise UserError(f"{path}: no utterance in it: expected lines such as: words of it (speaker-utterance)")
    return table


def _split_id(line: str) -> tuple[str, str]:
    words, bracket, rest = line.rpartition("(")
    utt_id, end, after = rest.partition(")")
    if not bracket or not end:
        raise MarkupError(f"no utterance id at the end of {line[-40:]!r}: expected (speaker-utterance)")
    if after.strip():
        raise MarkupError(f"found {after.strip()[:20]!r} behind the utterance id ({utt_id}): expected nothing")
    if not utt_id or any(letter.isspace() for letter in utt_id):
        raise MarkupError(f"the utterance id ({utt_id}) is empty or holds a space: expected (speaker-utterance)")
    return words.rstrip(), utt_id


def _speaker(utt_id: str, id_kind: IdKind) -> str:
    match id_kind:
        case "sp":
            return f"({utt_id})"
        case "wsj" | "atis":
            return utt_id[:3]
    speaker, mark, _ = utt_id.partition("-")
    if not mark:
        speaker, mark, _ = utt_id.partition("_")
    if not mark:
        raise MarkupError(f"no speaker in the utterance id ({utt_id}): expected (speaker-utterance) or id_kind sp")
    return speaker


def write_trn(texts: Mapping[str, str], path: Path) -> None:
    """Write sclite's `trn`: the words, then `(speaker-utterance)`; read it with `sclite -i rm -e utf-8`.

    Characters that are markup there are written as HTML entities, the same in references and hypotheses.

    Args:
        texts: `speaker-utterance` -> words.
        path: the file.
    """
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for name, text in texts.items():
            stream.write(f"{text.translate(_MARKUP)} ({name})\n".lstrip())
