"""What an utterance's audio tells when its header is read, or all of it is decoded: length, level, clipping, a
fingerprint.

Our own measures: a sample counts as clipped where it and a neighbour stand at full scale; a frame of 10 ms is silent
below -60 dB of full scale.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from asrllm.console import UserError
from asrllm.data import audio
from asrllm.data.kaldi import Utterance

FULL_SCALE = 32766 / 32768
SILENT_DB = -60.0
_FRAME_SECONDS = 0.01


@dataclass(frozen=True)
class Sound:
    """Measures of one utterance; those that need its samples are None where only the header was read."""

    seconds: float = 0.0
    sample_rate: int = 0  # Hz
    fault: str = ""  # why it cannot be used
    fingerprint: int | None = None  # of the samples, 64 bits
    clipped_share: float | None = None  # of the samples
    silent_share: float | None = None  # of the frames
    peak_db: float | None = None  # of full scale


def listen(utterance: Utterance, decode: bool) -> Sound:
    """Measure one utterance; of a fault the sentence."""
    try:
        header = _header(utterance.source)
        first, last = audio.span(header.samples, header.sample_rate, utterance.start, utterance.end, utterance.source)
        seconds = (last - first) / header.sample_rate
        if last <= first:
            return Sound(fault=f"{utterance.source}: no samples for it")
        if header.channels > 1 and not 1 <= (utterance.channel or 0) <= header.channels:
            return Sound(fault=f"{utterance.source}: {header.channels} channels and none of them chosen")
        if not decode:
            return Sound(seconds, header.sample_rate)
        waves, rate = audio.decode(utterance.source, utterance.start, utterance.end)
    except UserError as error:
        return Sound(fault=str(error))
    return measure(waves[:, (utterance.channel or 1) - 1 if waves.shape[1] > 1 else 0], rate)


@lru_cache(maxsize=1024)  # segments of one recording come one after another
def _header(source: str) -> audio.Header:
    return audio.header(source)


def measure(wave: np.ndarray, sample_rate: int) -> Sound:
    """Measures of samples (S,), float32 in [-1, 1]."""
    level = np.abs(wave)
    full = level >= FULL_SCALE
    clipped = full & (np.append(full[1:], False) | np.insert(full[:-1], 0, False))
    frame = max(1, round(_FRAME_SECONDS * sample_rate))
    whole = wave[: len(wave) // frame * frame].reshape(-1, frame) if len(wave) >= frame else wave[None]
    power = np.mean(np.square(whole, dtype=np.float64), axis=1)
    samples = np.rint(np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes()
    return Sound(
        len(wave) / sample_rate,
        sample_rate,
        fingerprint=int.from_bytes(hashlib.blake2b(samples, digest_size=8).digest(), "little"),
        clipped_share=float(clipped.mean()),
        silent_share=float(np.mean(power < 10 ** (SILENT_DB / 10))),
        peak_db=20 * float(np.log10(max(level.max(), 1e-10))),
    )
