"""What is done to waves in training: speed (Ko et al. 2015, section 2), room, silence, noise.

Every draw is a function of the seed, the epoch and the utterance's number or id: no random state, hence the same on
every rank and after a restart. SpecAugment works on features and stands in the encoder's front end.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray

from asrllm.config import Config
from asrllm.data.clips import Clips


class NoiseConfig(Config):
    """Noise on a share of the utterances, at a level drawn from a normal distribution; values of NIM4-ASR.

    Before the noise, silence is put before and after the speech, so that the model hears noise alone, too.
    """

    folders: tuple[str, ...] = pydantic.Field(min_length=1)  # of clips, with their subfolders
    share: float = pydantic.Field(default=0.2, ge=0, le=1)
    snr_mean: float = 10.0  # dB
    snr_deviation: float = pydantic.Field(default=5.0, ge=0)  # dB
    silence_seconds: float = pydantic.Field(default=1.0, ge=0)  # at most, on either side: times a draw of Beta(1, 3)


class ReverbConfig(Config):
    """Room impulse responses on a share of the utterances; the speech keeps its length, its start and its power."""

    folders: tuple[str, ...] = pydantic.Field(min_length=1)
    share: float = pydantic.Field(default=0.2, ge=0, le=1)


class EmptyConfig(Config):
    """Pieces of clips without speech as examples of their own, whose transcript is empty (against hallucination)."""

    folders: tuple[str, ...] = pydantic.Field(min_length=1)
    share: float = pydantic.Field(default=0.02, ge=0)  # examples per utterance of the corpus, on top of it
    min_seconds: float = pydantic.Field(default=1.0, gt=0)
    max_seconds: float = pydantic.Field(default=5.0, gt=0)

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "EmptyConfig":
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds {self.min_seconds} is above max_seconds {self.max_seconds}")
        return self


class JoinConfig(Config):
    """Utterances spoken one after another as one example."""

    share: float = pydantic.Field(default=0.1, ge=0, lt=1)  # chance of an utterance that another one follows it
    max_seconds: float = pydantic.Field(default=15.0, gt=0)  # of all together, at normal speed


class AugmentConfig(Config):
    """Changes of the training audio beside its speed; none by default."""

    noise: NoiseConfig | None = None
    reverb: ReverbConfig | None = None
    empty: EmptyConfig | None = None
    join: JoinConfig | None = None


PLAIN = AugmentConfig()  # no change


def generator(*key: int | str) -> np.random.Generator:
    """A random generator that is a function of the key."""
    digest = hashlib.blake2b(" ".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def draw_factors(factors: Sequence[float], seed: int, epoch: int, count: int) -> NDArray[np.float64]:
    """For each of `count` utterances one of `factors`, all equally likely."""
    return np.array(factors)[generator(seed, epoch, "speed").integers(len(factors), size=count)]


def speed(wave: torch.Tensor, factor: float) -> torch.Tensor:
    """The wave (S,) played `factor` times as fast, its pitch changed too: about S / factor samples.

    Args:
        wave: samples at any rate.
        factor: whole hundredths, such as 0.9; resampling from 9 to 10 is cheap, from 97 to 100 dearer.
    """
    if factor == 1.0:
        return wave
    from torchaudio.functional import resample  # imported late: where torchaudio is broken, the rest still works

    return resample(wave, round(factor * 100), 100)


@dataclass(frozen=True)
class Change:
    """What is done to one example in one epoch, after its speed; numbers of clips, None for nothing."""

    response: int | None = None
    before: int = 0  # samples of silence
    after: int = 0
    noise: int | None = None
    place: float = 0.0  # where the noise is cut from its clip, 0 to 1
    snr: float = 0.0  # dB


class Augmenter:
    """Puts examples into rooms and noise.

    Raises:
        UserError: a folder without clips.
    """

    def __init__(self, config: AugmentConfig, sample_rate: int, seed: int) -> None:
        self.config, self.sample_rate, self.seed = config, sample_rate, seed
        self.noises = Clips(config.noise.folders, sample_rate) if config.noise else None
        self.responses = Clips(config.reverb.folders, sample_rate) if config.reverb else None

    def draw(self, epoch: int, utt_id: str) -> Change:
        """What is done to this example in this epoch."""
        draws = generator(self.seed, epoch, utt_id)
        found = Change()
        noise, reverb = self.config.noise, self.config.reverb
        if reverb and self.responses and draws.random() < reverb.share:
            found = Change(response=int(draws.integers(len(self.responses.paths))))
        if noise and self.noises and draws.random() < noise.share:
            before, after = (round(noise.silence_seconds * self.sample_rate * draws.beta(1, 3)) for _ in range(2))
            number, place = int(draws.integers(len(self.noises.paths))), float(draws.random())
            level = float(draws.normal(noise.snr_mean, noise.snr_deviation))
            found = Change(found.response, before, after, number, place, level)
        return found

    def apply(self, wave: torch.Tensor, change: Change) -> torch.Tensor:
        """The changed wave: (S,) to (before + S + after,)."""
        if change.response is not None and self.responses:
            wave = reverberate(wave, self.responses.whole(change.response))
        if change.noise is not None and self.noises:
            size = change.before + len(wave) + change.after
            noise = self.noises.piece(change.noise, change.place, size)
            gain = noise_gain(wave, noise, change.snr)
            wave = torch.nn.functional.pad(wave, (change.before, change.after)) + gain * noise
        return wave


def noise_gain(speech: torch.Tensor, noise: torch.Tensor, snr: float) -> float:
    """Factor that puts the noise `snr` dB below the speech, both by their mean power; 0 where one of them is silent."""
    power, other = float(speech.square().mean()), float(noise.square().mean())
    return math.sqrt(power / other / 10 ** (snr / 10)) if power > 0 and other > 0 else 0.0


def reverberate(wave: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """The wave (S,) as heard through a room, of the same length, start and power.

    The strongest sample of the response counts as the direct sound and moves nothing.
    """
    direct = int(response.abs().argmax())
    size = len(wave) + len(response) - 1
    spectrum = torch.fft.rfft(wave, size) * torch.fft.rfft(response, size)
    heard = torch.fft.irfft(spectrum, size)[direct : direct + len(wave)]
    power = heard.square().mean()
    return heard * (wave.square().mean() / power).sqrt() if power > 0 else wave
