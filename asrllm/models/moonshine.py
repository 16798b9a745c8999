"""Moonshine's encoder (https://arxiv.org/abs/2410.15608, section 3.1) on padded batches: audio in, 41.7 frames/s out.

The convolutional stem normalises over the whole recording and the library does so with the padding included; here the
statistics and the attention see real frames only.
"""

import torch
import transformers
from torch import nn
from transformers.masking_utils import create_bidirectional_mask

from asrllm.batch import real
from asrllm.flops import Flops, matrices
from asrllm.models.group_norm import normalize_real_frames


class MoonshineEncoder(nn.Module):
    """The encoder of a `transformers.MoonshineModel`."""

    def __init__(self, model: transformers.MoonshineModel) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.dim = int(model.config.hidden_size)
        self.convolutions = [self.encoder.conv1, self.encoder.conv2, self.encoder.conv3]
        self.min_samples = 1
        for convolution in reversed(self.convolutions):
            self.min_samples = (self.min_samples - 1) * convolution.stride[0] + convolution.kernel_size[0]

    def output_lens(self, wave_lens: torch.Tensor) -> torch.Tensor:
        """Frames (B,) that recordings of `wave_lens` (B,) samples give; 0 below 895 samples."""
        for convolution in self.convolutions:
            wave_lens = (wave_lens - convolution.kernel_size[0]).div(convolution.stride[0], rounding_mode="floor") + 1
        return wave_lens.clamp(min=0)

    def flops(self, wave_lens: torch.Tensor) -> Flops:
        """Of recordings (B,) that many samples long."""
        each = []
        for convolution in self.convolutions:
            wave_lens = (wave_lens - convolution.kernel_size[0]).div(convolution.stride[0], rounding_mode="floor") + 1
            each.append(2 * matrices(convolution) * float(wave_lens.clamp(min=1).sum()))
        lens, layers = wave_lens.clamp(min=1).double(), self.encoder.layers
        return Flops(
            first=each[0],
            weights=sum(each[1:]) + 2 * matrices(layers) * float(lens.sum()),
            products=4 * len(layers) * self.dim * float((lens**2).sum()),
        )

    def forward(self, waves: torch.Tensor, wave_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`waves` (B, S) at 16 kHz -> frames (B, T, D), zero past each end, and frame_lens (B,)."""
        encoder = self.encoder
        waves = nn.functional.pad(waves, (0, max(0, self.min_samples - waves.shape[1])))
        stem_lens = (wave_lens - encoder.conv1.kernel_size[0]).div(encoder.conv1.stride[0], rounding_mode="floor") + 1
        hidden = normalize_real_frames(encoder.groupnorm, encoder.conv1(waves[:, None]).tanh(), stem_lens.clamp(min=0))
        hidden = nn.functional.gelu(encoder.conv2(hidden))
        hidden = nn.functional.gelu(encoder.conv3(hidden)).transpose(1, 2)
        lens = self.output_lens(wave_lens)
        # An utterance without any frame attends to one that is dropped afterwards: an empty softmax would give NaN.
        mask = create_bidirectional_mask(
            config=encoder.config, inputs_embeds=hidden, attention_mask=real(lens.clamp(min=1), hidden.shape[1])
        )
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotations = encoder.rotary_emb(hidden, position_ids=positions)
        for layer in encoder.layers:
            hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotations)
        frames = encoder.layer_norm(hidden) * real(lens, hidden.shape[1])[:, :, None]
        return frames[:, : max(1, int(lens.max()))], lens
