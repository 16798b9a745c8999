"""Attention decoder: the CTC units of a transcript one by one, from those before and all frames (Chan et al. 2016).

Beside CTC it makes an encoder learn faster (hybrid training, Watanabe et al. 2017, section III). It serves pretraining
only: no search reads it, and later stages take the encoder and the CTC head without it.
"""

from dataclasses import replace
from typing import Any

import pydantic
import torch
from torch import nn

from asrllm.batch import pad, real
from asrllm.flops import Flops, matrices
from asrllm.models.dropout import Dropout
from asrllm.models.transformer import Layer, LayersConfig
from asrllm.text.tokenizer import BLANK

EDGE = BLANK  # begins and ends a transcript, in which no blank occurs


class DecoderConfig(LayersConfig):
    """A Transformer decoder over the CTC units."""

    layers: int = pydantic.Field(default=6, ge=1)
    label_smoothing: float = pydantic.Field(default=0.1, ge=0, lt=1)  # in training


class AttentionDecoder(nn.Module):
    """Causal layers over units (U) that hear frames (T)."""

    def __init__(self, config: DecoderConfig, dim: int, units: int) -> None:
        """`dim` is the encoder's width, `units` counts the blank."""
        super().__init__()
        self.smoothing = config.label_smoothing
        self.inputs = nn.Sequential(nn.Linear(dim, config.dim), nn.LayerNorm(config.dim))
        self.embedding = nn.Embedding(units, config.dim)
        self.dropout = Dropout(config.dropout)
        self.layers: Any = nn.ModuleList(Layer(config, hears=True) for _ in range(config.layers))
        self.out = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, units))

    def flops(self, frame_lens: torch.Tensor, target_lens: torch.Tensor) -> Flops:
        """Of utterances with that many frames and targets, the end among them (B,).

        Not for a frozen decoder over a trained encoder, in which less passes a gradient.
        """
        frames, targets = frame_lens.double(), target_lens.double()
        heard, said, pairs = float(frames.sum()), float(targets.sum()), float((frames * targets).sum())
        done = Flops(first=2.0 * matrices(self.inputs) * heard, weights=2.0 * matrices(self.out) * said)
        for layer in self.layers:
            own = layer.flops(target_lens)
            own = replace(own, products=own.products / 2)  # a unit sees those before it
            done += own + layer.hearing.flops(said, heard, pairs)
        return done

    def forward(self, frames: torch.Tensor, frame_lens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Scores (B, U + 1, V) of what follows each of no, one, ... of the labels (B, U), from frames (B, T, D)."""
        said = nn.functional.pad(labels, (1, 0), value=EDGE)
        size = said.shape[1]
        before = torch.ones(1, size, size, dtype=torch.bool, device=said.device).tril()
        heard, heard_mask = self.inputs(frames), real(frame_lens.clamp(min=1), frames.shape[1])
        rows = self.dropout(self.embedding(said))
        for layer in self.layers:
            rows = layer(rows, before, heard, heard_mask)
        return self.out(rows)

    def loss(
        self, frames: torch.Tensor, frame_lens: torch.Tensor, labels: list[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of all labels and ends, smoothed in training: its sum, and how many had the highest score."""
        rows, sizes = pad([torch.tensor(row, dtype=torch.int64) for row in labels])
        scores = self(frames, frame_lens, rows.to(frames.device)).float()
        scores = scores[real(sizes + 1, scores.shape[1]).to(scores.device)]  # (targets, V)
        gold = torch.tensor([label for row in labels for label in (*row, EDGE)], device=scores.device)
        smoothing = self.smoothing if self.training else 0.0
        total = nn.functional.cross_entropy(scores, gold, reduction="sum", label_smoothing=smoothing)
        return total, (scores.argmax(-1) == gold).sum()
