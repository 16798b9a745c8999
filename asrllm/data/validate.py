"""Kaldi's rules for a data directory, each a small function that yields what breaks it.

The rules are those of Kaldi's `utils/validate_data_dir.sh`, and that every recording can be opened, has samples and has
the channel that is chosen. Nothing is mended here: see `asrllm.data.repair`.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from asrllm.console import UserError, track
from asrllm.data import audio
from asrllm.data.kaldi import (
    Problem,
    Row,
    byte_order,
    invert,
    parse_channel,
    parse_segment,
    scan,
)
from asrllm.data.tables import BY_RECORDING, BY_SPEAKER, BY_UTTERANCE, KNOWN, check_folder

REQUIRED = ("wav.scp", "text", "utt2spk", "spk2utt")


@dataclass(frozen=True)
class Demands:
    """Rules that can be waived."""

    text: bool = True  # `text` is there
    wav: bool = True  # `wav.scp` is there
    speaker_order: bool = True  # the order by utterance is the order by speaker
    audio: bool = True  # recordings can be opened and have what their tables say


@dataclass(frozen=True)
class Recording:
    """What was found behind one line of `wav.scp`."""

    header: audio.Header | None  # None where it can't be used or was not opened
    fault: str  # why it can't be used, or empty


@dataclass(frozen=True)
class Directory:
    """All tables of a directory as far as they are sound, and what opening its audio gave."""

    folder: Path
    rows: dict[str, list[Row]]  # by file name, in file order
    values: dict[str, dict[str, str]]  # the same as mappings
    recordings: dict[str, Recording]
    channel: int | None  # chosen for all recordings, or None

    def table(self, name: str) -> dict[str, str]:
        """One table as a mapping, empty where there is none."""
        return self.values.get(name, {})


@dataclass(frozen=True)
class Report:
    """What a check says: the broken rules and the size of the directory."""

    problems: list[Problem]
    utterances: int
    speakers: int
    seconds: float
    sample_rates: list[int]


_ALL_DEMANDS = Demands()


def check(
    folder: Path,
    channel: int | None = None,
    sample_rate: int | None = None,
    jobs: int = 1,
    demands: Demands = _ALL_DEMANDS,
) -> Report:
    """Hold a directory against every rule.

    Args:
        folder: the data directory.
        channel: chosen for all recordings, counted from 1; goes before `reco2file_and_channel`.
        sample_rate: Hz that every recording must have; None: any.
        jobs: threads that open audio.
        demands: rules that are held against it, such as not `text` where a directory is only to be decoded.
    """
    directory, problems = open_directory(folder, channel, jobs, demands.audio)
    problems += _missing_tables(directory, demands)
    if demands.speaker_order:
        problems += _speaker_order(directory)
    for rule in (
        _order,
        _keys,
        _recording_keys,
        _speaker_names,
        _speakers,
        _segments,
        _durations,
        _recordings,
        _channels,
    ):
        problems += rule(directory)
    if sample_rate is not None:
        problems += _sample_rates(directory, sample_rate)
    utt2spk = directory.table("utt2spk")
    rates = {each.header.sample_rate for each in directory.recordings.values() if each.header}
    return Report(problems, len(utt2spk), len(set(utt2spk.values())), _total_seconds(directory), sorted(rates))


def open_directory(
    folder: Path, channel: int | None = None, jobs: int = 1, open_audio: bool = True
) -> tuple[Directory, list[Problem]]:
    """Read the tables that are there and, with `open_audio`, open all recordings."""
    check_folder(folder)
    tables: dict[str, list[Row]] = {}
    problems: list[Problem] = []
    for name in KNOWN:
        if (folder / name).exists():
            tables[name], faults = scan(folder / name)
            problems += faults
    rows = tables.get("wav.scp", [])
    recordings = {row.key: Recording(None, "") for row in rows}
    if open_audio:
        with ThreadPoolExecutor(jobs) as pool:
            found = pool.map(_probe, (row.value for row in rows))
            probed = track(found, f"Opening {folder}", len(rows), "recordings")
            recordings = dict(zip(recordings, probed, strict=True))
    values = {name: {row.key: row.value for row in table} for name, table in tables.items()}
    return Directory(folder, tables, values, recordings, channel), problems


def _probe(source: str) -> Recording:
    """Read the header and decode both ends, which shows most files that were cut off."""
    try:
        header = audio.header(source)
        if header.samples == 0:
            return Recording(None, f"{source}: it has no samples")
        if not source.endswith("|"):
            audio.decode(source, 0.0, min(0.1, header.seconds))
            audio.decode(source, max(0.0, header.seconds - 0.1))
    except UserError as error:
        return Recording(None, str(error))
    return Recording(header, "")


def _missing_tables(directory: Directory, demands: Demands) -> Iterator[Problem]:
    needed = {"text": demands.text, "wav.scp": demands.wav}
    for name in REQUIRED:
        if name not in directory.rows and needed.get(name, True):
            hint = " (--fix OUT makes it)" if name == "spk2utt" else ""
            yield Problem(directory.folder / name, 0, "no such file", f"one in every data directory{hint}")


def _order(directory: Directory) -> Iterator[Problem]:
    """Keys stand in byte order."""
    for name, rows in directory.rows.items():
        for before, row in itertools.pairwise(rows):
            if byte_order(row.key) < byte_order(before.key):
                found = f"{row.key} after {before.key}"
                yield Problem(directory.folder / name, row.line, found, "keys in byte order (LC_ALL=C sort)")
                break


def _keys(directory: Directory) -> Iterator[Problem]:
    """Every table of utterances (of speakers) has the keys of utt2spk (its speakers)."""
    if "utt2spk" not in directory.rows:
        return
    utt2spk = directory.table("utt2spk")
    for name in BY_UTTERANCE:
        if name in directory.rows and name != "utt2spk":
            yield from _compare_keys(directory, name, set(utt2spk), "utt2spk")
    for name in BY_SPEAKER:
        if name in directory.rows and name != "spk2utt":
            yield from _compare_keys(directory, name, set(utt2spk.values()), "utt2spk")


def _recording_keys(directory: Directory) -> Iterator[Problem]:
    """wav.scp has the recordings that utterances need, and no other."""
    if "wav.scp" not in directory.rows:
        return
    if "segments" in directory.rows:
        needed = {value.split()[0] for value in directory.table("segments").values()}
        yield from _compare_keys(directory, "wav.scp", needed, "segments")
    elif "utt2spk" in directory.rows:
        yield from _compare_keys(directory, "wav.scp", set(directory.table("utt2spk")), "utt2spk")
    for name in BY_RECORDING:
        if name in directory.rows and name != "wav.scp":
            yield from _compare_keys(directory, name, set(directory.recordings), "wav.scp")


def _compare_keys(directory: Directory, name: str, wanted: set[str], other: str) -> Iterator[Problem]:
    path = directory.folder / name
    for row in directory.rows[name]:
        if row.key not in wanted:
            yield Problem(path, row.line, f"the key {row.key}", f"only keys that {other} has too")
    here = {row.key for row in directory.rows[name]}
    for key in sorted(wanted - here, key=byte_order):
        yield Problem(path, 0, f"no line for {key}", f"one, because {other} has it")


def _speaker_order(directory: Directory) -> Iterator[Problem]:
    """utt2spk sorted by utterance is sorted by speaker too: Kaldi's programs walk both at once."""
    rows = sorted(directory.rows.get("utt2spk", []), key=lambda row: byte_order(row.key))
    for before, row in itertools.pairwise(rows):
        if byte_order(row.value) < byte_order(before.value):
            found = f"speaker {row.value} after {before.value} where utterances are sorted"
            wanted = "the same order by speaker: begin each utterance id with its speaker id"
            yield Problem(directory.folder / "utt2spk", row.line, found, wanted)
            break


