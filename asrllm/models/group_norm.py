"""Group normalisation whose statistics see real frames only, so that padding changes no result."""

import torch
from torch import nn

from asrllm.batch import real


def normalize_real_frames(norm: nn.GroupNorm, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Apply `norm` to each utterance as if it were not padded.

    `x` (B, C, T) with real lengths `lens` (B,) -> (B, C, T); positions past a length are zero. Statistics are taken in
    float32 over the channels of a group and the real frames, as `norm` takes them of an unpadded utterance.
    """
    rows, channels, size = x.shape
    grouped = x.float().reshape(rows, norm.num_groups, channels // norm.num_groups, size)
    mask = real(lens, size)[:, None, None, :]
    count = (lens.clamp(min=1) * (channels // norm.num_groups))[:, None, None, None]
    mean = (grouped * mask).sum((2, 3), keepdim=True) / count
    deviation = (grouped - mean) * mask
    variance = deviation.square().sum((2, 3), keepdim=True) / count
    normal = (deviation * torch.rsqrt(variance + norm.eps)).reshape(rows, channels, size)
    normal = normal * norm.weight[:, None] + norm.bias[:, None]
    return (normal * mask[:, 0]).to(x.dtype)
