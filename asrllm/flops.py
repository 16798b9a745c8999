"""What the arithmetic of a model costs: matrix products and convolutions, a multiply-add counted as two.

Kaplan et al. 2020, section 2.1: 2 P forward and 4 P backward for a position that passes P weights. What a product costs
backward depends on which of its two sides wants a gradient, hence the four kinds of `Flops` (ours; they agree with
`torch.utils.flop_counter`). Norms, activations, softmax, FFT, embedding look-ups, the CTC recursion and the optimizer
are not counted. It knows numbers; neither models nor schedules.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Flops:
    """Forward FLOPs of one part on some utterances, by what is multiplied."""

    first: float = 0.0  # the part's own weights with what the part is given
    weights: float = 0.0  # its own weights with what it made of that
    products: float = 0.0  # activations with each other, such as attention
    fixed: float = 0.0  # what it is given with something that the part's training does not move, such as a filter bank

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(
            self.first + other.first,
            self.weights + other.weights,
            self.products + other.products,
            self.fixed + other.fixed,
        )

    @property
    def forward(self) -> float:
        """All of them."""
        return self.first + self.weights + self.products + self.fixed

    def step(self, trained: bool, upstream: bool) -> float:
        """Forward and backward; whether the part is trained, and whether what it is given depends on trained parts.

        A product with weights costs its forward once more for the gradient of its input, and once more for that of the
        weights; a product of activations twice more if any gradient passes.
        """
        passes = trained or upstream
        return (
            self.first * (1 + upstream + trained)
            + self.weights * (1 + passes + trained)
            + self.products * (1 + 2 * passes)
            + self.fixed * (1 + upstream)
        )


@dataclass(frozen=True)
class Work:
    """What a part does for one batch."""

    part: str
    real: Flops  # of real frames and tokens
    padded: Flops  # as executed, every row as long as the longest
    upstream: frozenset[str] = frozenset()  # parts that its input depends on


def matrices(module: nn.Module) -> int:
    """Weights of all linear layers and convolutions in a module: multiply-adds of an output position of each."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, kinds))


def longest(lens: torch.Tensor) -> torch.Tensor:
    """The lengths (B,) of rows that are padded to the longest."""
    return lens.max().expand_as(lens) if len(lens) else lens