def _speaker_names(directory: Directory) -> Iterator[Problem]:
    """A speaker is one word: ids with a blank show here."""
    for row in directory.rows.get("utt2spk", []):
        if len(row.value.split()) != 1:
            found = f"the utterance {row.key} with the speaker {row.value!r}"
            yield Problem(directory.folder / "utt2spk", row.line, found, "one word each: ids hold no blanks")


def _speakers(directory: Directory) -> Iterator[Problem]:
    """spk2utt is the inverse of utt2spk."""
    if not {"utt2spk", "spk2utt"} <= set(directory.rows):
        return
    wanted = invert(directory.table("utt2spk"))
    path = directory.folder / "spk2utt"
    for row in directory.rows["spk2utt"]:
        if row.key not in wanted:
            yield Problem(path, row.line, f"the speaker {row.key}", "only speakers of utt2spk")
        elif sorted(row.value.split(), key=byte_order) != wanted[row.key].split():
            yield Problem(
                path, row.line, f"other utterances of {row.key}", f"those of utt2spk: {_short(wanted[row.key])}"
            )
    for speaker in sorted(set(wanted) - set(directory.table("spk2utt")), key=byte_order):
        yield Problem(path, 0, f"no line for {speaker}", "one, because utt2spk has it")


def _segments(directory: Directory) -> Iterator[Problem]:
    """Segments have sound times and end within their recordings."""
    for row in directory.rows.get("segments", []):
        if fault := segment_fault(directory, row.value):
            yield Problem(directory.folder / "segments", row.line, *fault)


