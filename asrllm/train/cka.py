"""Linear CKA: how alike two encoders are, by their outputs on the same frames.

It knows matrices of frames; not encoders, audio or schedules.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from pydantic import Field

from asrllm.batch import real
from asrllm.config import Config


class CkaConfig(Config):
    """What CKA is measured on: frames of held-out utterances, the same at every time (ours)."""

    utterances: int = Field(default=300, ge=1)  # drawn from the validation data
    frames: int = Field(default=20000, ge=2)  # drawn from all real frames of these
    seed: int = Field(default=0, ge=0)  # of both draws


def linear_cka(one: torch.Tensor, other: torch.Tensor) -> float:
    """Centred kernel alignment of outputs (N, D) and (N, E) at the same N frames, 0 to 1; NaN where one is constant.

    With centred columns ||A'B||^2 / (||A'A|| ||B'B||) in Frobenius norms equals the form over N x N kernels (NIM4-ASR,
    section on IA-SFT) at the cost of N D E; in float64. A rotation or one common factor does not change it.
    """
    return linear_ckas([one], [other])[0][0]


def linear_ckas(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> list[list[float]]:
    """`linear_cka` of each of the first with each of the second, all at the same N frames."""
    lefts, rights = ([each.double() - each.double().mean(0) for each in side] for side in (ones, others))
    own, theirs = ([float((each.T @ each).norm()) for each in side] for side in (lefts, rights))
    return [
        [
            _divided(float((left.T @ right).square().sum()), one * other)
            for right, other in zip(rights, theirs, strict=True)
        ]
        for left, one in zip(lefts, own, strict=True)
    ]


def _divided(top: float, bottom: float) -> float:
    return top / bottom if bottom else math.nan


def pool(outputs: Iterable[tuple[torch.Tensor, torch.Tensor]], most: int, seed: int) -> torch.Tensor:
    """Up to `most` real frames (N, D), on the CPU, of encoder outputs (B, T, D) with lengths (B,).

    Which ones follows from their number and the seed alone.
    """
    rows = torch.cat([frames[real(lens, frames.shape[1])].cpu() for frames, lens in outputs])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order[:most].sort().values]
