"""Utterances out of what people have: a folder of audio and text files, a table, JSON lines, manifests of Lhotse, a
dataset of Hugging Face. It makes `Utterance`s (or, where the audio is inside, `Sample`s) and writes nothing.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrllm.console import UserError
from asrllm.data.kaldi import Utterance
from asrllm.data.layouts import AUDIO_SUFFIXES
from asrllm.data.shards import Sample

ONE_SPEAKER = "unknown"


@dataclass(frozen=True)
class Columns:
    """Names of the fields of a table; an id or a speaker that a table lacks is made up."""

    audio: str = "audio"
    text: str = "text"
    utt_id: str = "id"
    speaker: str = "speaker"


def table_id(text: str) -> str:
    """An id that a table can hold: white space and what does not print become `_`."""
    return re.sub(r"[^\S]+|[\x00-\x1f\x7f]", "_", text.strip()) or "_"


def folder(path: Path) -> Iterator[Utterance]:
    """Every audio file below a folder with the text of the file NAME.txt (or .lab) beside it.

    An id is the path below the folder with `-` for `/`; a speaker is the first folder of that path, or `unknown`.

    Raises:
        UserError: no audio, a file without text, or text that is empty or not UTF-8.
    """
    files = audio_files(path)
    if not files:
        raise UserError(f"{path}: holds no audio file ({' '.join(AUDIO_SUFFIXES)})")
    for file, name, first in files:
        beside = [file.with_suffix(suffix) for suffix in (".txt", ".lab")]
        source = next((text for text in beside if text.is_file()), None)
        if source is None:
            raise UserError(f"{file}: no transcript {beside[0].name} beside it")
        utt_id = name if first else f"{ONE_SPEAKER}-{name}"
        yield Utterance(utt_id, first or ONE_SPEAKER, _text(source), str(file.resolve()))


def audio_files(path: Path) -> list[tuple[Path, str, str]]:
    """Every audio file below a folder, the way to it as an id with `-` for `/`, and its first folder, "" if none."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    ways = [file.relative_to(path).with_suffix("").parts for file in files]
    return [
        (file, table_id("-".join(way)), table_id(way[0]) if len(way) > 1 else "")
        for file, way in zip(files, ways, strict=True)
    ]


def _text(path: Path) -> str:
    try:
        words = " ".join(path.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}): convert it with iconv") from None
    if not words:
        raise UserError(f"{path}: an empty transcript: remove it and its audio, or write what is said")
    return words


def table(path: Path, columns: Columns) -> Iterator[Utterance]:
    """Rows of a CSV or TSV file whose first line names its fields; paths of audio are relative to the file.

    Raises:
        UserError: no such field, a row without audio or text, not UTF-8; names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            _check_fields(rows.fieldnames or [], columns, path)
            for row in rows:
                yield _utterance(row, columns, path, rows.line_num)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable table in UTF-8 ({error})") from None


def json_lines(path: Path, columns: Columns) -> Iterator[Utterance]:
    """Objects, one a line (manifests of NeMo too: audio_filepath, text, offset, duration); paths as in `table`.

    Raises:
        UserError: a line that is no object or lacks audio or text.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number}: {line.strip()[:40]!r} is no object")
                if number == 1:
                    _check_fields(list(row), columns, path)
                yield _utterance(row, columns, path, number)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not JSON lines in UTF-8 ({error})") from None


def _check_fields(fields: Iterable[str], columns: Columns, path: Path) -> None:
    fields = list(fields)
    for wanted, option in ((columns.audio, "--audio"), (columns.text, "--text")):
        if wanted not in fields:
            names = ", ".join(fields) or "nothing"
            raise UserError(f"{path}: line 1: no field {wanted!r} among {names}: name it with {option}")


def _utterance(row: Mapping[str, Any], columns: Columns, path: Path, line: int) -> Utterance:
    audio, text = (str(row.get(name) or "").strip() for name in (columns.audio, columns.text))
    if not audio or not text:
        lacking = columns.text if audio else columns.audio
        raise UserError(f"{path}: line {line}: {lacking} is empty: fill it or take the row out")
    speaker = table_id(str(row.get(columns.speaker) or ONE_SPEAKER))
    name = row.get(columns.utt_id)
    utt_id = table_id(str(name)) if name else f"{speaker}-{table_id(Path(audio).stem)}"
    source = audio if audio.endswith("|") else str((path.parent / audio).resolve())
    start, seconds = row.get("offset"), row.get("duration")
    if start in (None, ""):
        return Utterance(utt_id, speaker, " ".join(text.split()), source)
    recording = table_id(Path(audio).stem)
    try:
        begin, length = float(str(start)), float(seconds or 0)
    except ValueError:
        raise UserError(
            f"{path}: line {line}: found the offset {start} and duration {seconds}, expected seconds"
        ) from None
    end = begin + length if length else None
    return Utterance(utt_id, speaker, " ".join(text.split()), source, begin, end, recording=recording)


