"""Tar shards: some thousand utterances in one file, read from end to end, for corpora of millions.

A shard holds NAME.<suffix>, an audio file as it came, and NAME.json beside it (utt_id speaker text seconds), as
WebDataset wants them; NAME is the utterance id, %-quoted. `shard-000007.jsonl` lists the same with each file's place,
so that a data directory points into the shards (`shard-000007.tar:1536`, see `asrllm.data.audio`) and nothing is
stored twice. Writing goes on behind the last whole shard; reading goes on at a `Position`.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

import soundfile

from asrllm.console import UserError, write_atomically
from asrllm.data.kaldi import Utterance


@dataclass(frozen=True)
class Sample:
    """One utterance with its audio."""

    utt_id: str
    speaker: str
    text: str
    audio: bytes  # a whole file of a format that libsndfile reads
    suffix: str = "wav"  # of that file


class Position(NamedTuple):
    """Where reading goes on: the shard and how many of its utterances are done."""

    shard: int = 0
    done: int = 0


_BEGIN = Position()


def write(samples: Callable[[int], Iterable[Sample]], folder: Path, shard_bytes: int = 1 << 30) -> int:
    """Write all samples into shards of about `shard_bytes`; an interrupted run goes on behind its last whole shard.

    Args:
        samples: makes the samples, leaving out so many at the beginning; the same ones in the same order each time.
        folder: gets shard-*.tar, shard-*.jsonl and, when all are written, shards.json.
        shard_bytes: of audio in a shard.

    Returns:
        How many utterances there are.

    Raises:
        UserError: audio that cannot be read, or an id twice in a shard; names the utterance.
    """
    whole = folder / "shards.json"
    if whole.exists():
        return int(json.loads(whole.read_text())["utterances"])
    folder.mkdir(parents=True, exist_ok=True)
    done = [len(path.read_bytes().splitlines()) for path in _indices(folder)]
    number, total = len(done), sum(done)
    rest = iter(samples(total))
    while shard := _fill(rest, shard_bytes):
        name = folder / f"shard-{number:06}"
        entries = _write_shard(shard, name.with_suffix(".tar"))
        with write_atomically(name.with_suffix(".jsonl")) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        number, total = number + 1, total + len(entries)
    with write_atomically(whole) as temporary:
        temporary.write_text(json.dumps({"shards": number, "utterances": total}) + "\n")
    return total


def _fill(samples: Iterator[Sample], limit: int) -> list[Sample]:
    shard: list[Sample] = []
    size = 0
    for sample in samples:
        shard.append(sample)
        size += len(sample.audio)
        if size >= limit:
            break
    return shard


def _write_shard(samples: list[Sample], path: Path) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    names: set[str] = set()
    with write_atomically(path) as temporary, tarfile.open(temporary, "w") as tar:
        for sample in samples:
            try:
                seconds = soundfile.info(io.BytesIO(sample.audio)).duration
            except soundfile.SoundFileError as error:
                raise UserError(f"utterance {sample.utt_id}: not readable as audio ({error})") from None
            name = quote(sample.utt_id, safe="").replace(".", "%2E")
            if name in names:
                raise UserError(f"utterance {sample.utt_id}: comes twice: each needs its own id")
            names.add(name)
            entry = {"utt_id": sample.utt_id, "speaker": sample.speaker, "text": sample.text, "seconds": seconds}
            _add(tar, f"{name}.json", json.dumps(entry, ensure_ascii=False).encode())
            offset = _add(tar, f"{name}.{sample.suffix}", sample.audio)
            entries.append({**entry, "offset": offset})
    return entries


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a file; returns where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def utterances(folder: Path) -> Iterator[Utterance]:
    """All utterances in the shards of a folder, with their places in them, in order.

    Raises:
        UserError: no shards, or not all were written yet.
    """
    if not (folder / "shards.json").exists():
        raise UserError(f"{folder}: holds no whole set of shards (no shards.json): write them first")
    for path in _indices(folder):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            source = f"{path.with_suffix('.tar')}:{entry['offset']}"
            yield Utterance(entry["utt_id"], entry["speaker"], entry["text"], source, seconds=entry["seconds"])


def read(folder: Path, start: Position = _BEGIN, rank: int = 0, world: int = 1) -> Iterator[tuple[Position, Sample]]:
    """Samples of every `world`-th shard, from number `rank` on, from a position on.

    Each comes with the position behind it, at which another reading goes on.

    Raises:
        UserError: a shard that is cut off or is none of ours.
    """
    paths = [path.with_suffix(".tar") for path in _indices(folder)]
    for number in range(len(paths)):
        if number % world != rank or number < start.shard:
            continue
        for place, sample in enumerate(_samples(paths[number]), 1):
            if number > start.shard or place > start.done:
                yield Position(number, place), sample


def _samples(path: Path) -> Iterator[Sample]:
    try:
        with tarfile.open(path, "r|") as tar:
            entry: dict[str, str] | None = None
            for member in tar:
                data = _content(tar.extractfile(member))
                stem, _, suffix = member.name.partition(".")
                if entry is None:
                    entry = json.loads(data)
                    continue
                if quote(entry["utt_id"], safe="").replace(".", "%2E") != stem:
                    raise ValueError(f"{member.name} after {entry['utt_id']}")
                yield Sample(entry["utt_id"], entry["speaker"], entry["text"], data, suffix)
                entry = None
    except (tarfile.TarError, ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{path}: not a whole shard of ours ({error}): write it again") from None


def _content(file: IO[bytes] | None) -> bytes:
    if file is None:
        raise ValueError("a member that is no file")
    return file.read()


def _indices(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.jsonl"))
