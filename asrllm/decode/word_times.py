"""When each word of a text was said, by CTC forced alignment.

A word lasts from the first frame of its first label to the last frame of its last label, on the most probable path;
its confidence is the geometric mean of the posteriors on these labels' frames. Blanks belong to no word. It knows
units and posteriors; not audio, recordings or files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from asrllm.console import UserError
from asrllm.decode.forced_align import Span, forced_align, spans
from asrllm.text.spelling import frames_needed, is_unspaced
from asrllm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TimedWord:
    """A word and when it was said."""

    word: str
    start: float  # seconds
    end: float  # seconds
    confidence: float  # 0 to 1


@dataclass(frozen=True)
class Timed:
    """The words of one utterance."""

    words: list[TimedWord]
    fault: str = ""  # why it could not be aligned: its words are spread over the utterance instead


def time_words(
    log_probs: torch.Tensor, lens: torch.Tensor, texts: Sequence[str], units: Tokenizer, frame_seconds: float
) -> list[Timed]:
    """The words of each utterance with their times.

    Args:
        log_probs: (B, T, V) of the CTC head.
        lens: (B,) real frames.
        texts: of each utterance; one that cannot be written in `units`, or in so few frames, is spread (see `spread`).
        units: of the CTC head.
        frame_seconds: from one frame to the next.
    """
    texts = [" ".join(text.split()) for text in texts]
    sizes = lens.tolist()
    labels, faults = zip(*[_labels(units, text, size) for text, size in zip(texts, sizes, strict=True)], strict=True)
    paths, scores = forced_align(log_probs, lens, list(labels))
    timed = []
    for text, row, fault, size, path, score in zip(texts, labels, faults, sizes, paths, scores, strict=True):
        if fault:
            timed.append(Timed(spread(text, size * frame_seconds), fault))
        else:
            timed.append(Timed(_words(units, text, row, spans(path[:size], score[:size]), frame_seconds)))
    return timed


def spread(text: str, seconds: float) -> list[TimedWord]:
    """The words of a text over `seconds`, each as long as it has letters, with confidence 0."""
    words = text.split()
    places = [0]
    for word in words:
        places.append(places[-1] + len(word))
    scale = seconds / max(places[-1], 1)
    return [
        TimedWord(word, first * scale, last * scale, 0.0)
        for word, first, last in zip(words, places, places[1:], strict=False)
    ]


def _labels(units: Tokenizer, text: str, frames: int) -> tuple[list[int], str]:
    """The labels of a text; none, and why, where they cannot be aligned."""
    try:
        labels = units.encode(text) if text else []
    except UserError as fault:
        return [], str(fault)
    if (needed := frames_needed(labels)) > frames:
        return [], f"its {len(labels)} CTC labels need {needed} frames, the audio has {frames}"
    return labels, ""


def _words(
    units: Tokenizer, text: str, labels: list[int], found: Sequence[Span], frame_seconds: float
) -> list[TimedWord]:
    """The words of the text; where the writing has no spaces, or the units write its words otherwise, the labels'."""
    pieces = [units.decode([label]).strip() for label in labels]
    before = ["", *pieces]
    begins = [
        place
        for place, label in enumerate(labels)
        if place == 0 or units.starts_word(label) or is_unspaced(before[place][-1:]) or is_unspaced(pieces[place][:1])
    ]
    words, timed = text.split(), []
    for number, (first, last) in enumerate(zip(begins, [*begins[1:], len(labels)], strict=False)):
        own = [span for span, piece in zip(found[first:last], pieces[first:last], strict=True) if piece]
        word = words[number] if len(begins) == len(words) else units.decode(labels[first:last]).strip()
        if own and word:
            timed.append(_join(word, own, frame_seconds))
    return timed


def _join(word: str, found: Sequence[Span], frame_seconds: float) -> TimedWord:
    frames = sum(span.end - span.first for span in found)
    mean = sum(span.log_prob * (span.end - span.first) for span in found) / frames
    return TimedWord(word, found[0].first * frame_seconds, found[-1].end * frame_seconds, math.exp(mean))