def lhotse(supervisions: Path, recordings: Path) -> Iterator[Utterance]:
    """Supervisions of Lhotse on recordings of one source each.

    Raises:
        UserError: lhotse is not installed, or a recording is missing or no file.
    """
    try:
        from lhotse import RecordingSet, SupervisionSet
    except ImportError:
        raise UserError("manifests of Lhotse need its package: pip install 'asrllm[import]'") from None
    sources = {each.id: each for each in RecordingSet.from_file(recordings)}
    for each in SupervisionSet.from_file(supervisions):
        if each.recording_id not in sources or sources[each.recording_id].sources[0].type != "file":
            raise UserError(
                f"{supervisions}: {each.id}: recording {each.recording_id} is not in {recordings} as a file"
            )
        recording = sources[each.recording_id]
        channel = each.channel if isinstance(each.channel, int) else each.channel[0]
        side = channel + 1 if recording.num_channels > 1 else None
        whole = each.start == 0 and abs(each.end - recording.duration) < 0.001
        source = str(Path(recording.sources[0].source).resolve())
        yield Utterance(
            table_id(each.id),
            table_id(each.speaker or ONE_SPEAKER),
            " ".join((each.text or "").split()),
            source,
            None if whole else each.start,
            None if whole else each.end,
            side,
            each.duration,
            table_id(each.recording_id),
        )


def huggingface(name: str, config: str | None, split: str, columns: Columns, done: int = 0) -> Iterator[Sample]:
    """Rows of a dataset on the hub or in a folder, streamed, with their audio as it is stored.

    Args:
        name: hub id, a folder of files that `datasets` knows, or one that its `save_to_disk` wrote.
        config: of the dataset, such as a size or a language.
        split: of the dataset.
        columns: where audio, text, ids and speakers are.
        done: so many rows are left out at the beginning.

    Raises:
        UserError: `datasets` is not installed, nothing loads from there, a column is missing or a row lacks its audio.
    """
    try:
        import datasets
    except ImportError:
        raise UserError("datasets of Hugging Face need a package: pip install 'asrllm[import]'") from None
    try:
        if (Path(name) / "state.json").exists() or (Path(name) / "dataset_dict.json").exists():
            loaded = datasets.load_from_disk(name)
            rows = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            rows = datasets.load_dataset(name, config, split=split, streaming=True)
    except Exception as error:  # the library raises what its many readers and the network lead it to
        words = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: no dataset loads from there ({type(error).__name__}: {words})") from None
    _check_fields(rows.column_names or [columns.audio, columns.text], columns, Path(name))
    rows = rows.cast_column(columns.audio, datasets.Audio(decode=False)).skip(done)
    for number, row in enumerate(rows, done + 1):
        yield _sample(row, columns, f"{name}: row {number}")


def _sample(row: Mapping[str, Any], columns: Columns, place: str) -> Sample:
    stored = row[columns.audio] or {}
    path, data = stored.get("path") or "", stored.get("bytes")
    if data is None and path:
        data = Path(path).read_bytes()
    text = " ".join(str(row[columns.text] or "").split())
    if not data or not text:
        raise UserError(f"{place}: {columns.text if data else columns.audio} is empty: filter the dataset first")
    speaker = table_id(str(row.get(columns.speaker) or ONE_SPEAKER))
    name = str(row.get(columns.utt_id) or Path(path).stem or place.rsplit(" ", 1)[-1])
    return Sample(f"{speaker}-{table_id(name)}", speaker, text, data, _suffix(data))


def _suffix(data: bytes) -> str:
    """The kind of an audio file by its first bytes."""
    for mark, suffix in ((b"RIFF", "wav"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"NIST", "sph")):
        if data.startswith(mark):
            return suffix
    return "mp3"
