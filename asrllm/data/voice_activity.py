"""Where somebody speaks in a long recording, by Silero VAD (PyPI `silero-vad`, whose model comes with the package).

A recording is read in blocks of a minute: of 3 hours no more than one block and one number for each 32 ms is held. It
says where speech lies; what is made of that is a data directory with `segments` (`asrllm.bin.segment`).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pydantic
import torch

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.data import audio
from asrllm.data.kaldi import Utterance

SAMPLE_RATE, WINDOW = 16000, 512  # what Silero VAD reads at once
BLOCK_SECONDS = 60  # a whole number of windows
MARGIN_SECONDS = 1.0  # around a block, so that resampling does not see its ends


class SegmentConfig(Config):
    """How speech is parted.

    A pause of `min_silence_seconds` ends a segment, and so does `max_seconds`, at the longest pause before. Segments
    shorter than `min_speech_seconds` are left out. The others get `padding_seconds` at both ends, half of the pause at
    most; then neighbours not more than `merge_gap_seconds` apart are merged, up to `max_seconds`.
    """

    threshold: float = pydantic.Field(0.5, gt=0.0, lt=1.0)  # probability of speech
    min_speech_seconds: float = pydantic.Field(0.25, ge=0.0)
    min_silence_seconds: float = pydantic.Field(0.3, gt=0.0)
    padding_seconds: float = pydantic.Field(0.2, ge=0.0)
    merge_gap_seconds: float = pydantic.Field(0.5, ge=0.0)
    max_seconds: float = pydantic.Field(20.0, gt=0.0)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "SegmentConfig":
        if self.max_seconds < 2 * self.padding_seconds + 1:
            raise ValueError(f"max_seconds is {self.max_seconds:g}, expected a second more than twice padding_seconds")
        return self


Detector = Callable[[torch.Tensor], float]  # probability of speech in the window (512,) that follows those before


class Silero:
    """The network; it remembers what it has heard of a recording."""

    def __init__(self) -> None:
        """Load it from its package.

        Raises:
            UserError: no such package, or one too old.
        """
        threads = torch.get_num_threads()
        try:
            from silero_vad import get_speech_timestamps_from_probs, load_silero_vad
        except ImportError:
            raise UserError(
                "no package silero-vad of version 6.2.3 or newer, which finds speech in long recordings: "
                "install it with: pip install 'silero-vad>=6.2.3'"
            ) from None
        self._part = get_speech_timestamps_from_probs
        self._model = load_silero_vad()
        torch.set_num_threads(threads)  # the package sets it to 1

    def start(self) -> Detector:
        """Begin a recording."""
        self._model.reset_states()
        return lambda window: float(self._model(window, SAMPLE_RATE))

    def part(self, probabilities: list[float], samples: int, config: SegmentConfig) -> list[tuple[float, float]]:
        """Start and end in seconds of each piece of speech, padded."""
        found = self._part(
            probabilities,
            SAMPLE_RATE,
            threshold=config.threshold,
            min_speech_duration_ms=round(1000 * config.min_speech_seconds),
            max_speech_duration_s=config.max_seconds,
            min_silence_duration_ms=round(1000 * config.min_silence_seconds),
            speech_pad_ms=round(1000 * config.padding_seconds),
            audio_length_samples=samples,
        )
        return [(each["start"] / SAMPLE_RATE, each["end"] / SAMPLE_RATE) for each in found]


def segment(recording: Utterance, vad: Silero, config: SegmentConfig) -> list[Utterance]:
    """The segments of a recording in which somebody speaks: utterances `RECORDING-START-END`, times in 0.01 s.

    Raises:
        UserError: unreadable, or several channels and none chosen.
    """
    name = recording.recording or recording.utt_id
    begin = name if name.startswith(recording.speaker) else f"{recording.speaker}-{name}"  # so that tables sort alike
    first, found = recording.start or 0.0, []
    detect, probabilities, samples = vad.start(), [], 0
    for block in blocks(recording):
        samples += len(block)
        windows = torch.nn.functional.pad(block, (0, -len(block) % WINDOW)).view(-1, WINDOW)
        with torch.inference_mode():
            probabilities += [detect(window) for window in windows]
    for start, end in merge(vad.part(probabilities, samples, config), config):
        start, end = first + start, first + end
        utt_id = f"{begin}-{round(100 * start):07d}-{round(100 * end):07d}"
        found.append(
            replace(recording, utt_id=utt_id, text="", start=start, end=end, seconds=end - start, recording=name)
        )
    return found


def blocks(recording: Utterance) -> Iterator[torch.Tensor]:
    """A recording at 16 kHz in pieces (S,) of a minute, the same samples as if it were read as a whole."""
    first = recording.start or 0.0
    last = audio.header(recording.source).seconds if recording.end is None else recording.end
    start = first
    while start < last:
        end, before = min(start + BLOCK_SECONDS, last), min(MARGIN_SECONDS, start - first)
        until = min(end + MARGIN_SECONDS, last)
        wave = audio.load_source(recording.source, SAMPLE_RATE, start - before, until, recording.channel)
        skipped = round(before * SAMPLE_RATE)
        yield wave[skipped : skipped + BLOCK_SECONDS * SAMPLE_RATE] if until > end else wave[skipped:]
        start = end


def merge(pieces: list[tuple[float, float]], config: SegmentConfig) -> list[tuple[float, float]]:
    """Neighbours that lie close together as one, where that is not too long."""
    merged: list[tuple[float, float]] = []
    for start, end in pieces:
        if merged and start - merged[-1][1] <= config.merge_gap_seconds and end - merged[-1][0] <= config.max_seconds:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((start, end))
    return merged