def segment_fault(directory: Directory, value: str) -> tuple[str, str] | None:
    """What was found and what was expected, of the value of a line of `segments`; None where it is sound."""
    try:
        name, start, end = parse_segment(value)
    except ValueError as error:
        return str(error), "a recording, a start of 0 s or later and a later end (-1: to the end of the recording)"
    found = directory.recordings.get(name)
    if found is None or found.header is None:
        return None
    seconds = found.header.seconds
    if end is not None and end > seconds + audio.TOLERANCE_SECONDS:
        return f"a segment that ends at {end:g} s", f"at most the {seconds:.3f} s that recording {name} has"
    if start >= seconds:
        return f"a segment that starts at {start:g} s", f"less than the {seconds:.3f} s that recording {name} has"
    return None


def _durations(directory: Directory) -> Iterator[Problem]:
    """Durations are numbers above 0."""
    for name in ("utt2dur", "reco2dur"):
        for row in directory.rows.get(name, []):
            if not is_duration(row.value):
                yield Problem(directory.folder / name, row.line, row.value, "seconds, above 0")


def is_duration(value: str) -> bool:
    """Whether a value is a number of seconds above 0."""
    try:
        return 0 < float(value) < float("inf")
    except ValueError:
        return False


def _recordings(directory: Directory) -> Iterator[Problem]:
    """Every recording can be opened and decoded and has samples."""
    for row in directory.rows.get("wav.scp", []):
        if fault := directory.recordings[row.key].fault:
            yield Problem(directory.folder / "wav.scp", row.line, fault, f"audio for {row.key}")


def _channels(directory: Directory) -> Iterator[Problem]:
    """A recording with several channels has one chosen that it has."""
    for row in directory.rows.get("reco2file_and_channel", []):
        try:
            parse_channel(row.value)
        except ValueError as error:
            yield Problem(directory.folder / "reco2file_and_channel", row.line, str(error), "A, B, ... or 1, 2, ...")
    for row in directory.rows.get("wav.scp", []):
        if fault := channel_fault(directory, row.key):
            yield Problem(directory.folder / "wav.scp", row.line, *fault)


def channel_fault(directory: Directory, recording: str) -> tuple[str, str] | None:
    """What was found and what was expected of a recording's channels; None where one can be taken."""
    header = directory.recordings[recording].header
    if header is None or header.channels == 1:
        return None
    channel = directory.channel
    if channel is None:
        try:
            channel = parse_channel(directory.table("reco2file_and_channel")[recording])
        except (KeyError, ValueError):
            wanted = "one, or a choice by reco2file_and_channel or --channel"
            return f"{header.channels} channels in {recording}", wanted
    if channel > header.channels:
        return f"{header.channels} channels in {recording}", f"at least {channel}, because channel {channel} is chosen"
    return None


def _sample_rates(directory: Directory, sample_rate: int) -> Iterator[Problem]:
    """Every recording has the one sample rate that was asked for."""
    for row in directory.rows.get("wav.scp", []):
        header = directory.recordings[row.key].header
        if header is not None and header.sample_rate != sample_rate:
            yield Problem(directory.folder / "wav.scp", row.line, f"{header.sample_rate} Hz", f"{sample_rate} Hz")


def _total_seconds(directory: Directory) -> float:
    """Seconds of all utterances whose audio is sound."""
    lengths = {name: found.header.seconds for name, found in directory.recordings.items() if found.header}
    if "segments" not in directory.rows:
        return sum(lengths.get(utt_id, 0.0) for utt_id in directory.table("utt2spk"))
    total = 0.0
    for value in directory.table("segments").values():
        if segment_fault(directory, value) is None:
            name, start, end = parse_segment(value)
            if name in lengths:
                total += (lengths[name] if end is None else min(end, lengths[name])) - start
    return total


def _short(words: str) -> str:
    return words if len(words) <= 60 else words[:57] + "..."
