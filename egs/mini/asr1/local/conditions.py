"""What text that nobody said is looked for on: a data directory in noise and between silence, and clips without speech.

Writes beside each other in --out, as data directories: NAME_snr10 (white noise so many decibels below the speech),
NAME_silence2 (two seconds of silence at either end), and non_speech: noise (white, -60 to -20 dBFS), tones (100 to
4000 Hz, the same levels) and pauses (the corpus' own, joined, and digital silence). It has no `text`, which holds no
empty transcripts, but for scoring the files noise, tones and pauses: ids without words. One seed gives one audio.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch

from asrllm.console import UserError, run, write_atomically
from asrllm.data import audio, kaldi
from asrllm.data.augment import generator, noise_gain
from asrllm.data.kaldi import Utterance

SAMPLE_RATE = 16_000
Made = Iterable[tuple[Utterance, torch.Tensor]]


def write(folder: Path, made: Made) -> None:
    """A data directory with its audio, whole or not at all; utterances without words are listed by speaker."""
    with write_atomically(folder) as temporary:
        (temporary / "wav").mkdir(parents=True)
        entries = []
        for utterance, wave in made:
            name = f"wav/{utterance.utt_id}.wav"
            soundfile.write(temporary / name, wave.numpy(), SAMPLE_RATE)
            source, seconds = str(folder / name), len(wave) / SAMPLE_RATE
            entries.append(Utterance(utterance.utt_id, utterance.speaker, utterance.text, source, seconds=seconds))
        kaldi.write_tables(kaldi.tables(entries), temporary)
        for speaker in {each.speaker for each in entries if not each.text}:
            silent = [each.utt_id for each in entries if each.speaker == speaker]
            (temporary / speaker).write_text("".join(f"{utt_id}\n" for utt_id in silent))


def white(samples: int, *key: int | str) -> torch.Tensor:
    """White noise (S,) of power 1, a function of the key."""
    return torch.from_numpy(generator(*key).standard_normal(samples).astype(np.float32))


def noisy(utterances: Iterable[Utterance], snr: float, seed: int) -> Iterator[tuple[Utterance, torch.Tensor]]:
    """Speech with white noise `snr` dB below it."""
    for utterance in utterances:
        wave = audio.load(utterance, SAMPLE_RATE)
        noise = white(len(wave), seed, utterance.utt_id)  # the same at every level
        yield utterance, wave + noise_gain(wave, noise, snr) * noise


def padded(utterances: Iterable[Utterance], seconds: float) -> Iterator[tuple[Utterance, torch.Tensor]]:
    """Speech between two digital silences."""
    samples = round(seconds * SAMPLE_RATE)
    for utterance in utterances:
        yield utterance, torch.nn.functional.pad(audio.load(utterance, SAMPLE_RATE), (samples, samples))


def clips(kind: str, count: int, seed: int) -> Iterator[tuple[Utterance, torch.Tensor]]:
    """`noise` or `tones` of 1 to 5 s."""
    for number in range(count):
        draws = generator(seed, kind, number)
        samples, level = round(draws.uniform(1, 5) * SAMPLE_RATE), 10 ** (draws.uniform(-60, -20) / 20)
        hertz = math.exp(draws.uniform(math.log(100), math.log(4000)))
        wave = white(samples, seed, number)
        if kind == "tones":
            wave = math.sqrt(2) * torch.sin(2 * math.pi * hertz / SAMPLE_RATE * torch.arange(samples))
        yield Utterance(f"{kind}-{number:03}", kind, "", ""), level * wave


def pauses(segments: Iterable[Utterance], count: int, seed: int) -> Iterator[tuple[Utterance, torch.Tensor]]:
    """Half of them digital silence of 1 to 5 s, half of the pauses between the segments of a recording, joined."""
    ordered = sorted(segments, key=lambda each: (each.source, each.start or 0.0))
    pairs = [pair for pair in pairwise(ordered) if pair[0].source == pair[1].source]
    between = [replace(before, start=before.end, end=after.start) for before, after in pairs]
    if count and not between:
        raise UserError("--recordings has no pauses: name a data directory with segments, such as data/dev")
    for number in range(count):
        draws = generator(seed, "pauses", number)
        samples = round(draws.uniform(1, 5) * SAMPLE_RATE)
        wave = torch.zeros(samples)
        if number % 2:
            drawn = draws.integers(len(between), size=len(between))
            heard = torch.cat([audio.load(between[each], SAMPLE_RATE) for each in drawn])
            wave = heard.repeat(-(-samples // len(heard)))[:samples]
        yield Utterance(f"pauses-{number:03}", "pauses", "", ""), wave


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="data directory NAME that is disturbed")
    options.add_argument("--recordings", type=Path, required=True, help="data directory with segments, for its pauses")
    options.add_argument("--out", type=Path, required=True, help="folder of the new data directories")
    options.add_argument("--snr", type=float, nargs="*", default=[], help="decibels")
    options.add_argument("--silence", type=float, nargs="*", default=[], help="seconds at either end")
    options.add_argument("--clips", type=int, default=20, help="of each kind without speech (20)")
    options.add_argument("--seed", type=int, default=0)
    return options


def main(argv: list[str]) -> None:
    """Write all of them."""
    args = parser().parse_args(argv)
    utterances, name = kaldi.read(args.data), args.data.name
    for snr in args.snr:
        write(args.out / f"{name}_snr{snr:g}", noisy(utterances, snr, args.seed))
    for seconds in args.silence:
        write(args.out / f"{name}_silence{seconds:g}", padded(utterances, seconds))
    parts = [clips(kind, args.clips, args.seed) for kind in ("noise", "tones")]
    parts.append(pauses(kaldi.read(args.recordings), args.clips, args.seed))
    write(args.out / "non_speech", chain(*parts))


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
