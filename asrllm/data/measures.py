"""Whole numbers that follow from every transcript, such as how many labels it has; of a large corpus counted once.

They are kept as a numpy file in the index of the directory, under a key that tells what they depend on. It knows
transcripts; not units.
"""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asrllm.console import track, write_atomically
from asrllm.data import index
from asrllm.data.index import Utterances

MANY = 100_000  # fewer transcripts are measured anew at each start, in some seconds


def of_texts(
    utterances: Utterances, measure: Callable[[str], tuple[int, int]], folder: Path, *depends: str, keep: bool
) -> NDArray[np.int32]:
    """The two numbers (N, 2) that `measure` gives of each transcript.

    Args:
        utterances: all of `folder`.
        measure: of one transcript.
        folder: the data directory.
        depends: what else than the transcripts the numbers depend on.
        keep: store those of a large corpus for the next start.
    """
    place = index.place(folder)
    path = None
    if place is not None and len(utterances) >= MANY:
        status = (folder / "text").stat()
        key = hashlib.sha256(repr((status.st_size, status.st_mtime_ns, *depends)).encode()).hexdigest()
        path = place / f"measures-{key[:16]}.npy"
        if path.is_file():
            return np.load(path, mmap_mode="r")
    texts = track(utterances.texts(), f"measuring {folder}", len(utterances), "transcripts")
    values = np.fromiter(itertools.chain.from_iterable(map(measure, texts)), np.int32, 2 * len(utterances))
    if path is not None and keep:
        with write_atomically(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, values.reshape(-1, 2))
    return values.reshape(-1, 2)
