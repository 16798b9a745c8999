"""Kaldi data directories: text tables joined by key, never by line number.

`wav.scp` (recording, source), `utt2spk`, and, where present, `text`, `segments`, `reco2file_and_channel`, `utt2dur`.
Without `segments` a recording is an utterance. It knows the tables, not the audio behind them (`asrllm.data.audio`),
and joins only what is sound; the rules of a whole directory are in `asrllm.data.validate`.
"""

import codecs
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from asrllm.console import UserError, write_atomically

_BOM = codecs.BOM_UTF8
_PIECE_BYTES = 1 << 24  # of a line, read at once


@dataclass(frozen=True)
class Utterance:
    """One utterance and where its audio lies."""

    utt_id: str
    speaker: str
    text: str  # empty where the directory has no `text`
    source: str  # a path, a pipe `command |`, or `ark:offset`
    start: float | None = None  # seconds into the recording; None: from its beginning
    end: float | None = None  # seconds; None: to its end
    channel: int | None = None  # counted from 1; matters only where the recording has several
    seconds: float | None = None  # None where nothing but the audio tells
    recording: str | None = None  # key in `wav.scp`; None: the utterance's own


@dataclass(frozen=True)
class Problem:
    """One broken rule; its text is one sentence."""

    file: Path
    line: int  # from 1; 0 where the file as a whole is meant
    found: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}: line {self.line}" if self.line else f"{self.file}"
        return f"{place}: found {self.found}, expected {self.expected}"


@dataclass(frozen=True)
class Row:
    """One line of a table: a key and the rest, blanks at both ends removed."""

    line: int
    key: str
    value: str


def byte_order(key: str) -> bytes:
    """Sort key of `LC_ALL=C sort`, the order of all tables."""
    return key.encode()


def scan(path: Path) -> tuple[list[Row], list[Problem]]:
    """Read a table as far as it is sound.

    Returns:
        The rows in file order, the first one of each key; and a problem for each line that is not UTF-8, is empty, has
        no value after its key or repeats a key.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for each in stream(path):
        if isinstance(each, Problem):
            problems.append(each)
        elif each.key in first:
            found = f"the key {each.key} again (first in line {first[each.key]})"
            problems.append(Problem(path, each.line, found, "each key once"))
        else:
            first[each.key] = each.line
            rows.append(each)
    return rows, problems


def stream(path: Path) -> Iterator[Row | Problem]:
    """The rows of a table as they come, and a problem for each line that is none; keys may repeat."""
    number = 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(_lines(file), 1):
                if raw.startswith(_BOM):
                    yield Problem(path, number, "a byte order mark before the key", "none")
                    raw = raw.removeprefix(_BOM)
                if fault := _unreadable(raw):
                    yield Problem(path, number, *fault)
                    if b"\0" in raw:
                        return  # not text: every further line would be a problem
                    continue
                key, value = _split(raw.decode())
                if not key:
                    yield Problem(path, number, "an empty line", "a key and its value")
                elif not value:
                    wanted = "its transcript" if path.name == "text" else "a value after it"
                    yield Problem(path, number, f"only the key {key}", wanted)
                else:
                    yield Row(number, key, value)
    except OSError as error:
        yield Problem(path, 0, f"no readable file ({error.strerror})", "one line for each key")
        return
    if not number:
        yield Problem(path, 0, "an empty file", "one line for each key")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines without their ends; one that holds a NUL byte comes as far as it was read, since it may have no end."""
    parts: list[bytes] = []
    while part := file.readline(_PIECE_BYTES):
        parts.append(part)
        if part.endswith(b"\n") or b"\0" in part:
            yield b"".join(parts).removesuffix(b"\n")
            parts = []
    if parts:
        yield b"".join(parts)


