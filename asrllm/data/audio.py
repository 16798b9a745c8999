"""Audio from where a data directory says it lies, as float32 mono at one sample rate.

A source is a path (WAV, FLAC, Ogg Opus, Ogg Vorbis: whatever libsndfile reads), a pipe `command |` that prints such a
file, `ark:offset` into a Kaldi archive, or `tar:offset` into a tar shard (`asrllm.data.shards`). Of a file only the
span asked for is decoded. A pipe is run here and not through kaldiio, which knows only WAV and FLAC there and does
not look at the command's exit status.
"""

import io
import re
import subprocess
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import kaldiio
import numpy as np
import soundfile
import torch

from asrllm.console import UserError
from asrllm.data.kaldi import Utterance

TOLERANCE_SECONDS = 0.01  # by so much a segment may pass the end of its recording: times are rounded by their makers
_WAV_HEADER_BYTES = 44


@dataclass(frozen=True)
class Header:
    """What a recording says of itself."""

    sample_rate: int  # Hz
    channels: int
    samples: int  # of each channel

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.samples / self.sample_rate


def header(source: str) -> Header:
    """Rate, channels and length of a source; of a file without decoding it.

    Raises:
        UserError: missing, or not audio.
    """
    place = _ark_place(source)
    if source.endswith("|") or (place and not place[0].endswith(".tar")):
        wave, rate = _whole(source)
        return Header(rate, wave.shape[1], len(wave))
    try:
        info = soundfile.info(_file(source))
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(_unreadable(source, error)) from None
    return Header(info.samplerate, info.channels, info.frames)


def seconds(utterance: Utterance) -> float:
    """Length of an utterance: what its directory says, else what the recording's header says."""
    if utterance.seconds is not None:
        return utterance.seconds
    try:
        end = header(utterance.source).seconds if utterance.end is None else utterance.end
    except UserError as error:
        raise UserError(f"utterance {utterance.utt_id}: {error}") from None
    return end - (utterance.start or 0.0)


def load(utterance: Utterance, sample_rate: int) -> torch.Tensor:
    """The wave (S,) of an utterance at `sample_rate` Hz, float32 in [-1, 1].

    Raises:
        UserError: names the utterance and what is wrong with its audio.
    """
    try:
        return load_source(utterance.source, sample_rate, utterance.start, utterance.end, utterance.channel)
    except UserError as error:
        raise UserError(f"utterance {utterance.utt_id}: {error}") from None


def load_source(
    source: str,
    sample_rate: int,
    start: float | None = None,
    end: float | None = None,
    channel: int | None = None,
) -> torch.Tensor:
    """The wave (S,) between `start` and `end` seconds of a source at `sample_rate` Hz, float32 in [-1, 1].

    Args:
        source: a path, a pipe or `ark:offset`.
        sample_rate: what the wave is resampled to.
        start: None for the beginning.
        end: None for the end.
        channel: counted from 1; needed where the source has several, ignored where it has one.

    Raises:
        UserError: unreadable, empty, shorter than `end`, several channels and none chosen, or a channel it has not.
    """
    wave, rate = decode(source, start, end)
    mono = torch.from_numpy(np.ascontiguousarray(_choose(wave, channel, source)))
    if not len(mono):
        raise UserError(f"{source}: no samples between {start or 0:g} s and its end: take the utterance out")
    if rate == sample_rate:
        return mono
    from torchaudio.functional import resample  # imported late: where torchaudio is broken, the rest still works

    return resample(mono, rate, sample_rate)


