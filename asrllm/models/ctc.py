"""CTC head (Graves et al. 2006): frames to log-probabilities over units, and the loss.

Label 0 is the blank. The head may also read intermediate layers of the encoder (Lee and Watanabe 2021), in smaller
units if wanted (Sanabria and Metze 2018). Consistency regularisation makes it say the same of two views of an utterance
(CR-CTC, Yao et al. 2024).
"""

import torch
from torch import nn

from asrllm.batch import real
from asrllm.flops import Flops, matrices
from asrllm.models.dropout import Dropout
from asrllm.text.tokenizer import BLANK


class CtcHead(nn.Module):
    """A norm, since pretrained encoders differ in the size of their outputs, one linear layer, a log-softmax."""

    def __init__(
        self, dim: int, units: int, lower_units: int | None = None, dropout: float = 0.1, blank_penalty: float = 0.0
    ) -> None:
        """`lower_units`: size of the units of intermediate layers, where they are other ones.

        `blank_penalty` is taken off the blank's score (nats) before the softmax: a head that is sure of too little says
        blank too often, and words are lost.
        """
        super().__init__()
        self.units, self.blank_penalty = units, blank_penalty
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(dim, units)
        self.lower = None if lower_units is None else CtcHead(dim, lower_units, dropout=dropout)

    def flops(self, frame_lens: torch.Tensor, intermediate: bool = False) -> Flops:
        """Of utterances with that many frames (B,); of an intermediate layer if asked for."""
        head = self.out if self.lower is None or not intermediate else self.lower.out
        return Flops(weights=2.0 * matrices(head) * float(frame_lens.sum()))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (B, T, D) to log-probabilities (B, T, V) in float32."""
        scores = self.out(self.dropout(self.norm(frames))).float()
        if self.blank_penalty:
            scores[..., BLANK] -= self.blank_penalty
        return scores.log_softmax(-1)

    def intermediate(self, frames: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, T, V) for the frames of an intermediate layer."""
        return self(frames) if self.lower is None else self.lower(frames)


def ctc_loss(log_probs: torch.Tensor, lens: torch.Tensor, labels: list[list[int]]) -> torch.Tensor:
    """Negative log-probability of the labels, summed over utterances; nothing for one that has too few frames.

    Args:
        log_probs: (B, T, V).
        lens: (B,) real frames.
        labels: per utterance, without blanks.
    """
    flat = torch.tensor([label for row in labels for label in row], dtype=torch.int64, device=log_probs.device)
    label_lens = torch.tensor([len(row) for row in labels], device=log_probs.device)
    return nn.functional.ctc_loss(
        log_probs.transpose(0, 1), flat, lens, label_lens, blank=BLANK, reduction="sum", zero_infinity=True
    )


def consistency_loss(log_probs: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """How far two views of the same utterances disagree, summed over utterances and frames (CR-CTC, section 3.2).

    Half of KL(second || first) + KL(first || second) a frame; the distribution that a view is drawn to, the left one of
    each, gets no gradient.

    Args:
        log_probs: (2 B, T, V), the first views of all utterances, then the second ones.
        lens: (2 B,) real frames.
    """
    targets = log_probs.detach().roll(len(lens) // 2, 0)  # of each view the other one
    apart = (targets.exp() * (targets - log_probs)).sum(-1)  # (2 B, T)
    return 0.5 * apart[real(lens, log_probs.shape[1])].sum()
