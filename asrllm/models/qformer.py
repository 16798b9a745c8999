"""Projectors with learnt queries that attend to the frames (Q-Former, Li et al. 2023, section 3.1).

The frames are cut into windows of one length, and the same few queries attend to each; what they found is put one after
the other, so that order and length are kept. The last window may be cut short by the end of the utterance.

`window_qformer` (SALMONN, Tang et al. 2024): short windows, each by itself. `segment_qformer` (Yu et al. 2024,
2309.13963, who cut at the 30 s of Whisper): longer ones; that the queries of all segments of an utterance see each
other, in rotary positions, is ours. Ours in both: attention to the frames comes first in a layer, since before it the
queries know nothing to tell each other.
"""

from typing import Any, Literal

import pydantic
import torch
from torch import nn

from asrllm.batch import real
from asrllm.flops import Flops, matrices
from asrllm.models.transformer import Hearing, Layer, LayersConfig


class WindowQFormerConfig(LayersConfig):
    """Windows of a third of a second at 50 frames a second, as SALMONN's."""

    type: Literal["window_qformer"]
    window: int = pydantic.Field(default=17, ge=1)  # frames
    queries: int = pydantic.Field(default=1, ge=1)  # of each window


class SegmentQFormerConfig(LayersConfig):
    """Segments of two seconds at 50 frames a second, with ten positions a second."""

    type: Literal["segment_qformer"]
    segment: int = pydantic.Field(default=100, ge=1)  # frames
    queries: int = pydantic.Field(default=20, ge=1)  # of each segment


class QFormerProjector(nn.Module):
    """P = ceil(T / window) * queries."""

    def __init__(self, config: WindowQFormerConfig | SegmentQFormerConfig, dim: int, llm_dim: int) -> None:
        super().__init__()
        self.whole = isinstance(config, SegmentQFormerConfig)  # whether queries see those of other windows
        self.window = config.segment if isinstance(config, SegmentQFormerConfig) else config.window
        self.inputs = nn.Sequential(nn.Linear(dim, config.dim), nn.LayerNorm(config.dim))
        self.queries = nn.Parameter(torch.randn(config.queries, config.dim))
        self.hearing: Any = nn.ModuleList(Hearing(config) for _ in range(config.layers))
        self.layers: Any = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.out: Any = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, llm_dim))

    def output_lens(self, frame_lens: torch.Tensor) -> torch.Tensor:
        """Positions of that many frames."""
        return (frame_lens + self.window - 1) // self.window * len(self.queries)

    def flops(self, frame_lens: torch.Tensor, speech_lens: torch.Tensor) -> Flops:
        """Of utterances with that many frames and speech positions (B,); a window that is cut short counts as whole."""
        count, positions = len(self.queries), float(speech_lens.sum())
        windows = int(positions) // count
        rows = speech_lens if self.whole else torch.full((windows,), count)
        first = 2 * matrices(self.inputs) * float(frame_lens.sum())
        done = Flops(first=first, weights=2 * matrices(self.out) * positions)
        for hearing, layer in zip(self.hearing, self.layers, strict=True):
            done += hearing.flops(positions, windows * self.window, positions * self.window) + layer.flops(rows)
        return done

    def forward(
        self, frames: torch.Tensor, frame_lens: torch.Tensor, log_probs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Speech positions (B, P, H) and their lengths."""
        lens, (count, dim) = self.output_lens(frame_lens), self.queries.shape
        windows = max(1, -(-frames.shape[1] // self.window))
        size = windows * self.window
        heard = nn.functional.pad(self.inputs(frames), (0, 0, 0, size - frames.shape[1])).view(-1, self.window, dim)
        mask = real(frame_lens, size).view(-1, self.window)
        mask = mask | ~mask.any(1, keepdim=True)  # nobody reads what is found past the end, but it has to be a number
        speech = self.queries.expand(len(heard), -1, -1)
        if self.whole:
            seen = real(lens.clamp(min=1), windows * count)
        else:
            seen = mask.new_ones(len(heard), count)
        for hearing, layer in zip(self.hearing, self.layers, strict=True):
            speech = hearing(speech, heard, mask)
            speech = layer(speech.reshape(*seen.shape, dim), seen).view(-1, count, dim)
        return self.out(speech).view(len(frames), -1, self.out[-1].out_features), lens
