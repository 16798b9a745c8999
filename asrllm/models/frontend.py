"""Log-mel features and SpecAugment, batched, on the device of the audio.

A frame depends on its own 25 ms and on how loud its utterance is. It is normalised by the frames of the utterance that
are loud, and what is far below the loudest is cut off: neither padding of a batch nor pauses or digital silence around
the speech change the features of speech.
"""

import math
from typing import Literal

import torch
from torch import nn

from asrllm.batch import real
from asrllm.config import Config
from asrllm.flops import Flops

SAMPLE_RATE = 16000
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
DECIBEL = math.log(10) / 10  # of power, in nats
LOUD = 30 * DECIBEL  # frames at most so far below the loudest one make the mean and the spread (ours)
RANGE = 80 * DECIBEL  # what is further below the loudest bin is cut off there, as in Whisper


class SpecAugmentConfig(Config):
    """SpecAugment (Park et al. 2019), without time warping."""

    frequency_masks: int = 2
    frequency_width: int = 27  # mel bins at most
    time_masks: int = 5
    time_width_share: float = 0.05  # of the utterance's frames at most


class FrontendConfig(Config):
    """Log-mel front end."""

    mels: int = 80
    specaugment: SpecAugmentConfig | None = SpecAugmentConfig()


class FbankConfig(FrontendConfig):
    """The features themselves in the place of an encoder (SLAM-ASR, table 4)."""

    type: Literal["fbank"]
    intermediate_layers: tuple[()] = ()


class LogMel(nn.Module):
    """Waves (B, S) to normalised log-mel frames (B, T, mels), T = 1 + (S - 400) // 160."""

    intermediate_layers = ()  # none, where it is the encoder itself

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        from torchaudio.transforms import MelScale, Spectrogram

        self.dim = config.mels
        self.specaugment = config.specaugment
        self.spectrum = Spectrogram(n_fft=512, win_length=WINDOW, hop_length=HOP, power=None, center=False)
        self.mel_scale = MelScale(config.mels, SAMPLE_RATE, f_min=20.0, n_stft=257)

    def output_lens(self, wave_lens: torch.Tensor) -> torch.Tensor:
        """Frames of waves that many samples long."""
        return ((wave_lens.clamp(min=WINDOW) - WINDOW) // HOP + 1).to(torch.int64)

    def flops(self, wave_lens: torch.Tensor) -> Flops:
        """Of the filter bank on waves (B,) that many samples long."""
        return Flops(fixed=2.0 * self.mel_scale.fb.numel() * float(self.output_lens(wave_lens).sum()))

    def forward(self, waves: torch.Tensor, wave_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and their lengths; masked by SpecAugment in training mode."""
        lens = self.output_lens(wave_lens)
        # torch centres the 400-sample window in its 512-point FFT: 56 zeros before keep frame t at sample 160 t.
        edge = (512 - WINDOW) // 2
        samples = int(lens.max() - 1) * HOP + WINDOW if len(lens) else WINDOW
        waves = nn.functional.pad(waves[:, :samples], (edge, edge + max(0, samples - waves.shape[1])))
        with torch.autocast(waves.device.type, enabled=False):
            power = torch.view_as_real(self.spectrum(waves.float())).square().sum(-1)  # sooner than abs() of complex
            frames = self.mel_scale(power).clamp(min=1e-10).log().transpose(1, 2)  # (B, T, mels)
        mask = real(lens, frames.shape[1])[..., None]
        masked = frames.masked_fill(~mask, -torch.inf)
        frames = frames.maximum(masked.amax((1, 2), keepdim=True) - RANGE)
        level = masked.logsumexp(2, keepdim=True)
        loud = level >= level.amax(1, keepdim=True) - LOUD
        count = loud.sum(1, keepdim=True)
        mean = (frames * loud).sum(1, keepdim=True) / count
        spread = (((frames - mean) ** 2 * loud).sum((1, 2), keepdim=True) / (count * self.dim)).sqrt()
        frames = (frames - mean) / (spread + 1e-5) * mask
        if self.training and self.specaugment is not None:
            frames = spec_augment(frames, lens, self.specaugment)
        return frames, lens


def spec_augment(frames: torch.Tensor, lens: torch.Tensor, config: SpecAugmentConfig) -> torch.Tensor:
    """Zero random bands of frames (B, T, F): masks of its own for each utterance, in time inside its real frames."""
    size, bins = frames.shape[1], frames.shape[2]
    for _ in range(config.frequency_masks):
        frames = frames.masked_fill(
            _stripe(torch.full_like(lens, bins), config.frequency_width / bins, bins)[:, None], 0.0
        )
    for _ in range(config.time_masks):
        frames = frames.masked_fill(_stripe(lens, config.time_width_share, size)[..., None], 0.0)
    return frames


def _stripe(lens: torch.Tensor, share: float, size: int) -> torch.Tensor:
    """Mask (B, size): one random run of at most share * lens positions inside each length."""
    draw = torch.rand(2, len(lens), device=lens.device)
    width = (draw[0] * (lens * share + 1)).floor()
    start = (draw[1] * (lens - width + 1).clamp(min=1)).floor()
    position = torch.arange(size, device=lens.device)
    return (position >= start[:, None]) & (position < (start + width)[:, None])
