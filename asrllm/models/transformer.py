"""Transformer layers (Vaswani et al. 2017) with a norm before each step and rotary positions.

Projectors are made of them, and the attention decoder. They know positions and masks, not what lies at a position.
"""

import pydantic
import torch
from torch import nn

from asrllm.config import Config
from asrllm.flops import Flops, matrices
from asrllm.models.attention import RotaryAttention, rotary_table
from asrllm.models.dropout import Dropout


class LayersConfig(Config):
    """The shape of a stack of layers."""

    layers: int = pydantic.Field(default=2, ge=1)
    dim: int = pydantic.Field(default=512, ge=2)
    heads: int = pydantic.Field(default=8, ge=1)
    feed_forward: int = pydantic.Field(default=2048, ge=1)
    dropout: float = pydantic.Field(default=0.1, ge=0, lt=1)

    @pydantic.model_validator(mode="after")
    def _whole_heads(self) -> "LayersConfig":
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} must be a multiple of twice the heads, {2 * self.heads}")
        return self


class Layer(nn.Module):
    """Self-attention, attention to something else where the layer `hears`, a feed-forward; each added to its input."""

    def __init__(self, config: LayersConfig, hears: bool = False) -> None:
        super().__init__()
        self.head_dim = config.dim // config.heads
        self.norm = nn.LayerNorm(config.dim)
        self.attention = RotaryAttention(config.dim, config.heads, config.dropout)
        self.dropout = Dropout(config.dropout)
        self.hearing = Hearing(config) if hears else None
        self.feed = feed_forward(config.dim, config.feed_forward, config.dropout)

    def flops(self, lens: torch.Tensor) -> Flops:
        """Of rows with `lens` real positions each, all of which see each other; what is heard is not counted."""
        weights = matrices(self) - (matrices(self.hearing) if self.hearing else 0)
        rows = lens.double()
        return Flops(
            weights=2 * weights * float(rows.sum()),
            products=4 * self.attention.out.in_features * float((rows**2).sum()),
        )

    def forward(
        self,
        rows: torch.Tensor,
        mask: torch.Tensor,
        heard: torch.Tensor | None = None,
        heard_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, L, D) to the same; `mask` as in `RotaryAttention`, `heard` and its mask as in `Hearing`."""
        positions = rotary_table(rows.shape[1], self.head_dim, rows.device)
        rows = rows + self.dropout(self.attention(self.norm(rows), mask, positions))
        if self.hearing is not None:
            assert heard is not None and heard_mask is not None, "a layer that hears is given what to hear"
            rows = self.hearing(rows, heard, heard_mask)
        return rows + self.feed(rows)


class Hearing(nn.Module):
    """Attention to positions of something else, added to the input."""

    def __init__(self, config: LayersConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.attention = nn.MultiheadAttention(config.dim, config.heads, config.dropout, batch_first=True)
        self.dropout = Dropout(config.dropout)

    def flops(self, queries: float, keys: float, pairs: float) -> Flops:
        """Of so many positions that hear, positions that are heard, and pairs of them."""
        dim = self.attention.embed_dim
        return Flops(weights=4 * dim**2 * (queries + keys), products=4 * dim * pairs)

    def forward(self, rows: torch.Tensor, heard: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, L, D) to the same; `heard` is (B, T, D), `mask` (B, T) True on real positions, at least one a row."""
        mixed, _ = self.attention(self.norm(rows), heard, heard, key_padding_mask=~mask, need_weights=False)
        return rows + self.dropout(mixed)


def feed_forward(dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """A norm and two linear layers."""
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, hidden),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(hidden, dim),
        Dropout(dropout),
    )
