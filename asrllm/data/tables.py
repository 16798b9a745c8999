"""A data directory as the tables it holds: read, cut to some utterances, renamed, joined, split, written whole.

It moves lines between directories and never opens audio; files that are no tables of Kaldi it leaves alone.
"""

import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from asrllm.console import UserError, log, write_atomically
from asrllm.data import kaldi
from asrllm.data.kaldi import byte_order, invert, read_table

BY_UTTERANCE = (
    "text",
    "utt2spk",
    "utt2dur",
    "utt2num_samples",
    "segments",
    "feats.scp",
    "vad.scp",
    "utt2num_frames",
    "utt2lang",
    "utt2uniq",
)
BY_RECORDING = ("wav.scp", "reco2file_and_channel", "reco2dur")
BY_SPEAKER = ("spk2utt", "spk2gender", "spk2age", "cmvn.scp")
KNOWN = BY_UTTERANCE + BY_RECORDING + BY_SPEAKER

Tables = dict[str, dict[str, str]]  # by file name, then by key


def read(folder: Path, extra: Collection[str] = ()) -> Tables:
    """All tables of a directory that are known, and `extra` ones; `spk2utt` is made from `utt2spk`.

    Raises:
        UserError: no directory, no `utt2spk`, an unsound line, or utterances that a table lacks.
    """
    check_folder(folder)
    names = [name for name in (*KNOWN, *extra) if (folder / name).exists() or name == "utt2spk"]
    tables = {name: read_table(folder / name) for name in names if name != "spk2utt"}
    everyone = tables["utt2spk"].keys()
    for name in names:
        if name in BY_UTTERANCE and (odd := everyone ^ tables[name].keys()):
            raise UserError(
                f"{folder / name}: {len(odd)} utterance(s) are not in both it and utt2spk, {min(odd)} first: "
                f"run utils/fix_data_dir.sh {folder}"
            )
    return {**tables, "spk2utt": invert(tables["utt2spk"])}


def check_folder(folder: Path) -> None:
    """Raise UserError where a folder is not there, with the reason where it is a link."""
    if folder.is_dir():
        return
    if folder.is_symlink():
        raise UserError(f"{folder}: a link that leads to no directory or back to itself: make it anew")
    raise UserError(f"{folder}: no such data directory")


def recordings(tables: Tables, utt_ids: Collection[str]) -> set[str]:
    """The recordings that hold some utterances."""
    if "segments" not in tables:
        return set(utt_ids)
    return {tables["segments"][utt_id].split()[0] for utt_id in utt_ids}


def keep(tables: Tables, utt_ids: Collection[str]) -> Tables:
    """Cut every table to some utterances and to the speakers and recordings they need; `spk2utt` is made anew."""
    wanted = set(utt_ids)
    speakers = {tables["utt2spk"][utt_id] for utt_id in wanted}
    held = recordings(tables, wanted)
    cut: Tables = {}
    for name, table in tables.items():
        keys = held if name in BY_RECORDING else speakers if name in BY_SPEAKER else wanted
        cut[name] = {key: value for key, value in table.items() if key in keys}
    return {**cut, "spk2utt": invert(cut["utt2spk"])}


def rename(
    tables: Tables,
    utterance: Callable[[str], str],
    speaker: Callable[[str], str],
    recording: Callable[[str], str] | None = None,
) -> Tables:
    """Give utterances, speakers and recordings other ids.

    Without `segments` a recording is an utterance and takes its new id; with `segments` it keeps its own where
    `recording` is None. `utt2uniq` keeps, or gets, the ids that the utterances had at first.
    """
    in_segments = recording or (lambda name: name)
    for_recordings = in_segments if "segments" in tables else utterance
    made: Tables = {}
    for name, table in tables.items():
        new = for_recordings if name in BY_RECORDING else speaker if name in BY_SPEAKER else utterance
        made[name] = {new(key): value for key, value in table.items()}
    made["utt2spk"] = {key: speaker(value) for key, value in made["utt2spk"].items()}
    if "segments" in made:
        for key, value in made["segments"].items():
            name, times = value.split(maxsplit=1)
            made["segments"][key] = f"{in_segments(name)} {times}"
    uniq = {utterance(utt_id): utt_id for utt_id in tables["utt2spk"]}
    if any(new != old for new, old in uniq.items()):
        made.setdefault("utt2uniq", uniq)
    return {**made, "spk2utt": invert(made["utt2spk"])}


