"""wav2vec 2.0 (https://arxiv.org/abs/2006.11477), HuBERT and WavLM encoders on padded batches: raw audio, 50 frames/s.

The "base" models normalise the first convolution's output over time and were trained without an attention mask; the
library therefore lets padding into their results. Here every utterance gets what it would get alone.
"""

from typing import Any

import torch
import transformers
from torch import nn

from asrllm.batch import real
from asrllm.console import UserError
from asrllm.flops import Flops, matrices
from asrllm.models.group_norm import normalize_real_frames


class Wav2Vec2Encoder(nn.Module):
    """The encoder of a `transformers.{Wav2Vec2,Hubert,WavLM}Model`.

    `normalize` asks for zero mean and unit variance of each recording, as the model's feature extractor does.
    """

    def __init__(
        self,
        model: transformers.Wav2Vec2Model | transformers.HubertModel | transformers.WavLMModel,
        normalize: bool,
    ) -> None:
        super().__init__()
        config = model.config
        if getattr(config, "add_adapter", False) or getattr(config, "conv_pos_batch_norm", False):
            raise UserError(
                f"encoder.model: {config.model_type} with add_adapter or conv_pos_batch_norm is not supported: "
                "choose a checkpoint without them"
            )
        self.feature_extractor = model.feature_extractor
        self.feature_projection = model.feature_projection
        self.encoder = model.encoder
        # Layers skipped at random leave parameters without a gradient, which distributed training refuses.
        config.layerdrop = 0.0
        self.dim = int(config.hidden_size)
        self.normalize = normalize
        self.windows = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.min_samples = 1
        for kernel, stride in reversed(self.windows):
            self.min_samples = (self.min_samples - 1) * stride + kernel

    def output_lens(self, wave_lens: torch.Tensor) -> torch.Tensor:
        """Frames (B,) that recordings of `wave_lens` (B,) samples give; 0 below 400 samples."""
        for kernel, stride in self.windows:
            wave_lens = (wave_lens - kernel).div(stride, rounding_mode="floor") + 1
        return wave_lens.clamp(min=0)

    def flops(self, wave_lens: torch.Tensor) -> Flops:
        """Of recordings (B,) that many samples long."""
        each = []
        layers: list[Any] = list(self.feature_extractor.conv_layers)
        for layer, (width, stride) in zip(layers, self.windows, strict=True):
            wave_lens = (wave_lens - width).div(stride, rounding_mode="floor") + 1
            each.append(2 * matrices(layer.conv) * float(wave_lens.clamp(min=1).sum()))
        lens = wave_lens.clamp(min=1).double()
        weights = sum(map(matrices, (self.feature_projection, self.encoder.pos_conv_embed, self.encoder.layers)))
        return Flops(
            first=each[0],
            weights=sum(each[1:]) + 2 * weights * float(lens.sum()),
            products=4 * len(self.encoder.layers) * self.dim * float((lens**2).sum()),
        )

    def forward(self, waves: torch.Tensor, wave_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`waves` (B, S) at 16 kHz -> frames (B, T, D), zero past each end, and frame_lens (B,)."""
        if self.normalize:
            waves = standardize(waves, wave_lens)
        hidden = nn.functional.pad(waves, (0, max(0, self.min_samples - waves.shape[1])))[:, None]
        layers: list[Any] = list(self.feature_extractor.conv_layers)
        first, rest = layers[0], layers[1:]
        if isinstance(first.layer_norm, nn.GroupNorm):
            kernel, stride = self.windows[0]
            stem_lens = ((wave_lens - kernel).div(stride, rounding_mode="floor") + 1).clamp(min=0)
            hidden = first.activation(normalize_real_frames(first.layer_norm, first.conv(hidden), stem_lens))
        else:
            hidden = first(hidden)
        for layer in rest:
            hidden = layer(hidden)
        projected = self.feature_projection(hidden.transpose(1, 2))
        hidden = projected[0] if isinstance(projected, tuple) else projected  # HuBERT returns no second value
        lens = self.output_lens(wave_lens)
        # The encoder zeroes masked frames before its positional convolution. An utterance without any frame attends
        # to one that is dropped afterwards: an empty softmax would give NaN.
        hidden = self.encoder(hidden, attention_mask=real(lens.clamp(min=1), hidden.shape[1])).last_hidden_state
        frames = hidden * real(lens, hidden.shape[1])[:, :, None]
        return frames[:, : max(1, int(lens.max()))], lens


def standardize(waves: torch.Tensor, wave_lens: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance over the real samples of each row of (B, S); padding stays zero."""
    mask = real(wave_lens, waves.shape[1])
    count = wave_lens.clamp(min=1)[:, None]
    centred = (waves - (waves * mask).sum(1, keepdim=True) / count) * mask
    return centred * torch.rsqrt(centred.square().sum(1, keepdim=True) / count + 1e-7)