def decode(source: str, start: float | None = None, end: float | None = None) -> tuple[np.ndarray, int]:
    """Samples (S, channels) float32 of a span in seconds at the source's own rate, and that rate."""
    if source.endswith("|"):
        wave, rate = _whole(source)
        return _cut(wave, rate, start, end, source), rate
    place = _ark_place(source)
    if place and not place[0].endswith(".tar"):
        quick = _read_plain_wav(*place)
        wave, rate = quick if quick else _whole(source)
        return _cut(wave, rate, start, end, source), rate
    try:
        with soundfile.SoundFile(_file(source)) as file:
            first, last = span(file.frames, file.samplerate, start, end, source)
            file.seek(first)
            wave, rate = file.read(last - first, dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(_unreadable(source, error)) from None
    if len(wave) < last - first:
        raise UserError(
            f"{source}: found {first + len(wave)} samples, expected {last} as its header says: is it cut off?"
        )
    return wave, rate


def _file(source: str) -> str | io.BytesIO:
    """What soundfile opens: a path, or the bytes of a file in a tar shard, whose header stands before them."""
    place = _ark_place(source)
    if not place:
        return source
    with open(place[0], "rb") as shard:
        shard.seek(max(0, place[1] - tarfile.BLOCKSIZE))
        try:
            size = tarfile.TarInfo.frombuf(shard.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape").size
        except tarfile.TarError:
            raise UserError(f"{source}: no file begins there: write the data directory again from its shards") from None
        return io.BytesIO(shard.read(size))


def span(samples: int, rate: int, start: float | None, end: float | None, source: str) -> tuple[int, int]:
    """First sample and the one past the last."""
    if end is not None and end > samples / rate + TOLERANCE_SECONDS:
        raise UserError(
            f"{source}: found {samples / rate:g} s of audio, expected {end:g} s for the segment to end there"
        )
    first = round((start or 0.0) * rate)
    last = samples if end is None else min(round(end * rate), samples)
    return min(first, last), last


def _cut(wave: np.ndarray, rate: int, start: float | None, end: float | None, source: str) -> np.ndarray:
    first, last = span(len(wave), rate, start, end, source)
    return wave[first:last].copy()  # the wave may be shared (see _run)


def _choose(wave: np.ndarray, channel: int | None, source: str) -> np.ndarray:
    """One channel (S,) of a wave (S, channels)."""
    channels = wave.shape[1]
    if channels == 1:
        return wave[:, 0]
    if channel is None:
        raise UserError(
            f"{source}: found {channels} channels, expected one: choose it with reco2file_and_channel or --channel"
        )
    if not 1 <= channel <= channels:
        raise UserError(f"{source}: channel {channel} is chosen, but it has the channels 1 to {channels}")
    return wave[:, channel - 1]


def _ark_place(source: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"(.+):(\d+)", source)
    return (match[1], int(match[2])) if match else None


def _read_plain_wav(path: str, offset: int) -> tuple[np.ndarray, int] | None:
    """16-bit mono WAV with the shortest header, read in one go; None for anything else."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            head = file.read(_WAV_HEADER_BYTES)
            if head[:4] + head[8:24] != b"RIFFWAVEfmt \x10\0\0\0\x01\0\x01\0" or head[34:40] != b"\x10\0data":
                return None
            size = int.from_bytes(head[40:44], "little")
            data = file.read(size)
    except OSError as error:
        raise UserError(_unreadable(f"{path}:{offset}", error)) from None
    if len(data) != size:
        raise UserError(f"{path}:{offset}: found {len(data)} bytes of samples, expected {size}: make the archive again")
    return _scale(np.frombuffer(data, dtype="<i2"))[:, None], int.from_bytes(head[24:28], "little")


def _whole(source: str) -> tuple[np.ndarray, int]:
    """All samples (S, channels) of a pipe or an archive entry."""
    if source.endswith("|"):
        return _run(source)
    try:
        entry = kaldiio.load_mat(source)
    except Exception as error:  # kaldiio asserts, or raises whatever the bytes at that place lead it to
        raise UserError(_unreadable(source, error)) from None
    if not isinstance(entry, tuple):
        raise UserError(f"{source}: found a matrix, expected audio: is it an archive of features?")
    rate, wave = entry
    return _scale(wave.reshape(len(wave), -1)), rate


@lru_cache(maxsize=1)  # the segments of one recording come one after another
def _run(pipe: str) -> tuple[np.ndarray, int]:
    done = subprocess.run(pipe.removesuffix("|"), shell=True, capture_output=True)
    if done.returncode or not done.stdout:
        words = " ".join(done.stderr.decode(errors="replace").split()) or "it printed nothing"
        raise UserError(f"{pipe}: the command ended with status {done.returncode}: {words}")
    try:
        return soundfile.read(io.BytesIO(done.stdout), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise UserError(_unreadable(pipe, error)) from None


def _scale(wave: np.ndarray) -> np.ndarray:
    """Samples of any type as float32 in [-1, 1]."""
    if wave.dtype == np.uint8:
        return wave.astype(np.float32) / 128 - 1
    if wave.dtype.kind == "i":
        return wave.astype(np.float32) * np.float32(1 / -float(np.iinfo(wave.dtype).min))
    return wave.astype(np.float32)


def _unreadable(source: str, error: Exception) -> str:
    if not source.endswith("|") and not Path(re.sub(r":\d+$", "", source)).exists():
        return f"{source}: no such audio file"
    words = " ".join(str(error).split()) or type(error).__name__
    return f"{source}: not readable as audio ({words})"
