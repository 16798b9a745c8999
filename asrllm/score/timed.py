"""Timed files of sclite: references as segments (`stm`), hypotheses as words (`ctm`), cut into utterances by time.

A word belongs to the first segment that ends after the middle of the word, and the last segment of a channel takes
all that is left, as in sclite. Files and channels are joined by name; sclite wants them in the same order instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrllm.console import UserError
from asrllm.score.markup import NULL, Item, MarkupError, Word, parse
from asrllm.score.transcripts import fold, read_lines
from asrllm.score.utterances import Joined, Normalize, Segment, Utterance, normalized

IGNORE = ("ignore_time_segment_in_scoring", "ignoretimesegmentinscoring")
Channel = tuple[str, str]  # file and channel


@dataclass(frozen=True, slots=True)
class Reference:
    """One line of an stm file."""

    speaker: str
    segment: Segment
    items: tuple[Item, ...]
    ignored: bool  # its words are neither right nor wrong


def read_stm(path: Path, case_sensitive: bool = False) -> dict[Channel, list[Reference]]:
    """`stm`: file channel speaker start end [<labels>] words, as segments of each channel.

    Raises:
        UserError: too few fields, no number, a segment that ends before it starts or starts before the one above it,
            broken markup; names file and line.
    """
    channels: dict[Channel, list[Reference]] = {}
    for number, raw in enumerate(read_lines(path), 1):
        line = raw if case_sensitive else fold(raw)
        if not line.strip() or line.startswith((";;", "**")):
            continue
        where = f"{path}: line {number}"
        fields = line.split(maxsplit=5)
        if len(fields) < 5:
            raise UserError(f"{where}: found {len(fields)} fields, expected: file channel speaker start end words")
        file, channel, speaker, *times = fields[:5]
        start, end = (_seconds(text, where) for text in times)
        above = channels.setdefault((file, channel), [])
        if end < start:
            raise UserError(f"{where}: the segment ends at {times[1]} before it starts at {times[0]}")
        if above and start < above[-1].segment.start:
            raise UserError(f"{where}: the segment starts at {times[0]}, before the one above it: sort {path} by time")
        text = fields[5] if len(fields) > 5 else ""
        labels = ""
        if text.startswith("<"):
            labels, _, text = text.partition(" ")
        try:
            items = parse(text)
        except MarkupError as fault:
            raise UserError(f"{where}: {fault}") from None
        ignored = any(mark in text.lower() for mark in IGNORE)
        above.append(Reference(speaker, Segment(file, channel, labels, start, end), items, ignored))
    if not channels:
        raise UserError(f"{path}: no segment in it: expected lines of: file channel speaker start end words")
    return channels


def read_ctm(path: Path, case_sensitive: bool = False) -> dict[Channel, list[Item]]:
    """`ctm`: file channel start duration word [confidence], as items of each channel in the order of time.

    `<ALT_BEGIN>`, `<ALT>` and `<ALT_END>` enclose alternatives.

    Raises:
        UserError: too few fields, no number, a duration below zero, times that run backwards, alternatives that do not
            end; names file and line.
    """
    channels: dict[Channel, list[Item]] = {}
    parts: list[list[Word]] | None = None  # alternatives that are open
    opened = ""
    last: dict[Channel, float] = {}
    for number, raw in enumerate(read_lines(path), 1):
        line = raw if case_sensitive else fold(raw)
        if not line.strip() or line.startswith((";", "**")):
            continue
        where = f"{path}: line {number}"
        fields = line.split()
        if len(fields) < 5:
            raise UserError(f"{where}: found {len(fields)} fields, expected: file channel start duration word")
        key, text = (fields[0], fields[1]), fields[4]
        items = channels.setdefault(key, [])
        match text.lower():
            case "<alt_begin>":
                if parts is not None:
                    raise UserError(f"{where}: <ALT_BEGIN> inside alternatives: close those of {opened} first")
                parts, opened = [[]], where
            case "<alt>" | "<alt_end>" if parts is None:
                raise UserError(f"{where}: {text} without <ALT_BEGIN>")
            case "<alt>":
                assert parts is not None
                parts.append([])
            case "<alt_end>":
                assert parts is not None
                items.append(tuple(tuple(part) or (Word(NULL),) for part in parts))
                parts = None
            case _:
                word = _word(fields, where)
                if parts is not None:
                    parts[-1].append(word)
                elif word.start < last.get(key, 0.0):
                    raise UserError(f"{where}: starts at {fields[2]}, before the word above it: sort {path} by time")
                else:
                    last[key] = word.start
                    items.append(word)
    if parts is not None:
        raise UserError(f"{opened}: alternatives are not closed: expected <ALT_END>")
    if not channels:
        raise UserError(f"{path}: no word in it: expected lines of: file channel start duration word")
    return channels


def _word(fields: Sequence[str], where: str) -> Word:
    start, seconds = _seconds(fields[2], where), _seconds(fields[3], where)
    if seconds < 0 or start < 0:
        raise UserError(f"{where}: found the time {fields[2]} and the duration {fields[3]}, expected none below zero")
    sure = None if len(fields) < 6 or fields[5].upper() == "NA" else _seconds(fields[5], where)
    text = fields[4][:-1] if len(fields[4]) > 1 and fields[4].endswith("*") else fields[4]
    return Word(text, start, seconds, sure)


def _seconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{where}: found {text!r}, expected a number")
    return value


def join_timed(
    refs: dict[Channel, list[Reference]], hyps: dict[Channel, list[Item]], normalize: Normalize | None
) -> Joined:
    """Utterances of all channels that have a reference; a channel without words is a missing hypothesis.

    Raises:
        UserError: not one channel in common.
    """
    if not refs.keys() & hyps.keys():
        raise UserError(
            f"no channel in common: the stm begins with {' '.join(min(refs))}, the ctm with {' '.join(min(hyps))}: "
            "give the stm of the same recordings"
        )
    utterances: list[Utterance] = []
    ignored: list[str] = []
    spoken: dict[str, int] = {}
    for key, references in refs.items():
        for reference, words in zip(references, _cut(references, hyps.get(key, [])), strict=True):
            segment = reference.segment
            place = f"{segment.file} {segment.channel} {segment.start:.2f}"
            if reference.ignored:
                ignored.append(place)
                continue
            number = spoken.get(reference.speaker, 0)
            spoken[reference.speaker] = number + 1
            name = f"{reference.speaker}-{number:03d}"
            hyp = normalized(tuple(words), normalize)
            ref = normalized(reference.items, normalize)
            utterances.append(Utterance(f"{name} {place}", name, reference.speaker, ref, hyp, segment))
    missing = tuple(" ".join(key) for key in refs if key not in hyps)
    extra = tuple(sorted(" ".join(key) for key in hyps if key not in refs))
    seconds = {each.utt_id: each.segment.end - each.segment.start for each in utterances if each.segment is not None}
    return Joined(utterances, missing, extra, tuple(ignored), seconds)


def join_words(refs: dict[Channel, list[Item]], hyps: dict[Channel, list[Item]], normalize: Normalize | None) -> Joined:
    """Two ctm files: a channel is an utterance, so that words may be aligned by their times.

    Raises:
        UserError: not one channel in common; a normaliser, which would lose the times.
    """
    if normalize is not None:
        raise UserError(
            "two ctm files keep the times of their words: use normalizer none, and normalise them beforehand"
        )
    if not refs.keys() & hyps.keys():
        raise UserError(f"no channel in common: one ctm begins with {' '.join(min(refs))}, the other with {min(hyps)}")
    utterances = []
    for key, items in refs.items():
        name = "-".join(key)
        segment = Segment(*key, "", _middle(items[0]), _middle(items[-1]))
        utterances.append(Utterance(name, name, name, tuple(items), tuple(hyps.get(key, ())), segment))
    missing = tuple(" ".join(key) for key in refs if key not in hyps)
    return Joined(utterances, missing, tuple(sorted(" ".join(key) for key in hyps if key not in refs)))


def _cut(references: Sequence[Reference], items: Sequence[Item]) -> list[list[Item]]:
    """The words of each segment."""
    cut: list[list[Item]] = [[] for _ in references]
    place = 0
    for item in items:
        while place < len(references) - 1 and _middle(item) >= float(np.float32(references[place].segment.end)):
            place += 1
        cut[place].append(item)
    return cut


def _middle(item: Item) -> float:
    if isinstance(item, Word):
        return item.start + item.seconds / 2
    return max((_middle(word) for part in item for word in part if word != Word(NULL)), default=0.0)
