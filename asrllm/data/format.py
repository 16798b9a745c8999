"""The training-ready form of a data directory: one archive of 16-bit mono WAV at one rate, segments cut.

Reading an utterance is then one seek and one read (`asrllm.data.audio`), and any Kaldi program can read the directory
too. `format.json` holds a fingerprint of what the directory was made from: made again only where that changed.
"""

import hashlib
import io
import json
import multiprocessing
import re
import wave
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from asrllm.console import track, write_atomically
from asrllm.data import audio, index, kaldi
from asrllm.data.kaldi import Utterance

_SOURCES = ("wav.scp", "segments", "text", "utt2spk", "reco2file_and_channel")
_UTTERANCES_AT_ONCE = 8  # what one process is handed


def write(folder: Path, out: Path, sample_rate: int, channel: int | None = None, jobs: int = 1) -> bool:
    """Make `out` from a checked data directory, whole or not at all.

    Args:
        folder: the data directory.
        out: gets `audio.ark`, `wav.scp` (paths as `out` was given), `text`, `utt2spk`, `spk2utt`, `utt2dur`.
        sample_rate: Hz of the archive.
        channel: counted from 1; goes before `reco2file_and_channel`.
        jobs: processes that decode.

    Returns:
        False where `out` was up to date and nothing was done.

    Raises:
        UserError: names the utterance whose audio cannot be read.
    """
    utterances = kaldi.read(folder, channel)
    stamp = {"sample_rate": sample_rate, "channel": channel, "fingerprint": _fingerprint(folder, utterances)}
    if _stamp(out) == stamp and (out / "audio.ark").exists():
        return False
    with write_atomically(out) as temporary:
        temporary.mkdir()
        entries = _write_archive(utterances, temporary / "audio.ark", out / "audio.ark", sample_rate, jobs)
        kaldi.write_tables(kaldi.tables(entries), temporary)
        index.write(temporary)
        (temporary / "format.json").write_text(json.dumps(stamp, indent=1) + "\n")
    return True


def _stamp(out: Path) -> object:
    try:
        return json.loads((out / "format.json").read_text())
    except (OSError, ValueError):
        return None


def _fingerprint(folder: Path, utterances: list[Utterance]) -> str:
    """Hash of the tables, and of size and time of change of every audio file in them (of a pipe, the command alone)."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        if (folder / name).exists():
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    for source in sorted({utterance.source for utterance in utterances}):
        path = Path(re.sub(r":\d+$", "", source))
        if not source.endswith("|") and path.exists():
            status = path.stat()
            digest.update(f"{source} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _write_archive(
    utterances: list[Utterance], archive: Path, final: Path, sample_rate: int, jobs: int
) -> list[Utterance]:
    """Write all audio into `archive`; the utterances as they are to be found once it is called `final`."""
    entries = []
    with archive.open("wb") as stream, _encoded(utterances, sample_rate, jobs) as encoded:
        pairs = zip(utterances, encoded, strict=True)
        for utterance, (samples, data) in track(pairs, f"Formatting {final.parent}", len(utterances), "utterances"):
            stream.write(utterance.utt_id.encode() + b" ")
            source, seconds = f"{final}:{stream.tell()}", samples / sample_rate
            stream.write(data)
            entry = Utterance(utterance.utt_id, utterance.speaker, utterance.text, source, seconds=seconds)
            entries.append(entry)
    return entries


@contextmanager
def _encoded(utterances: list[Utterance], sample_rate: int, jobs: int) -> Iterator[Iterator[tuple[int, bytes]]]:
    """Samples and WAV bytes of all utterances in order, decoded in this process or in several."""
    task = partial(_encode, sample_rate=sample_rate)
    if jobs == 1:
        yield map(task, utterances)
        return
    # Forking a process that holds torch's threads can hang it.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,))
    try:
        yield pool.map(task, utterances, chunksize=_UTTERANCES_AT_ONCE)
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(utterance: Utterance, sample_rate: int) -> tuple[int, bytes]:
    """One utterance as 16-bit mono WAV; the very samples where the source is that already."""
    samples = audio.load(utterance, sample_rate).numpy()
    rounded = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(rounded.tobytes())
    return len(rounded), buffer.getvalue()
