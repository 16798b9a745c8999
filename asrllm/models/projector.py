"""Projectors: encoder frames (B, T, D) to speech positions (B, P, H) in the LLM's embedding space.

Here are those that shorten the frames by a fixed factor: `linear` (SLAM-ASR, Ma et al. 2024, equations 2 to 4), `conv`
and `transformer`. Those with queries are in `models/qformer.py`, the one that reads the CTC head in
`models/posterior.py`. All have these methods; what they give an utterance depends on nothing beside or past it.
"""

from typing import Any, Literal

import pydantic
import torch
from torch import nn

from asrllm.batch import real
from asrllm.config import Config
from asrllm.flops import Flops, matrices
from asrllm.models.transformer import Layer, LayersConfig


class LinearConfig(Config):
    """Concatenate `stride` frames, then two linear layers with a ReLU between."""

    type: Literal["linear"]
    stride: int = pydantic.Field(default=5, ge=1)
    hidden: int = 2048


class ConvConfig(Config):
    """A convolution over time for each stride, each with a GELU, then a linear layer."""

    type: Literal["conv"]
    strides: tuple[pydantic.PositiveInt, ...] = pydantic.Field(default=(2, 2), min_length=1)
    kernel: int = pydantic.Field(default=3, ge=1)
    hidden: int = pydantic.Field(default=1024, ge=1)

    @pydantic.model_validator(mode="after")
    def _covers(self) -> "ConvConfig":
        if self.kernel % 2 == 0 or self.kernel < max(self.strides):
            raise ValueError(f"kernel {self.kernel} must be odd and no smaller than the strides {list(self.strides)}")
        return self


class TransformerConfig(LayersConfig):
    """Concatenate `stride` frames, a linear layer, Transformer layers over the utterance, a linear layer."""

    type: Literal["transformer"]
    stride: int = pydantic.Field(default=5, ge=1)


class LinearProjector(nn.Module):
    """P = T // stride; the tail is dropped (SLAM-ASR, section 2.2)."""

    def __init__(self, config: LinearConfig, dim: int, llm_dim: int) -> None:
        super().__init__()
        self.stride = config.stride
        self.layers = nn.Sequential(
            nn.Linear(config.stride * dim, config.hidden), nn.ReLU(), nn.Linear(config.hidden, llm_dim)
        )

    def output_lens(self, frame_lens: torch.Tensor) -> torch.Tensor:
        """Positions of that many frames."""
        return frame_lens // self.stride

    def flops(self, frame_lens: torch.Tensor, speech_lens: torch.Tensor) -> Flops:
        """Of utterances with that many frames and speech positions (B,)."""
        first, _, last = self.layers
        positions = float(speech_lens.sum())
        return Flops(first=2 * matrices(first) * positions, weights=2 * matrices(last) * positions)

    def forward(
        self, frames: torch.Tensor, frame_lens: torch.Tensor, log_probs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Speech positions (B, P, H) and their lengths."""
        return self.layers(concatenate(frames, self.stride)), self.output_lens(frame_lens)


class ConvProjector(nn.Module):
    """Each convolution makes ceil(T / stride) of T positions; it sees zeros before and after the utterance (ours).

    SLAM-ASR's code has one whose kernel is its stride.
    """

    def __init__(self, config: ConvConfig, dim: int, llm_dim: int) -> None:
        super().__init__()
        self.strides = config.strides
        widths = [dim] + [config.hidden] * len(config.strides)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, config.hidden, config.kernel, stride, padding=config.kernel // 2)
            for width, stride in zip(widths, config.strides, strict=False)
        )
        self.out = nn.Linear(config.hidden, llm_dim)

    def output_lens(self, frame_lens: torch.Tensor) -> torch.Tensor:
        """Positions of that many frames."""
        for stride in self.strides:
            frame_lens = (frame_lens + stride - 1) // stride
        return frame_lens

    def flops(self, frame_lens: torch.Tensor, speech_lens: torch.Tensor) -> Flops:
        """Of utterances with that many frames and speech positions (B,)."""
        each = []
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            frame_lens = (frame_lens + stride - 1) // stride
            each.append(2.0 * matrices(convolution) * float(frame_lens.sum()))
        return Flops(first=each[0], weights=sum(each[1:]) + 2.0 * matrices(self.out) * float(speech_lens.sum()))

    def forward(
        self, frames: torch.Tensor, frame_lens: torch.Tensor, log_probs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Speech positions (B, P, H) and their lengths."""
        lens = frame_lens
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            frames = frames * real(lens, frames.shape[1])[..., None]
            frames = nn.functional.gelu(convolution(frames.transpose(1, 2))).transpose(1, 2)
            lens = (lens + stride - 1) // stride
        return self.out(frames), lens


class TransformerProjector(nn.Module):
    """P = T // stride; the tail is dropped. The positions of an utterance see each other.

    Fun-ASR (2509.12508) has two such layers, of which it says no more; the rest is ours.
    """

    def __init__(self, config: TransformerConfig, dim: int, llm_dim: int) -> None:
        super().__init__()
        self.stride = config.stride
        self.inputs = nn.Linear(config.stride * dim, config.dim)
        self.layers: Any = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.out = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, llm_dim))

    def output_lens(self, frame_lens: torch.Tensor) -> torch.Tensor:
        """Positions of that many frames."""
        return frame_lens // self.stride

    def flops(self, frame_lens: torch.Tensor, speech_lens: torch.Tensor) -> Flops:
        """Of utterances with that many frames and speech positions (B,)."""
        positions = float(speech_lens.sum())
        ends = Flops(first=2 * matrices(self.inputs) * positions, weights=2 * matrices(self.out) * positions)
        return sum((layer.flops(speech_lens) for layer in self.layers), start=ends)

    def forward(
        self, frames: torch.Tensor, frame_lens: torch.Tensor, log_probs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Speech positions (B, P, H) and their lengths."""
        lens = self.output_lens(frame_lens)
        speech = self.inputs(concatenate(frames, self.stride))
        mask = real(lens.clamp(min=1), speech.shape[1])  # an utterance without any sees one, which nobody reads
        for layer in self.layers:
            speech = layer(speech, mask)
        return self.out(speech), lens


def concatenate(frames: torch.Tensor, stride: int) -> torch.Tensor:
    """Every `stride` frames of (B, T, D) as one: (B, T // stride, stride * D)."""
    positions = frames.shape[1] // stride
    return frames[:, : positions * stride].unflatten(1, (positions, stride)).flatten(2)
