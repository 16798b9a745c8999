"""Make the corpus of this recipe: sentences of a small grammar spoken by free synthetic voices, as Ogg Opus.

The recipe itself never runs this program: it reads the audio shipped in corpus/. Run again it writes the same corpus,
given the same versions of what it calls:

    Debian 12: flite 2.2-5, festival 1:2.5.0-9, festvox-kallpc16k 2.4-1, festvox-us-slt-hts 0.2010.10.25-4,
               opus-tools 0.2-1
    PyPI:      ttspico 0.3.2, pyworld 0.3.5 (install setuptools<80 first), numpy, scipy, soundfile

A voice is a base voice, as it speaks or changed by the WORLD vocoder (Morise et al. 2016, IEICE Trans. E99-D(7)):
pitch, spectral envelope and rate, which makes many pseudo-speakers of few. `VOICES` says which part hears which voice.
"""

import argparse
import os
import random
import shutil
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
from sentences import balanced

SAMPLE_RATE = 16000
GAP_SECONDS = 0.15
# Part: (base voice: its (pitch, spectrum) factors; (1, 1) is the base voice untouched). A spectrum factor above 1
# shortens the vocal tract. awb and pico_gb, other people than all the rest, are never heard in training.
VOICES: dict[str, dict[str, list[tuple[float, float]]]] = {
    "train": {
        "rms": [(1, 1), (0.86, 0.94), (1.12, 0.96), (1.2, 1.08), (1.5, 1.12), (1.75, 1.18)],
        "kal": [(1, 1), (0.85, 0.92), (0.95, 1.06), (1.2, 0.98), (1.4, 1.1), (1.7, 1.15)],
        "kalfest": [(1, 1), (1.1, 1.03)],
        "slt": [(1, 1), (0.6, 0.88), (0.7, 0.84), (0.85, 0.95), (1.1, 1.05), (0.8, 1.02)],
        "slthts": [(1, 1), (0.55, 0.86), (0.75, 0.93), (1.15, 1.07)],
        "pico_us": [
            (1, 1),
            (0.58, 0.85),
            (0.65, 0.9),
            (0.75, 0.94),
            (0.9, 0.98),
            (0.85, 1.04),
            (1.12, 1.06),
            (0.62, 0.82),
        ],
    },
    "dev": {"awb": [(1, 1)], "slt": [(0.66, 0.92)]},
    "test": {"pico_gb": [(1, 1)], "rms": [(1.33, 1.04)]},
}
UTTERANCES = {"train": 54, "dev": 44, "test": 60}  # of each voice


@dataclass(frozen=True)
class Voice:
    """One speaker of the corpus: a base voice and what WORLD makes of it."""

    name: str
    base: str
    pitch: float
    spectrum: float


def voices(part: str) -> list[Voice]:
    """The voices of a part; a base voice's changed forms are numbered through all parts, 0 is the untouched one."""
    numbered = {}
    for listing in VOICES.values():
        for base, factors in listing.items():
            for pitch, spectrum in factors:
                index = sum(b == base for b, *_ in numbered)
                numbered[base, pitch, spectrum] = Voice(f"{base}{index}", base, pitch, spectrum)
    return [numbered[base, pitch, spectrum] for base, factors in VOICES[part].items() for pitch, spectrum in factors]


def speak(base: str, sentences: list[str]) -> list[np.ndarray]:
    """The base voice's own waveforms of the sentences, float64 at 16 kHz."""
    spoken = [sentence[0].upper() + sentence[1:] + "." for sentence in sentences]
    if base.startswith("pico"):
        import ttspico  # here, so that --help tells what to install where it is not installed

        engine = ttspico.TtsEngine({"pico_us": "en-US", "pico_gb": "en-GB"}[base])
        return [np.frombuffer(engine.speak(sentence), np.int16) / 32768 for sentence in spoken]
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{index}.wav" for index in range(len(spoken))]
        if base in ("kalfest", "slthts"):
            voice = {"kalfest": "kal_diphone", "slthts": "cmu_us_slt_arctic_hts"}[base]
            lines = [f"(voice_{voice})"]
            for sentence, path in zip(spoken, paths, strict=True):
                lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{sentence}")) "{path}" (quote riff))')
            subprocess.run(["festival", "--pipe"], input="\n".join(lines), text=True, check=True)
        else:
            voice = {"kal": "kal16"}.get(base, base)
            for sentence, path in zip(spoken, paths, strict=True):
                subprocess.run(["flite", "-voice", voice, "-t", sentence, "-o", path], check=True)
        waves = []
        for path in paths:
            wave, rate = soundfile.read(path)
            waves.append(scipy.signal.resample_poly(wave, SAMPLE_RATE, rate))
        return waves


