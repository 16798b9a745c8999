"""Self-attention of a sequence with rotary (Su et al. 2021) or relative (Dai et al. 2019) positions."""

import math

import torch
from torch import nn


def rotary_table(size: int, dim: int, device: torch.device) -> torch.Tensor:
    """Cosines and sines, stacked: (2, size, dim)."""
    rates = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))
    angles = torch.arange(size, device=device)[:, None] * rates
    return torch.stack([torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)])


def sinusoids(size: int, dim: int, device: torch.device) -> torch.Tensor:
    """Embeddings of the distances size-1 ... -(size-1): (2 size - 1, dim)."""
    rates = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))
    angles = torch.arange(size - 1, -size, -1, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


class RotaryAttention(nn.Module):
    """Multi-head self-attention with queries and keys turned by their position."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.inputs = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """frames (B, T, D), mask (B, T) True on real frames, positions from `rotary_table`; gives (B, T, D).

        Where the mask is (B or 1, T, T), a frame sees what is True in its row.
        """
        query, key, value = self.inputs(frames).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = _turn(query, positions), _turn(key, positions)  # (B, heads, T, D / heads)
        drop = self.dropout if self.training else 0.0
        seen = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, seen, dropout_p=drop)
        return self.out(mixed.transpose(1, 2).flatten(2))


def _turn(heads: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    cosines, sines = positions.to(heads.dtype)
    low, high = heads.chunk(2, -1)
    return heads * cosines + torch.cat([-high, low], -1) * sines


class RelativeAttention(nn.Module):
    """Multi-head self-attention with a learnt term for the distance (Dai et al. 2019, section 3.3)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.inputs = nn.Linear(dim, 3 * dim)
        self.distance = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))
        self.distance_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))
        self.out = nn.Linear(dim, dim)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """frames (B, T, D), mask (B, T) True on real frames, positions from `sinusoids`; gives (B, T, D)."""
        size = frames.shape[1]
        query, key, value = self.inputs(frames).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        distance = self.distance(positions.to(frames.dtype)).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        by_distance = (query + self.distance_bias) @ distance.transpose(-1, -2)  # (B, heads, T, 2T - 1)
        # Row i wants the distances i - j for j = 0 ... T-1, that is columns T-1-i ... 2T-2-i.
        steps = torch.arange(size, device=frames.device)
        column = (size - 1 - steps[:, None] + steps[None]).expand(*by_distance.shape[:2], -1, -1)
        bias = by_distance.gather(-1, column) / math.sqrt(query.shape[-1])
        bias = bias.masked_fill(~mask[:, None, None], float("-inf"))
        drop = self.dropout if self.training else 0.0
        query = query + self.content_bias
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, bias.to(query.dtype), dropout_p=drop)
        return self.out(mixed.transpose(1, 2).flatten(2))
