"""The data doctor: what is odd in a data directory beyond broken rules, found in one walk and a look back for names.

It holds some tens of bytes an utterance (length, characters, two fingerprints), the characters and the speakers; not
the tables. All limits are ours. What is odd need not be wrong, so it repairs nothing.
"""

import hashlib
import math
import unicodedata
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from asrllm.config import Config
from asrllm.console import track
from asrllm.data.kaldi import Problem, Utterance
from asrllm.data.listening import Sound, listen
from asrllm.data.walk import walk

_EXAMPLES = 10  # of each kind
_PER_JOB = 16  # utterances that wait for a thread


class Limits(Config):
    """Beyond these an utterance is odd."""

    frame_seconds: float = 0.04  # of the encoder, for CTC with one label a character
    clipped_share: float = 0.001
    silent_share: float = 0.9
    peak_db: float = -40.0
    rate_deviations: float = 6.0  # characters per second, in robust standard deviations of its logarithm
    rate_least: int = 50  # utterances, for that to mean something


@dataclass
class Finding:
    """One kind of oddity: how often, and where first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """One more."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(example)


@dataclass
class Examined:
    """What one walk through a directory gave."""

    folder: Path
    findings: dict[str, Finding] = field(default_factory=lambda: defaultdict(Finding))
    seconds: array = field(default_factory=lambda: array("d"))
    letters: array = field(default_factory=lambda: array("I"))  # characters of the transcript without spaces
    texts: array = field(default_factory=lambda: array("Q"))  # fingerprints of transcripts
    sounds: array = field(default_factory=lambda: array("Q"))  # of audio, or of where it lies
    speakers: Counter[str] = field(default_factory=Counter)  # utterances of each
    characters: Counter[str] = field(default_factory=Counter)
    first_with: dict[str, str] = field(default_factory=dict)  # character: the first utterance that has it
    sample_rates: Counter[int] = field(default_factory=Counter)

    @property
    def rates(self) -> np.ndarray:
        """Characters per second of the utterances that have a length and a transcript."""
        seconds, letters = np.array(self.seconds), np.array(self.letters, dtype=np.float64)
        there = (seconds > 0) & (letters > 0)
        return letters[there] / seconds[there]


_USUAL = Limits()


def examine(folder: Path, decode: bool = False, jobs: int = 1, limits: Limits = _USUAL) -> Examined:
    """Walk through a directory and collect what is odd in it.

    Args:
        folder: the data directory.
        decode: listen to all audio instead of reading headers alone.
        jobs: threads that open audio.
        limits: what counts as odd.
    """
    result = Examined(folder)
    heard = _heard(walk(folder, lambda problem: _tell(result, problem)), decode, jobs)
    for utterance, sound in track(heard, f"Examining {folder}", None, "utterances"):
        _note_text(result, utterance)
        _note_sound(result, utterance, sound, limits)
    _outliers(result, limits)
    _repeated(result, "duplicate_audio", result.sounds)
    _repeated(result, "duplicate_text", result.texts)
    if len(result.sample_rates) > 1:
        rates = ", ".join(f"{count} at {rate} Hz" for rate, count in result.sample_rates.most_common())
        result.findings["mixed_sample_rates"].add(rates)
    result.findings = dict(result.findings)
    return result


def _tell(result: Examined, problem: Problem) -> None:
    result.findings["broken_rule"].add(str(problem))