def warp(wave: np.ndarray, pitch: float, spectrum: float, rate: float) -> np.ndarray:
    """Change pitch, spectral envelope (stretched along frequency) and rate by these factors, through WORLD."""
    import pyworld

    f0, times = pyworld.dio(wave, SAMPLE_RATE)
    f0 = pyworld.stonemask(wave, f0, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(wave, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(wave, f0, times, SAMPLE_RATE)
    bins = np.arange(envelope.shape[1])
    source = np.minimum(bins / spectrum, bins[-1])
    log_envelope = np.log(envelope)
    stretched = np.exp(np.stack([np.interp(source, bins, frame) for frame in log_envelope]))
    return pyworld.synthesize(f0 * pitch, stretched, aperiodicity, SAMPLE_RATE, 5.0 / rate)


def tidy(wave: np.ndarray) -> np.ndarray:
    """Cut silence at both ends to 60 ms, set the level to -24 dB RMS, and fill up to whole hundredths of a second."""
    window = SAMPLE_RATE // 100
    level = np.convolve(wave**2, np.ones(window) / window, "same")
    loud = np.flatnonzero(level > 1e-3 * level.max())
    edge = 6 * window
    wave = wave[max(0, loud[0] - edge) : loud[-1] + edge]
    wave = wave * min(10 ** (-24 / 20) / np.sqrt(np.mean(wave**2)), 0.95 / np.abs(wave).max())
    return np.pad(wave, (0, -len(wave) % window))


def record(voice: Voice, sentences: list[str], path: Path, seed: str) -> list[tuple[float, float]]:
    """Write all sentences of a voice into one Ogg Opus file and return each one's begin and end in seconds."""
    rng = random.Random(seed)
    changed = (voice.pitch, voice.spectrum) != (1, 1)
    gap = np.zeros(round(GAP_SECONDS * SAMPLE_RATE))
    pieces, bounds, n_samples = [gap], [], len(gap)
    for wave in speak(voice.base, sentences):
        if changed:  # nobody speaks every sentence alike
            pitch, spectrum = voice.pitch * rng.uniform(0.95, 1.06), voice.spectrum * rng.uniform(0.985, 1.015)
            wave = warp(wave, pitch, spectrum, rate=rng.uniform(0.95, 1.2))
        wave = tidy(wave)
        bounds.append((n_samples / SAMPLE_RATE, (n_samples + len(wave)) / SAMPLE_RATE))
        pieces += [wave, gap]
        n_samples += len(wave) + len(gap)
    with tempfile.NamedTemporaryFile(suffix=".wav") as raw:
        soundfile.write(raw.name, np.concatenate(pieces), SAMPLE_RATE, "PCM_16")
        command = ["opusenc", "--quiet", "--speech", "--bitrate", "15", "--framesize", "60", "--serial", "1"]
        subprocess.run([*command, "--padding", "0", raw.name, str(path)], check=True)
    return bounds


def main() -> None:
    """Speak all parts into a folder beside --out, then put them in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, replaced where it exists: OUT/{train,dev,test}"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nj", type=int, default=2, help="voices spoken at a time")
    args = parser.parse_args()

    building = args.out.with_name(args.out.name + ".building")
    rng, seen = random.Random(args.seed), set()
    with ProcessPoolExecutor(args.nj) as pool:
        for part in ("test", "dev", "train"):
            (building / part).mkdir(parents=True)
            speakers = voices(part)
            sentences = balanced(UTTERANCES[part] * len(speakers), rng, seen)
            tasks = []
            for index, voice in enumerate(speakers):
                own = sentences[index :: len(speakers)]
                path = building / part / f"{voice.name}.opus"
                tasks.append((voice, own, pool.submit(record, voice, own, path, f"{args.seed} {voice.name}")))
            text, segments = [], []
            for voice, own, task in tasks:
                for index, (sentence, (begin, end)) in enumerate(zip(own, task.result(), strict=True), 1):
                    text.append(f"{voice.name}-{index:03d} {sentence}\n")
                    segments.append(f"{voice.name}-{index:03d} {voice.name} {begin:.2f} {end:.2f}\n")
            (building / part / "text").write_text("".join(sorted(text)))
            (building / part / "segments").write_text("".join(sorted(segments)))
    for part in VOICES:
        shutil.rmtree(args.out / part, ignore_errors=True)
        args.out.mkdir(exist_ok=True)
        os.replace(building / part, args.out / part)
    building.rmdir()


if __name__ == "__main__":
    main()
