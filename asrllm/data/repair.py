"""A repaired copy of a data directory: what obeys every rule of `asrllm.data.validate`, and a list of what does not."""

from dataclasses import dataclass
from pathlib import Path

from asrllm.console import UserError, log, write_atomically
from asrllm.data import tables as directories
from asrllm.data.kaldi import byte_order, parse_channel, parse_segment, table_bytes, write_tables
from asrllm.data.tables import BY_RECORDING, BY_SPEAKER, Tables
from asrllm.data.validate import Directory, channel_fault, is_duration, open_directory, segment_fault


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
    tables, dropped = mend(open_directory(folder, channel, jobs)[0])
    with write_atomically(out) as temporary:
        temporary.mkdir()
        write_tables(tables, temporary)
        lines = (f"{each.utt_id}\t{each.why}\n" for each in dropped)
        (temporary / "dropped.txt").write_text("".join(lines), encoding="utf-8")
    return dropped


def fix_in_place(folder: Path, open_audio: bool) -> tuple[int, list[Dropped], Path | None]:
    """Repair a directory where it is, its old tables kept in a new folder in it.

    Returns:
        How many utterances it has then, those dropped, and the folder of the old tables (None: nothing was to be done).
    """
    directory, _ = open_directory(folder, open_audio=open_audio)
    tables, dropped = mend(directory)
    same = tables.keys() == directory.rows.keys() and all(
        (folder / name).read_bytes() == table_bytes(name, table) for name, table in tables.items()
    )
    return len(tables["utt2spk"]), dropped, None if same else directories.replace(tables, folder)


def mend(directory: Directory) -> tuple[Tables, list[Dropped]]:
    """The tables of the utterances that obey every rule, and the other utterances.

    Raises:
        UserError: a table without which nothing can be repaired is missing, or nothing is left.
    """
    for name in ("wav.scp", "utt2spk"):
        if name not in directory.rows:
            raise UserError(f"{directory.folder / name}: no such file, and without it nothing can be repaired")
    everyone = {row.key for name in ("utt2spk", "text", "segments") for row in directory.rows.get(name, [])}
    if "segments" not in directory.rows:
        everyone |= set(directory.recordings)
    reasons = {utt_id: _why_not(directory, utt_id) for utt_id in sorted(everyone, key=byte_order)}
    kept = {utt_id for utt_id, why in reasons.items() if not why}
    if not kept:
        raise UserError(f"{directory.folder}: no utterance is left after the repair, so nothing was written")
    return _kept_tables(directory, kept), [Dropped(utt_id, why) for utt_id, why in reasons.items() if why]


def _why_not(directory: Directory, utt_id: str) -> str:
    """Why a repaired copy cannot hold an utterance; empty where it can."""
    for name in ("utt2spk", "text", "segments"):
        if name in directory.rows and utt_id not in directory.table(name):
            return f"{name} has no sound line for it"
    if len(directory.table("utt2spk")[utt_id].split()) != 1:
        return f"utt2spk: found the speaker {directory.table('utt2spk')[utt_id]!r}, expected one word"
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


def _kept_tables(directory: Directory, kept: set[str]) -> Tables:
    """All tables, cut to the utterances kept; one that lacks some of them is left out with a warning."""
    whole = {name: directory.table(name) for name in directory.rows if name != "spk2utt"}
    cut = directories.keep(whole, kept)
    recordings = directories.recordings(cut, kept)
    for name, table in list(cut.items()):
        if name == "reco2file_and_channel":
            cut[name] = table = {key: _channel_line(key, table.get(key)) for key in recordings}
        keys = recordings if name in BY_RECORDING else set(cut["spk2utt"]) if name in BY_SPEAKER else kept
        if set(table) != keys or (name.endswith("2dur") and not all(map(is_duration, table.values()))):
            log.warning("%s: not for every key of the copy, so it is left out of it", directory.folder / name)
            del cut[name]
    return cut


def _channel_line(recording: str, value: str | None) -> str:
    """The line of `reco2file_and_channel`; where it is missing or unsound the recording has one channel, A."""
    try:
        parse_channel(value or "")
    except (ValueError, IndexError):
        return f"{recording} A"
    return str(value)
