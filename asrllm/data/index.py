"""The utterances of a formatted directory by number, none read before it is wanted.

The folder `index` in it holds, as numpy files that are mapped and not read, how long every utterance is and at which
byte of `wav.scp`, `utt2spk` and `text` its line begins: these tables have one line for each utterance, all in byte
order. It knows tables; neither audio nor batches.
"""

import json
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asrllm.console import UserError
from asrllm.data import audio, kaldi
from asrllm.data.kaldi import Utterance

_FOLDER = "index"
_TABLES = ("wav.scp", "utt2spk", "text")
_DURATIONS = "utt2dur"
_BYTES_AT_ONCE = 1 << 26


class Utterances:
    """Some utterances by number, and the seconds of all of them (N,)."""

    def __init__(self, rows: "Sequence[Utterance] | Table", seconds: NDArray[np.float64]) -> None:
        self._rows, self.seconds = rows, seconds
        self._chosen: NDArray[np.int64] | None = None  # numbers among the rows; None: all

    @classmethod
    def of(cls, listed: Sequence[Utterance]) -> "Utterances":
        """Utterances that are in memory; opens the headers of those without seconds."""
        return cls(listed, np.array([audio.seconds(each) for each in listed], dtype=np.float64))

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, number: int) -> Utterance:
        return self._rows[number if self._chosen is None else int(self._chosen[number])]

    def __iter__(self) -> Iterator[Utterance]:
        return (self[number] for number in range(len(self)))

    def texts(self) -> Iterator[str]:
        """The transcripts in their order."""
        if isinstance(self._rows, Table) and self._chosen is None:
            return self._rows.texts()
        return (each.text for each in self)

    def take(self, numbers: NDArray[np.int64]) -> "Utterances":
        """These utterances, numbered anew."""
        taken = Utterances(self._rows, self.seconds[numbers])
        taken._chosen = numbers if self._chosen is None else self._chosen[numbers]
        return taken


class Table:
    """Lines of an indexed directory, found by their number."""

    def __init__(self, folder: Path, seconds: NDArray[np.float64]) -> None:
        self.folder, self._seconds = folder, seconds
        names = [name for name in _TABLES if (folder / name).is_file()]
        self._starts = {name: np.load(folder / _FOLDER / f"{name}.npy", mmap_mode="r") for name in names}
        self._bytes = {name: _mapped(folder / name) for name in names}

    def __len__(self) -> int:
        return len(self._seconds)

    def __getitem__(self, number: int) -> Utterance:
        utt_id, source = self._line("wav.scp", number)
        values = {}
        for name in ("utt2spk", "text"):
            key, values[name] = self._line(name, number) if name in self._bytes else (utt_id, "")
            if key != utt_id:
                raise UserError(
                    f"{self.folder}: line {number + 1} is of {utt_id} in wav.scp and of {key} in {name}: "
                    "format the directory again (stage 2)"
                )
        return Utterance(utt_id, values["utt2spk"], values["text"], source, seconds=float(self._seconds[number]))

    def _line(self, name: str, number: int) -> tuple[str, str]:
        begin, end = self._starts[name][number : number + 2].tolist()
        key, _, value = self._bytes[name][begin:end].decode().rstrip("\n").partition(" ")
        return key, value

    def texts(self) -> Iterator[str]:
        """All transcripts, read in one go."""
        if "text" not in self._bytes:
            yield from [""] * len(self)
            return
        with (self.folder / "text").open(encoding="utf-8", newline="\n") as stream:
            for line in stream:
                yield line.rstrip("\n").partition(" ")[2]


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def write(folder: Path) -> None:
    """Index a formatted directory, anew if it is indexed already."""
    (folder / _FOLDER).mkdir(exist_ok=True)
    for name in _TABLES:
        if (folder / name).is_file():
            np.save(folder / _FOLDER / f"{name}.npy", _starts(folder / name))
    with (folder / _DURATIONS).open("rb") as stream:
        seconds = np.fromiter((float(line.split()[1]) for line in stream), np.float64)
    np.save(folder / _FOLDER / "seconds.npy", seconds)
    (folder / _FOLDER / "sizes.json").write_text(json.dumps(_sizes(folder)))


def read(folder: Path) -> Utterances:
    """All utterances of a data directory in byte order; through its index where it has one that fits its tables.

    Raises:
        UserError: a table is missing or unsound, or keys differ between tables.
    """
    if place(folder) is None:
        return Utterances.of(kaldi.read(folder))
    seconds = np.load(folder / _FOLDER / "seconds.npy", mmap_mode="r")
    return Utterances(Table(folder, seconds), seconds)


def place(folder: Path) -> Path | None:
    """Where the index of a directory lies; None where there is none that fits its tables."""
    try:
        sizes = json.loads((folder / _FOLDER / "sizes.json").read_text())
    except (OSError, ValueError):
        return None
    return folder / _FOLDER if sizes == _sizes(folder) else None


def _sizes(folder: Path) -> dict[str, int]:
    tables = [folder / name for name in (*_TABLES, _DURATIONS)]
    return {path.name: path.stat().st_size for path in tables if path.is_file()}


def _starts(path: Path) -> NDArray[np.int64]:
    """The byte at which each line begins, and the end of the file."""
    content = np.memmap(path, np.uint8, "r")
    ends = [
        np.flatnonzero(content[first : first + _BYTES_AT_ONCE] == ord("\n")) + first + 1
        for first in range(0, len(content), _BYTES_AT_ONCE)
    ]
    return np.concatenate([np.zeros(1, np.int64), *ends])
