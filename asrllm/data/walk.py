"""A data directory from its first to its last utterance, all tables side by side, in memory that does not grow.

Tables are sorted by rule, so that they are walked together as Kaldi's programs do. It holds the recordings' sources
where there are `segments`, else nothing but the line it is at. What breaks a rule on the way is told as a `Problem`;
a table that is not sorted ends the walk.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from asrllm.data import kaldi
from asrllm.data.kaldi import Problem, Row, Utterance, byte_order, parse_channel, parse_segment
from asrllm.data.tables import BY_UTTERANCE, check_folder

Tell = Callable[[Problem], None]


class Unsorted(Exception):
    """A table is not in byte order; the problem has been told."""


def walk(folder: Path, tell: Tell) -> Iterator[Utterance]:
    """Yield every utterance that all tables agree on, in byte order; tell of the others.

    Raises:
        UserError: no such directory.
    """
    check_folder(folder)
    names = [name for name in BY_UTTERANCE if (folder / name).exists()]
    recordings: dict[str, str] | None = None
    if "segments" in names:
        recordings = {row.key: row.value for row in _rows(folder / "wav.scp", tell)}
    else:
        names.append("wav.scp")
    channels = {}
    if (folder / "reco2file_and_channel").exists():
        channels = {row.key: row.value for row in _rows(folder / "reco2file_and_channel", tell)}
    if "utt2spk" not in names:
        tell(Problem(folder / "utt2spk", 0, "no such file", "one in every data directory"))
        return
    try:
        for utt_id, values in _joined(folder, names, tell):
            try:
                yield _utterance(utt_id, values, recordings, channels)
            except KeyError as error:
                tell(Problem(folder / "wav.scp", 0, f"no line for {error.args[0]}", "one, because segments has it"))
            except ValueError as error:
                tell(Problem(folder / "segments", 0, f"{error} at {utt_id}", "sound times, durations and channels"))
    except Unsorted:
        return


def _joined(folder: Path, names: list[str], tell: Tell) -> Iterator[tuple[str, dict[str, str]]]:
    """Keys that all tables have, with their values."""
    streams = {name: _sorted_rows(folder / name, tell) for name in names}
    heads = {name: next(rows, None) for name, rows in streams.items()}
    while any(heads.values()):
        key = min((row.key for row in heads.values() if row), key=byte_order)
        here = {name: row for name, row in heads.items() if row and row.key == key}
        if len(here) == len(names):
            yield key, {name: row.value for name, row in here.items()}
        elif "utt2spk" in here:
            for name in sorted(set(names) - here.keys()):
                tell(Problem(folder / name, 0, f"no line for {key}", "one, because utt2spk has it"))
        else:
            for name, row in sorted(here.items()):
                tell(Problem(folder / name, row.line, f"the key {key}", "only keys that utt2spk has too"))
        for name in here:
            heads[name] = next(streams[name], None)


def _rows(path: Path, tell: Tell) -> Iterator[Row]:
    for each in kaldi.stream(path):
        if isinstance(each, Problem):
            tell(each)
        else:
            yield each


def _sorted_rows(path: Path, tell: Tell) -> Iterator[Row]:
    before: Row | None = None
    for row in _rows(path, tell):
        if before and before.key == row.key:
            tell(Problem(path, row.line, f"the key {row.key} again (first in line {before.line})", "each key once"))
            continue
        if before and byte_order(row.key) < byte_order(before.key):
            wanted = "keys in byte order (LC_ALL=C sort): run utils/fix_data_dir.sh, nothing behind it was looked at"
            tell(Problem(path, row.line, f"{row.key} after {before.key}", wanted))
            raise Unsorted
        yield row
        before = row


def _utterance(
    utt_id: str, values: dict[str, str], recordings: dict[str, str] | None, channels: dict[str, str]
) -> Utterance:
    recording, start, end = utt_id, None, None
    if recordings is not None:
        recording, start, end = parse_segment(values["segments"])
    source = values["wav.scp"] if recordings is None else recordings[recording]
    channel = parse_channel(channels[recording]) if recording in channels else None
    seconds = float(values["utt2dur"]) if "utt2dur" in values else None
    if seconds is None and start is not None and end is not None:
        seconds = end - start
    named = None if recordings is None else recording
    return Utterance(utt_id, values["utt2spk"], values.get("text", ""), source, start, end, channel, seconds, named)
