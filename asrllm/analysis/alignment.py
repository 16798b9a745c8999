"""Which unit is said at which moment, the same for all encoders: by the CTC head of one experiment, or from ctm files.

Units are what a probe reads, phones or letters; words are what they spell. It knows times, not vectors.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asrllm.batch import Batch
from asrllm.console import UserError, write_atomically
from asrllm.decode.forced_align import Span, forced_align, spans
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.speech_llm import SpeechLLM
from asrllm.score.markup import Word
from asrllm.score.timed import read_ctm
from asrllm.text.tokenizer import Tokenizer

REACH = 0.1  # seconds that a CTC label is taken to last beyond its frames, at most: CTC is peaky
SLACK = 0.1  # seconds by which an alignment may outlast the audio
NAMED = 5

log = logging.getLogger("asrllm")


@dataclass(frozen=True)
class Timed:
    """A unit or a word."""

    name: str
    start: float  # seconds
    end: float

    @property
    def middle(self) -> float:
        """Its centre, in seconds."""
        return (self.start + self.end) / 2


@dataclass(frozen=True)
class Alignment:
    """Of one utterance, in the order of time."""

    units: tuple[Timed, ...]
    words: tuple[Timed, ...]

    def at(self, frames: int, seconds: float) -> list[str]:
        """The unit at the centre of each of `frames` frames of an utterance of `seconds`; empty where there is none."""
        names = [""] * frames
        for unit in self.units:
            first, end = (round(time / seconds * frames) for time in (unit.start, unit.end))
            names[first:end] = [unit.name] * len(names[first:end])
        return names

    def span(self, word: Timed, frames: int, seconds: float) -> slice:
        """The frames of a word, at least one."""
        first = min(frames - 1, round(word.start / seconds * frames))
        return slice(first, max(first + 1, round(word.end / seconds * frames)))

    def spelled(self, word: Timed) -> list[int]:
        """The units whose centres lie in a word, by number."""
        return [number for number, unit in enumerate(self.units) if word.start <= unit.middle < word.end]


@torch.inference_mode()
def by_ctc(model: SpeechLLM, batches: Iterable[Batch], device: torch.device) -> dict[str, Alignment]:
    """Forced alignment of the transcripts, in the units of the intermediate CTC where there is one in characters.

    A label lasts from half-way to the one before to half-way to the one after, at most 0.1 s beyond its frames (ours).
    Utterances too short for their labels are left out, with a warning.

    Raises:
        UserError: none is left.
    """
    lower = model.ctc.lower is not None and bool(model.encoder.intermediate_layers)
    units = model.language.lower_units if lower else model.language.units
    found, lost = {}, []
    for batch in batches:
        batch = batch.to(device)
        assert batch.waves is not None
        if lower:
            _, lens, taps = model.encoder.with_intermediate(batch.waves, batch.wave_lens)
            log_probs = model.ctc.intermediate(taps[-1])
        else:
            log_probs, lens = model.ctc_log_probs(batch)
        for row, utt_id in enumerate(batch.utt_ids):
            size, seconds = int(lens[row]), float(batch.wave_lens[row]) / SAMPLE_RATE
            labels = units.encode(batch.texts[row])
            try:
                path, scores = forced_align(log_probs[row : row + 1, :size], lens[row : row + 1], [labels])
            except UserError:
                lost.append(utt_id)
                continue
            found[utt_id] = _timed(spans(path[0], scores[0]), units, seconds / max(1, size))
    if lost:
        named = ", ".join(lost[:NAMED]) + (", ..." if len(lost) > NAMED else "")
        log.warning(
            "%d utterances are too short for their transcripts, left out of the alignment: %s", len(lost), named
        )
    if not found:
        raise UserError("no utterance could be aligned: all are shorter than their transcripts need")
    return found


def _timed(found: Sequence[Span], units: Tokenizer, frame: float) -> Alignment:
    """Spans of labels with their silence shared out, spaces left out, and the words that they make."""
    named: list[Timed] = []
    words: list[Timed] = []
    begins = True
    for number, span in enumerate(found):
        name = units.decode([span.label]).strip()
        before = found[number - 1].end if number else 0
        after = found[number + 1].first if number + 1 < len(found) else span.end
        start = max((before + span.first) / 2 * frame if number else 0.0, span.first * frame - REACH)
        end = min((span.end + after) / 2 * frame, span.end * frame + REACH)
        if number + 1 == len(found):
            end = span.end * frame + REACH
        begins = begins or units.starts_word(span.label)
        if not name:
            continue
        named.append(Timed(name, start, end))
        if begins or not words:
            words.append(named[-1])
        else:
            words[-1] = Timed(words[-1].name + name, words[-1].start, end)
        begins = False
    return Alignment(tuple(named), tuple(words))


def read(units: Path, words: Path) -> dict[str, Alignment]:
    """From ctm files (utterance channel start seconds name) of units and of words."""
    tables = [_read(path) for path in (units, words)]
    if missing := sorted(tables[0].keys() ^ tables[1].keys()):
        raise UserError(f"{units} and {words} are not of the same utterances: {missing[0]} is in one of them alone")
    return {utt_id: Alignment(tables[0][utt_id], tables[1][utt_id]) for utt_id in tables[0]}


def _read(path: Path) -> dict[str, tuple[Timed, ...]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file: expected a ctm, lines of: utterance channel start seconds name")
    found = {}
    for (utt_id, _), items in read_ctm(path, case_sensitive=True).items():
        timed = [Timed(item.text, item.start, item.start + item.seconds) for item in items if isinstance(item, Word)]
        found[utt_id] = tuple(timed)
    return found


def write(alignments: Mapping[str, Alignment], units: Path, words: Path) -> None:
    """As ctm files, which `read` reads."""
    for path, name in ((units, "units"), (words, "words")):
        with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for utt_id, alignment in sorted(alignments.items()):
                for each in getattr(alignment, name):
                    stream.write(f"{utt_id} 1 {each.start:.3f} {each.end - each.start:.3f} {each.name}\n")


def check(alignments: Mapping[str, Alignment], seconds: Mapping[str, float], where: str) -> None:
    """Refuse an alignment of other audio.

    Raises:
        UserError: an utterance has no alignment, or one that ends after its audio.
    """
    if missing := [utt_id for utt_id in seconds if utt_id not in alignments]:
        named = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        raise UserError(f"{where}: does not match the audio: {len(missing)} utterances have no alignment: {named}")
    for utt_id, length in seconds.items():
        ends = max((each.end for each in (*alignments[utt_id].units, *alignments[utt_id].words)), default=0.0)
        if ends > length + SLACK:
            raise UserError(
                f"{where}: does not match the audio: {utt_id} has {length:.2f} s, its alignment ends at {ends:.2f} s: "
                "give the alignment of this data directory"
            )


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Names by number, in their order."""
    return {name: number for number, name in enumerate(sorted(set(names)))}


def labels(names: Sequence[str], numbers: Mapping[str, int]) -> NDArray[np.int64]:
    """The number of each name, -1 for the empty one."""
    return np.array([numbers.get(name, -1) for name in names], dtype=np.int64)