def join(parts: Sequence[Tables], names: Sequence[str]) -> Tables:
    """Several directories as one; `names` are what to call them in an error.

    A line that several of them have alike is kept once. A table that not all have is left out with a warning, except
    `segments` (made: the whole recording), `utt2uniq` (made: itself) and `reco2file_and_channel` (made: channel A).

    Raises:
        UserError: one id with two different lines.
    """
    present = list(dict.fromkeys(name for part in parts for name in part))
    joined: Tables = {}
    for name in present:
        lacking = [place for part, place in zip(parts, names, strict=True) if name not in part]
        if lacking and name not in _MADE:
            log.warning("%s: not in %s, so it is left out", name, ", ".join(lacking))
            continue
        table: dict[str, str] = {}
        for part, place in zip(parts, names, strict=True):
            for key, value in (part[name] if name in part else _MADE[name](part)).items():
                if name != "spk2utt" and table.setdefault(key, value) != value:
                    raise UserError(
                        f"{place}/{name}: found {key} with {value!r}, but {table[key]!r} in a directory before it: "
                        "give one of them a prefix with copy_data_dir.sh"
                    )
        joined[name] = table
    return {**joined, "spk2utt": invert(joined["utt2spk"])}


_MADE: dict[str, Callable[[Tables], dict[str, str]]] = {
    "segments": lambda part: {utt_id: f"{utt_id} 0 -1" for utt_id in part["utt2spk"]},
    "utt2uniq": lambda part: {utt_id: utt_id for utt_id in part["utt2spk"]},
    "reco2file_and_channel": lambda part: {name: f"{name} A" for name in part.get("wav.scp", ())},
}


def by_recording(tables: Tables) -> list[list[str]]:
    """Utterances in groups, one for each recording, in byte order."""
    if "segments" not in tables:
        return [[utt_id] for utt_id in sorted(tables["utt2spk"], key=byte_order)]
    held = invert({utt_id: value.split()[0] for utt_id, value in tables["segments"].items()})
    return [held[name].split() for name in sorted(held, key=byte_order)]


def split(groups: Sequence[Sequence[str]], parts: int) -> list[list[str]]:
    """Share groups of utterances out to `parts` runs of them, in order, none empty, as even as the groups allow.

    Raises:
        UserError: fewer groups than parts.
    """
    if len(groups) < parts:
        raise UserError(f"{len(groups)} group(s) cannot be split into {parts} parts: ask for fewer, or use --per-utt")
    total = sum(len(group) for group in groups)
    result: list[list[str]] = [[]]
    done = 0
    for number, group in enumerate(groups):
        goal = total * len(result) / parts
        left = len(groups) - number  # groups not placed yet
        full = bool(result[-1]) and done + len(group) / 2 > goal
        if len(result) < parts and result[-1] and (full or left == parts - len(result)):
            result.append([])
        result[-1] += group
        done += len(group)
    return result


def write(tables: Tables, folder: Path) -> None:
    """Write a directory, whole or not at all; an older one of that name is replaced.

    Raises:
        UserError: the older one holds anything that is no table, which would be lost; or no utterance is left.
    """
    if not tables["utt2spk"]:
        raise UserError(f"{folder}: no utterance is left, so nothing was written")
    target = folder.resolve() if folder.is_dir() else folder  # a data directory may be a link to a larger disk
    if folder.is_dir() and (strange := sorted(path.name for path in folder.iterdir() if not _is_made(path))):
        raise UserError(
            f"{folder}: holds {', '.join(strange[:3])}, which would be lost with it: remove it yourself or name another"
        )
    with write_atomically(target) as temporary:
        temporary.mkdir()
        kaldi.write_tables(tables, temporary)


def _is_made(path: Path) -> bool:
    """Whether a file or folder in a data directory can be made again from its tables, or is one."""
    made = path.name in (*KNOWN, "dropped.txt", "frame_shift") or path.name.startswith("split")
    return made or path.name == ".backup"


def replace(tables: Tables, folder: Path) -> Path:
    """Put tables in the place of those in a directory, whose own go to a new folder `.backup*` in it.

    Each file is whole at any time. Everything else in the directory stays.
    """
    old = [path for path in folder.iterdir() if path.name in KNOWN]
    number, backup = 0, folder / ".backup"
    while backup.exists():
        number += 1
        backup = folder / f".backup.{number}"
    with write_atomically(backup) as temporary:
        temporary.mkdir()
        for path in old:
            shutil.copy2(path, temporary / path.name)
    new = folder / ".new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    kaldi.write_tables(tables, new)
    for name in tables:
        (new / name).replace(folder / name)
    new.rmdir()
    for path in old:
        if path.name not in tables:
            path.unlink()
    return backup
