"""Conformer encoder (Gulati et al. 2020): convolutional subsampling, macaron blocks, rotary or relative positions.

Every convolution sees zeros past the real frames and attention never looks there, so an utterance's output does not
depend on its batch mates.
"""

from typing import Literal

import pydantic
import torch
from torch import nn

from asrllm.batch import real
from asrllm.config import Config
from asrllm.flops import Flops, matrices
from asrllm.models.attention import RelativeAttention, RotaryAttention, rotary_table, sinusoids
from asrllm.models.dropout import Dropout
from asrllm.models.frontend import FrontendConfig, LogMel
from asrllm.models.transformer import feed_forward


class ConformerConfig(Config):
    """A Conformer and its front end."""

    type: Literal["conformer"]
    frontend: FrontendConfig = FrontendConfig()
    subsampling: Literal[4, 8] = 4  # frames of 40 ms or 80 ms
    subsampling_channels: int = 64
    layers: int = 12
    dim: int = 256
    heads: int = 4
    feed_forward: int = 1024
    kernel: int = pydantic.Field(default=31, ge=1)
    positions: Literal["rotary", "relative"] = "rotary"
    convolution_norm: Literal["layer", "batch"] = (
        "layer"  # `batch` is Gulati's; `layer` has no state across batch mates
    )
    dropout: float = 0.1
    intermediate_layers: tuple[int, ...] = ()  # counted from 1; their outputs also get the CTC loss `ctc_intermediate`

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "ConformerConfig":
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} must be a multiple of twice the heads, {2 * self.heads}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd")
        if any(not 1 <= layer < self.layers for layer in self.intermediate_layers):
            raise ValueError(f"intermediate_layers {list(self.intermediate_layers)} must lie in 1..{self.layers - 1}")
        return self


class Conformer(nn.Module):
    """Waves (B, S) at 16 kHz to frames (B, T, dim)."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.intermediate_layers = config.intermediate_layers
        self.frontend = LogMel(config.frontend)
        self.subsampling = Subsampling(config, self.frontend.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def output_lens(self, wave_lens: torch.Tensor) -> torch.Tensor:
        """Frames of waves that many samples long."""
        return self.subsampling.output_lens(self.frontend.output_lens(wave_lens))

    def flops(self, wave_lens: torch.Tensor) -> Flops:
        """Of one batch of waves (B,) that many samples long.

        Relative positions are projected once a batch, for its longest utterance.
        """
        mel_lens = self.frontend.output_lens(wave_lens)
        lens = self.subsampling.output_lens(mel_lens).double()
        frames, pairs, furthest = float(lens.sum()), float((lens**2).sum()), 2 * float(lens.max()) - 1
        flops = self.frontend.flops(wave_lens) + self.subsampling.flops(mel_lens)
        for block in self.blocks:
            weights = matrices(block)
            if isinstance(block.attention, RelativeAttention):
                distances = matrices(block.attention.distance)
                by_distance = 2 * self.dim * (2 * pairs - frames)
                flops += Flops(first=2 * distances * furthest, products=by_distance)
                weights -= distances
            flops += Flops(weights=2 * weights * frames, products=4 * self.dim * pairs)
        return flops

    def forward(self, waves: torch.Tensor, wave_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames (B, T, dim) and their lengths (B,)."""
        frames, lens, _ = self.with_intermediate(waves, wave_lens)
        return frames, lens

    def with_intermediate(
        self, waves: torch.Tensor, wave_lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Frames, lengths, and the frames after each of `intermediate_layers`."""
        frames, lens = self.subsampling(*self.frontend(waves, wave_lens))
        mask = real(lens, frames.shape[1])
        if self.config.positions == "rotary":
            positions = rotary_table(frames.shape[1], self.dim // self.config.heads, frames.device)
        else:
            positions = sinusoids(frames.shape[1], self.dim, frames.device)
        taps = []
        for number, block in enumerate(self.blocks, 1):
            frames = block(frames, mask, positions)
            if number in self.intermediate_layers:
                taps.append(frames)
        return frames, lens, taps


class Subsampling(nn.Module):
    """Strided 3x3 convolutions: mel frames (B, T, F) to (B, T / factor, dim)."""

    def __init__(self, config: ConformerConfig, mels: int) -> None:
        super().__init__()
        self.halvings = {4: 2, 8: 3}[config.subsampling]
        channels = config.subsampling_channels
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1 if number == 0 else channels, channels, 3, stride=2, padding=1)
            for number in range(self.halvings)
        )
        self.bins = [mels]
        for _ in range(self.halvings):
            self.bins.append((self.bins[-1] + 1) // 2)
        self.out = nn.Linear(channels * self.bins[-1], config.dim)
        self.dropout = Dropout(config.dropout)

    def output_lens(self, lens: torch.Tensor) -> torch.Tensor:
        """Frames after the strides."""
        for _ in range(self.halvings):
            lens = (lens + 1) // 2
        return lens

    def flops(self, lens: torch.Tensor) -> Flops:
        """Of utterances with that many mel frames (B,)."""
        each = []
        for convolution, bins in zip(self.convolutions, self.bins[1:], strict=True):
            lens = (lens + 1) // 2
            each.append(2.0 * matrices(convolution) * bins * float(lens.sum()))
        return Flops(first=each[0], weights=sum(each[1:]) + 2.0 * matrices(self.out) * float(lens.sum()))

    def forward(self, frames: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Subsampled frames and lengths."""
        maps = frames[:, None]  # (B, 1, T, F)
        for convolution in self.convolutions:
            maps = nn.functional.silu(convolution(maps))
            lens = (lens + 1) // 2
            maps = maps * real(lens, maps.shape[2])[:, None, :, None]
        return self.dropout(self.out(maps.transpose(1, 2).flatten(2))), lens


class Block(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, each added to its input; a norm at the end."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.feed_in = feed_forward(config.dim, config.feed_forward, config.dropout)
        self.attention_norm = nn.LayerNorm(config.dim)
        attention = RotaryAttention if config.positions == "rotary" else RelativeAttention
        self.attention = attention(config.dim, config.heads, config.dropout)
        self.convolution = Convolution(config)
        self.feed_out = feed_forward(config.dim, config.feed_forward, config.dropout)
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(B, T, D) to (B, T, D); `mask` (B, T) is True on real frames."""
        frames = frames + 0.5 * self.feed_in(frames)
        frames = frames + self.dropout(self.attention(self.attention_norm(frames), mask, positions))
        frames = frames + self.dropout(self.convolution(frames, mask))
        frames = frames + 0.5 * self.feed_out(frames)
        return self.norm(frames)


class Convolution(nn.Module):
    """The convolution module: gated pointwise, depthwise, norm, pointwise."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(config.dim)
        self.gate = nn.Linear(config.dim, 2 * config.dim)
        self.depthwise = nn.Conv1d(config.dim, config.dim, config.kernel, padding=config.kernel // 2, groups=config.dim)
        self.norm = nn.LayerNorm(config.dim) if config.convolution_norm == "layer" else nn.BatchNorm1d(config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D) to (B, T, D)."""
        frames = nn.functional.glu(self.gate(self.norm_in(frames))) * mask[..., None]
        frames = self.depthwise(frames.transpose(1, 2)).transpose(1, 2)
        if isinstance(self.norm, nn.BatchNorm1d):  # statistics of real frames only
            normed = torch.zeros_like(frames, dtype=torch.float32)
            normed[mask] = self.norm(frames[mask].float())
            frames = normed.to(frames.dtype)
        else:
            frames = self.norm(frames)
        return self.out(nn.functional.silu(frames))
