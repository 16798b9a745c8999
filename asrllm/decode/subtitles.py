"""Words with times as files: NIST's `ctm`, SubRip's `srt`, WebVTT's `vtt`. It knows words and times only."""

import html
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from asrllm.decode.word_times import TimedWord

LETTERS, LINES, MAX_SECONDS, MAX_PAUSE = 42, 2, 7.0, 1.0  # of a cue; 42 letters and 7 s are television's custom


@dataclass(frozen=True)
class Place:
    """Where an utterance lies."""

    file: str
    channel: str
    start: float  # seconds into the recording


def shift(words: Iterable[TimedWord], seconds: float) -> list[TimedWord]:
    """The words so much later."""
    return [replace(word, start=word.start + seconds, end=word.end + seconds) for word in words]


def ctm(words: Sequence[TimedWord], file: str, channel: str) -> str:
    """Lines `file channel start duration word confidence` of one channel, in the order of time."""
    return "".join(
        f"{file} {channel} {each.start:.3f} {each.end - each.start:.3f} {each.word} {each.confidence:.4f}\n"
        for each in sorted(words, key=lambda each: each.start)
    )


@dataclass(frozen=True)
class Cue:
    """A text that is shown at once."""

    start: float
    end: float
    lines: tuple[str, ...]


def cues(words: Sequence[TimedWord]) -> list[Cue]:
    """The words of an utterance in pieces that fit on a screen; a pause ends one."""
    made: list[list[TimedWord]] = []
    for word in words:
        last = made[-1] if made else []
        full = not last or word.end - last[0].start > MAX_SECONDS or word.start - last[-1].end > MAX_PAUSE
        if full or len(_lines([*last, word])) > LINES:
            made.append([word])
        else:
            last.append(word)
    return [Cue(piece[0].start, piece[-1].end, tuple(_lines(piece))) for piece in made]


def srt(shown: Sequence[Cue]) -> str:
    """A SubRip file."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "".join(f"{line}\n" for line in cue.lines)
        for number, cue in enumerate(shown, 1)
    )


def vtt(shown: Sequence[Cue]) -> str:
    """A WebVTT file."""
    return "WEBVTT\n" + "".join(
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
        + "".join(f"{html.escape(line, quote=False)}\n" for line in cue.lines)
        for cue in shown
    )


def _lines(words: Sequence[TimedWord]) -> list[str]:
    return textwrap.wrap(" ".join(each.word for each in words), LETTERS, break_on_hyphens=False)


def _clock(seconds: float, point: str) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