def _heard(utterances: Iterable[Utterance], decode: bool, jobs: int) -> Iterator[tuple[Utterance, Sound]]:
    """Utterances in order, each with its audio's measures; few wait at a time."""
    waiting: deque[tuple[Utterance, Future[Sound]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for utterance in utterances:
            waiting.append((utterance, pool.submit(listen, utterance, decode)))
            if len(waiting) > _PER_JOB * jobs:
                first, sound = waiting.popleft()
                yield first, sound.result()
        for first, sound in waiting:
            yield first, sound.result()


def _note_text(result: Examined, utterance: Utterance) -> None:
    text = utterance.text
    result.speakers[utterance.speaker] += 1
    result.letters.append(sum(not letter.isspace() for letter in text))
    result.texts.append(fingerprint(text))
    for letter in set(text):
        if letter not in result.first_with:
            result.first_with[letter] = utterance.utt_id
    result.characters.update(text)
    if odd := [letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cn", "Zl", "Zp")]:
        names = ", ".join(sorted({f"U+{ord(letter):04X}" for letter in odd}))
        result.findings["invisible_characters"].add(f"{utterance.utt_id}: {names}")


def _note_sound(result: Examined, utterance: Utterance, sound: Sound, limits: Limits) -> None:
    utt_id, found = utterance.utt_id, result.findings
    result.seconds.append(sound.seconds)
    place = f"{utterance.source} {utterance.start} {utterance.end} {utterance.channel}"
    result.sounds.append(fingerprint(place) if sound.fingerprint is None else sound.fingerprint)
    if sound.fault:
        found["unusable_audio"].add(f"{utt_id}: {sound.fault}")
        return
    result.sample_rates[sound.sample_rate] += 1
    told = utterance.seconds
    if told is not None and abs(told - sound.seconds) > max(0.02, 0.01 * sound.seconds):
        found["wrong_duration"].add(f"{utt_id}: {told:.2f} s by its table, {sound.seconds:.2f} s of audio")
    needed = ctc_frames(utterance.text)
    if needed * limits.frame_seconds > sound.seconds:
        found["too_short_for_ctc"].add(f"{utt_id}: {needed} frames needed in {sound.seconds:.2f} s")
    if sound.clipped_share is not None and sound.clipped_share > limits.clipped_share:
        found["clipping"].add(f"{utt_id}: {100 * sound.clipped_share:.2f} % of the samples")
    if sound.silent_share is not None and sound.silent_share > limits.silent_share:
        found["silence"].add(f"{utt_id}: {100 * sound.silent_share:.0f} % of the time")
    if sound.peak_db is not None and sound.peak_db < limits.peak_db:
        found["faint"].add(f"{utt_id}: peak {sound.peak_db:.0f} dB of full scale")


def fingerprint(text: str) -> int:
    """64 bits of a text, case and spaces folded."""
    return int.from_bytes(hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest(), "little")


def ctc_frames(text: str) -> int:
    """Frames that CTC needs for a transcript with one label a character: a blank stands between equal ones."""
    letters = " ".join(text.split())
    return len(letters) + sum(before == after for before, after in pairwise(letters))


def _outliers(result: Examined, limits: Limits) -> None:
    """Utterances with far more or fewer characters a second than the others."""
    rates = result.rates
    if len(rates) < limits.rate_least:
        return
    logs = np.log(rates)
    middle = float(np.median(logs))
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 1e-3)
    low, high = (math.exp(middle + sign * limits.rate_deviations * spread) for sign in (-1, 1))
    seconds, letters = np.array(result.seconds), np.array(result.letters, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = letters / seconds
    odd = np.flatnonzero((seconds > 0) & (letters > 0) & ((each < low) | (each > high)))
    for index, utt_id in _names(result.folder, odd):
        result.findings["odd_speaking_rate"].add(
            f"{utt_id}: {each[index]:.1f} characters a second (usual: {low:.1f} to {high:.1f})"
        )


def _repeated(result: Examined, kind: str, prints: array) -> None:
    """Utterances whose fingerprint another one has too; examples name groups."""
    values = np.array(prints, dtype=np.uint64)
    if kind == "duplicate_text" and not any(result.letters):
        return
    unique, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    again = counts[inverse] > 1
    if not again.any():
        return
    groups = np.flatnonzero(counts > 1)[:_EXAMPLES]
    shown = np.flatnonzero(np.isin(inverse, groups))[: 5 * _EXAMPLES]
    members: dict[int, list[str]] = defaultdict(list)
    for index, utt_id in _names(result.folder, shown):
        members[int(inverse[index])].append(utt_id)
    examples = [f"{' '.join(utt_ids[:4])} ({counts[group]} times)" for group, utt_ids in members.items()]
    result.findings[kind] = Finding(int(again.sum()), examples[:_EXAMPLES])


def _names(folder: Path, indices: np.ndarray) -> Iterator[tuple[int, str]]:
    """Utterance ids by number, out of a second walk that ends behind the last of them."""
    wanted = iter(indices.tolist())
    index = next(wanted, None)
    if index is None:
        return
    for number, utterance in enumerate(walk(folder, lambda _: None)):
        if number == index:
            yield index, utterance.utt_id
            index = next(wanted, None)
            if index is None:
                return


def compare(trained: Examined, other: Examined) -> dict[str, Finding]:
    """What a set that is tested on shares with the one that is trained on, or has that the latter lacks."""
    findings: dict[str, Finding] = {}
    shared = sorted(trained.speakers.keys() & other.speakers.keys())
    if shared:
        count = sum(other.speakers[speaker] for speaker in shared)
        findings["speakers_in_training"] = Finding(
            count, [f"{name}: {other.speakers[name]}" for name in shared[:_EXAMPLES]]
        )
    for kind, ours, theirs in (
        ("sentences_in_training", trained.texts, other.texts),
        ("audio_in_training", trained.sounds, other.sounds),
    ):
        both = np.isin(np.array(theirs, dtype=np.uint64), np.array(ours, dtype=np.uint64))
        if kind == "sentences_in_training":
            both &= np.array(other.letters) > 0
        if both.any():
            names = [utt_id for _, utt_id in _names(other.folder, np.flatnonzero(both)[:_EXAMPLES])]
            findings[kind] = Finding(int(both.sum()), names)
    new = other.characters.keys() - trained.characters.keys()
    unseen = sorted(new, key=lambda letter: (-other.characters[letter], letter))
    if unseen:
        examples = [
            f"{letter!r} {other.characters[letter]} times, first in {other.first_with[letter]}" for letter in unseen
        ]
        findings["unseen_characters"] = Finding(
            sum(other.characters[letter] for letter in unseen), examples[:_EXAMPLES]
        )
    return findings
