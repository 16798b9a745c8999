"""How long utterances are, from their directory where it tells and from the headers of their audio where not."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from asrllm.console import track
from asrllm.data import audio, kaldi
from asrllm.data.kaldi import Utterance


@dataclass(frozen=True)
class Size:
    """Length of an utterance at the rate of its own recording."""

    samples: int
    sample_rate: int  # Hz

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.samples / self.sample_rate


def measure(folder: Path, jobs: int = 1) -> dict[str, Size]:
    """Open the header of each recording once, in `jobs` threads; a pipe has to run whole.

    Raises:
        UserError: names the recording that cannot be opened or ends before its segment.
    """
    utterances = sorted(kaldi.read(folder), key=lambda each: each.source)
    groups = [list(group) for _, group in groupby(utterances, key=lambda each: each.source)]
    with ThreadPoolExecutor(jobs) as pool:
        found = track(pool.map(_of_recording, groups), f"Measuring {folder}", len(groups), "recordings")
        return {utt_id: size for sizes in found for utt_id, size in sizes}


def _of_recording(utterances: list[Utterance]) -> list[tuple[str, Size]]:
    header = audio.header(utterances[0].source)
    span = partial(audio.span, header.samples, header.sample_rate)
    bounds: Iterable[tuple[int, int]] = (span(each.start, each.end, each.source) for each in utterances)
    sizes = (Size(last - first, header.sample_rate) for first, last in bounds)
    return [(each.utt_id, size) for each, size in zip(utterances, sizes, strict=True)]


def seconds(folder: Path, jobs: int = 1) -> dict[str, float]:
    """Seconds of every utterance; audio is opened only where neither `utt2dur` nor `segments` tells."""
    known = {each.utt_id: each.seconds for each in kaldi.read(folder)}
    if None in known.values():
        return {utt_id: size.seconds for utt_id, size in measure(folder, jobs).items()}
    return {utt_id: length for utt_id, length in known.items() if length is not None}
