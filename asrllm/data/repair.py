"""A repaired copy of a data directory: what obeys every rule of `asrllm.data.validate`, and a list of what does not."""

from dataclasses import dataclass
from pathlib import Path

from asrllm.console import UserError, log, write_atomically
from asrllm.data.kaldi import byte_order, invert, parse_channel, parse_segment, write_tables
from asrllm.data.validate import (
    BY_RECORDING,
    BY_SPEAKER,
    BY_UTTERANCE,
    Directory,
    channel_fault,
    is_duration,
    open_directory,
    segment_fault,
)


@dataclass(frozen=True)
class Dropped:
    """An utterance that a repaired copy does not hold, and why."""

    utt_id: str
    why: str


def fix(folder: Path, out: Path, channel: int | None = None, jobs: int = 1) -> list[Dropped]:
    """Write a repaired, sorted copy with `dropped.txt` (utterance TAB reason), whole or not at all.

    Kept are the utterances that obey every rule, of keys given twice the first. `spk2utt` is made anew. That sorting by
    speaker and by utterance differ is not mended: it would take other utterance ids.
    """
    if out.resolve() == folder.resolve():
        raise UserError(f"--fix {out}: is the directory itself: name another for the copy")
    directory, _ = open_directory(folder, channel, jobs)
    for name in ("wav.scp", "utt2spk"):
        if name not in directory.rows:
            raise UserError(f"{folder / name}: no such file, and without it nothing can be repaired")
    everyone = {row.key for name in ("utt2spk", "text", "segments") for row in directory.rows.get(name, [])}
    if "segments" not in directory.rows:
        everyone |= set(directory.recordings)
    reasons = {utt_id: _why_not(directory, utt_id) for utt_id in sorted(everyone, key=byte_order)}
    kept = {utt_id for utt_id, why in reasons.items() if not why}
    if not kept:
        raise UserError(f"{folder}: no utterance is left after the repair, so nothing was written")
    dropped = [Dropped(utt_id, why) for utt_id, why in reasons.items() if why]
    with write_atomically(out) as temporary:
        temporary.mkdir()
        write_tables(_kept_tables(directory, kept), temporary)
        lines = (f"{each.utt_id}\t{each.why}\n" for each in dropped)
        (temporary / "dropped.txt").write_text("".join(lines), encoding="utf-8")
    return dropped


def _why_not(directory: Directory, utt_id: str) -> str:
    """Why a repaired copy cannot hold an utterance; empty where it can."""
    for name in ("utt2spk", "text", "segments"):
        if name in directory.rows and utt_id not in directory.table(name):
            return f"{name} has no sound line for it"
    recording = utt_id
    if "segments" in directory.rows:
        value = directory.table("segments")[utt_id]
        if fault := segment_fault(directory, value):
            return f"segments: found {fault[0]}, expected {fault[1]}"
        recording = parse_segment(value)[0]
    if recording not in directory.recordings:
        return f"wav.scp has no sound line for recording {recording}"
    if why := directory.recordings[recording].fault:
        return why
    if fault := channel_fault(directory, recording):
        return f"found {fault[0]}, expected {fault[1]}"
    return ""


def _kept_tables(directory: Directory, kept: set[str]) -> dict[str, dict[str, str]]:
    """All tables, cut to the utterances kept; one that lacks some of them is left out with a warning."""
    speakers = {speaker for utt_id, speaker in directory.table("utt2spk").items() if utt_id in kept}
    recordings = kept
    if "segments" in directory.rows:
        recordings = {parse_segment(directory.table("segments")[utt_id])[0] for utt_id in kept}
    tables = {}
    for names, keys in ((BY_UTTERANCE, kept), (BY_RECORDING, recordings), (BY_SPEAKER, speakers)):
        for name in names:
            if name not in directory.rows or name == "spk2utt":
                continue
            table = {key: value for key, value in directory.table(name).items() if key in keys}
            if name == "reco2file_and_channel":
                table = {key: _channel_line(key, table.get(key)) for key in keys}
            if set(table) == keys and (not name.endswith("2dur") or all(map(is_duration, table.values()))):
                tables[name] = table
            else:
                log.warning("%s: not for every key of the copy, so it is left out of it", directory.folder / name)
    return {**tables, "spk2utt": invert(tables["utt2spk"])}


def _channel_line(recording: str, value: str | None) -> str:
    """The line of `reco2file_and_channel`; where it is missing or unsound the recording has one channel, A."""
    try:
        parse_channel(value or "")
    except (ValueError, IndexError):
        return f"{recording} A"
    return str(value)