def _unreadable(line: bytes) -> tuple[str, str] | None:
    """What was found and what was expected where a line is not plain UTF-8."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16 text", "UTF-8: iconv -f UTF-16 -t UTF-8 FILE"
    if b"\0" in line:
        return "a NUL byte, as in a binary file or one that a crash cut off", "UTF-8 text"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"the byte {line[error.start]:#04x} at position {error.start + 1}, which is not UTF-8", "UTF-8 text"
    return None


def _split(line: str) -> tuple[str, str]:
    """Key and value, apart at the first run of spaces and TABs: other white space of Unicode belongs to the text."""
    key, *rest = re.split(r"[ \t]+", line.strip(" \t\r"), maxsplit=1)
    return key, rest[0] if rest else ""


def read_table(path: Path) -> dict[str, str]:
    """One table as a mapping; UserError with the first problem of it."""
    rows, problems = scan(path)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}: run check_data on {path.parent}, --fix writes a repaired copy")
    return {row.key: row.value for row in rows}


def parse_segment(value: str) -> tuple[str, float, float | None]:
    """Recording, start and end (None for Kaldi's -1: to the end) from a line of `segments`; ValueError says what."""
    fields = value.split()
    if len(fields) != 3:
        raise ValueError(f"{len(fields)} fields after the key")
    recording, *times = fields
    try:
        start, end = (float(time) for time in times)
    except ValueError:
        raise ValueError(f"the times {times[0]} and {times[1]}") from None
    if not math.isfinite(start) or start < 0 or (end != -1 and not start < end < math.inf):
        raise ValueError(f"the start {times[0]} and the end {times[1]}")
    return recording, start, None if end == -1 else end


def parse_channel(value: str) -> int:
    """Channel from 1 out of a line of `reco2file_and_channel`, where A is 1; ValueError says what was found."""
    last = value.split()[-1]
    if re.fullmatch(r"[A-H]", last):
        return ord(last) - ord("A") + 1
    if re.fullmatch(r"[1-9][0-9]?", last):
        return int(last)
    raise ValueError(f"the channel {last}")


def read(folder: Path, channel: int | None = None) -> list[Utterance]:
    """All utterances of a data directory in byte order.

    Args:
        folder: holds `wav.scp` and `utt2spk`; `text` may be absent where nothing is trained or scored.
        channel: counted from 1; goes before `reco2file_and_channel`.

    Raises:
        UserError: a table is missing or unsound, or keys differ between tables.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such data directory")
    sources, speakers = read_table(folder / "wav.scp"), read_table(folder / "utt2spk")
    texts = _optional(folder / "text")
    segments, channels, durations = (
        _optional(folder / name) or {} for name in ("segments", "reco2file_and_channel", "utt2dur")
    )
    utterances = []
    for utt_id in sorted(speakers, key=byte_order):
        recording, start, end = utt_id, None, None
        try:
            if (folder / "segments").exists():
                recording, start, end = parse_segment(_get(segments, utt_id, folder / "segments"))
            source = _get(sources, recording, folder / "wav.scp")
            side = parse_channel(channels[recording]) if channel is None and recording in channels else channel
            seconds = float(durations[utt_id]) if utt_id in durations else None
        except ValueError as error:
            raise UserError(f"{folder}: found {error} at {utt_id}: run check_data on it for all faults") from None
        if seconds is None and start is not None and end is not None:
            seconds = end - start
        text = "" if texts is None else _get(texts, utt_id, folder / "text")
        named = None if recording == utt_id else recording
        utterances.append(Utterance(utt_id, speakers[utt_id], text, source, start, end, side, seconds, named))
    return utterances


def _optional(path: Path) -> dict[str, str] | None:
    return read_table(path) if path.exists() else None


def _get(table: dict[str, str], key: str, path: Path) -> str:
    try:
        return table[key]
    except KeyError:
        raise UserError(f"{path}: {key} is not in it: run check_data on {path.parent} for all faults") from None


def write(utterances: Iterable[Utterance], folder: Path) -> None:
    """Write a data directory, whole or not at all; an older one of that name is replaced.

    `segments` is written where an utterance has a start, `utt2dur` where all have their seconds, `text` where any has
    a transcript, `reco2file_and_channel` where a channel is chosen.

    Raises:
        UserError: an utterance id given twice, or a key or value that no table can hold.
    """
    ordered = sorted(utterances, key=lambda utterance: byte_order(utterance.utt_id))
    for before, after in itertools.pairwise(ordered):
        if before.utt_id == after.utt_id:
            raise UserError(f"{folder}: two utterances with the id {after.utt_id}: each needs its own")
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        write_tables(tables(ordered), temporary)


def write_tables(tables: dict[str, dict[str, str]], folder: Path) -> None:
    """Write tables into a folder, keys in byte order; UserError for a key or value that would not read back."""
    for name, table in tables.items():
        (folder / name).write_bytes(table_bytes(name, table))


def table_bytes(name: str, table: dict[str, str]) -> bytes:
    """A table as it is written, keys in byte order; UserError for a key or value that would not read back."""
    for key, value in table.items():
        if not re.fullmatch(r"[^ \t\r\n]+", key) or "\n" in value or not value.strip(" \t\r"):
            raise UserError(f"{name}: found the key {key!r} with {value!r}, expected no blanks in a key and a value")
    return "".join(f"{key} {table[key]}\n" for key in sorted(table, key=byte_order)).encode()


def invert(utt2spk: dict[str, str]) -> dict[str, str]:
    """`spk2utt` from `utt2spk`: each speaker with its utterances in byte order."""
    members: dict[str, list[str]] = defaultdict(list)
    for utt_id in sorted(utt2spk, key=byte_order):
        members[utt2spk[utt_id]].append(utt_id)
    return {speaker: " ".join(utt_ids) for speaker, utt_ids in members.items()}


def tables(utterances: list[Utterance]) -> dict[str, dict[str, str]]:
    """The tables of a data directory; which ones are written, see `write`."""
    utt2spk = {each.utt_id: each.speaker for each in utterances}
    recordings = {each.utt_id: each.recording or each.utt_id for each in utterances}
    result = {
        "wav.scp": {recordings[each.utt_id]: each.source for each in utterances},
        "utt2spk": utt2spk,
        "spk2utt": invert(utt2spk),
    }
    if any(each.text for each in utterances):
        result["text"] = {each.utt_id: each.text for each in utterances}
    if any(each.start is not None or each.end is not None for each in utterances):
        result["segments"] = {
            each.utt_id: f"{recordings[each.utt_id]} {each.start or 0:.6f} "
            + ("-1" if each.end is None else f"{each.end:.6f}")
            for each in utterances
        }
    channels = {recordings[each.utt_id]: each.channel for each in utterances if each.channel is not None}
    if channels:
        result["reco2file_and_channel"] = {name: f"{name} {side}" for name, side in channels.items()}
    if all(each.seconds is not None for each in utterances):
        result["utt2dur"] = {each.utt_id: f"{each.seconds:.6f}" for each in utterances}
    return result
