"""Whisper's log-mel features and encoder (https://arxiv.org/abs/2212.04356, section 2.2): 50 frames/s.

Whisper was trained on windows of exactly 30 s. `pad_30s` keeps to that and drops the frames past the end of the speech
afterwards; `cut` encodes the real length only, at a fraction of the cost, with the first position embeddings.
"""

from typing import Literal

import torch
import transformers
from torch import nn
from transformers.masking_utils import create_bidirectional_mask

from asrllm.batch import real
from asrllm.console import UserError
from asrllm.flops import Flops, matrices
from asrllm.models.frontend import SpecAugmentConfig, spec_augment

WINDOW_SAMPLES = 480_000  # 30 s at 16 kHz
FFT_SAMPLES = 400
HOP_SAMPLES = 160


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram, equal to `transformers.WhisperFeatureExtractor` on audio of the same padding."""

    filters: torch.Tensor  # (mel_bins, FFT_SAMPLES / 2 + 1)
    window: torch.Tensor  # (FFT_SAMPLES,)

    def __init__(self, mel_bins: int) -> None:
        super().__init__()
        filters = transformers.WhisperFeatureExtractor(feature_size=mel_bins).mel_filters
        self.register_buffer("filters", torch.tensor(filters.T, dtype=torch.float32), persistent=False)
        self.register_buffer("window", torch.hann_window(FFT_SAMPLES), persistent=False)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """`waves` (B, S) float32 -> log-mel (B, mel_bins, S // 160): log10, the last 8 decades, scaled to about +-1."""
        with torch.autocast(waves.device.type, enabled=False):
            spectrum = torch.stft(waves.float(), FFT_SAMPLES, HOP_SAMPLES, window=self.window, return_complex=True)
            power = torch.view_as_real(spectrum[..., :-1]).square().sum(-1)  # sooner than abs() of complex
            log_mel = (self.filters @ power).clamp(min=1e-10).log10()
            return (torch.maximum(log_mel, log_mel.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


class WhisperEncoder(nn.Module):
    """The encoder of a `transformers.WhisperModel` together with its features."""

    def __init__(
        self,
        model: transformers.WhisperModel,
        padding: Literal["pad_30s", "cut"],
        specaugment: SpecAugmentConfig | None = None,
    ) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.features = LogMel(model.config.num_mel_bins)
        self.dim = int(model.config.d_model)
        self.padding = padding
        self.specaugment = specaugment

    def output_lens(self, wave_lens: torch.Tensor) -> torch.Tensor:
        """Frames (B,) that cover recordings of `wave_lens` (B,) samples; 0 below 160 samples."""
        return (wave_lens.div(HOP_SAMPLES, rounding_mode="floor") + 1).div(2, rounding_mode="floor")

    def flops(self, wave_lens: torch.Tensor) -> Flops:
        """Of recordings (B,) that many samples long; padded to 30 s, these are what the model is defined on."""
        if self.padding == "pad_30s":
            mel_lens = torch.full_like(wave_lens, WINDOW_SAMPLES // HOP_SAMPLES)
            lens = mel_lens.double() // 2
        else:
            mel_lens = (wave_lens + 2 * FFT_SAMPLES) // HOP_SAMPLES
            lens = self.output_lens(wave_lens).clamp(min=1).double()
        mels, frames = float(mel_lens.sum()), float(lens.sum())
        inner = (
            matrices(self.encoder.conv2) * float(((mel_lens + 1) // 2).sum()) + matrices(self.encoder.layers) * frames
        )
        return Flops(
            first=2 * matrices(self.encoder.conv1) * mels,
            weights=2 * inner,
            products=4 * len(self.encoder.layers) * self.dim * float((lens**2).sum()),
            fixed=2 * self.features.filters.numel() * mels,
        )

    def forward(self, waves: torch.Tensor, wave_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`waves` (B, S) at 16 kHz -> frames (B, T, D), zero past each end, and frame_lens (B,).

        Raises UserError for an utterance of more than 30 s.
        """
        frames, lens, _ = self.with_intermediate(waves, wave_lens, ())
        return frames, lens

    def with_intermediate(
        self, waves: torch.Tensor, wave_lens: torch.Tensor, layers: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Frames, lengths, and the frames after each of `layers`, counted from 1."""
        if (longest := int(wave_lens.max())) > WINDOW_SAMPLES:
            raise UserError(
                f"an utterance of {longest / 16000:.1f} s is longer than Whisper's window of 30 s: "
                "drop it through the sampler's limit or cut it into segments"
            )
        waves = waves[:, :longest] * real(wave_lens, longest)
        lens = self.output_lens(wave_lens)
        size = max(1, int(lens.max()))
        if self.padding == "pad_30s":
            log_mel = self._features(nn.functional.pad(waves, (0, WINDOW_SAMPLES - longest)), wave_lens)
            whole = torch.full_like(lens, log_mel.shape[2])
            hidden, taps = self._encode(log_mel, whole, whole // 2, layers)
        else:
            # Silence to see at the end, so that every utterance is followed by what follows it in 30 s.
            log_mel = self._features(nn.functional.pad(waves, (0, 2 * FFT_SAMPLES)), wave_lens)
            mel_lens = wave_lens.div(HOP_SAMPLES, rounding_mode="floor")
            hidden, taps = self._encode(log_mel, mel_lens, lens.clamp(min=1), layers)
        mask = real(lens, size)[:, :, None]
        return hidden[:, :size] * mask, lens, [tap[:, :size] * mask for tap in taps]

    def _features(self, waves: torch.Tensor, wave_lens: torch.Tensor) -> torch.Tensor:
        """Log-mel (B, M, F); in training masked by SpecAugment if asked for."""
        log_mel = self.features(waves)
        if self.training and self.specaugment is not None:
            lens = wave_lens.div(HOP_SAMPLES, rounding_mode="floor")
            log_mel = spec_augment(log_mel.transpose(1, 2), lens, self.specaugment).transpose(1, 2)
        return log_mel

    def _encode(
        self, log_mel: torch.Tensor, mel_lens: torch.Tensor, lens: torch.Tensor, layers: tuple[int, ...]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The encoder on `mel_lens` (B,) feature frames, `lens` (B,) frames: log_mel (B, M, F) -> (B, T, D)."""
        encoder = self.encoder
        size = int(lens.max())
        mask = real(mel_lens, log_mel.shape[2])[:, None]
        # Both convolutions pad with zeros: past each end there have to be zeros as well.
        hidden = nn.functional.gelu(encoder.conv1(log_mel * mask)) * mask
        hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)[:, :size]
        hidden = nn.functional.dropout(
            hidden + encoder.embed_positions.weight[:size], encoder.dropout, training=self.training
        )
        attention = create_bidirectional_mask(
            config=encoder.config, inputs_embeds=hidden, attention_mask=real(lens, size)
        )
        taps = []
        for number, layer in enumerate(encoder.layers, 1):
            hidden = layer(hidden, attention)
            if number in layers:
                taps.append(hidden)
        return encoder.layer_norm(hidden), taps
