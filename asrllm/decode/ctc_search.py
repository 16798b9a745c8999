"""Search in CTC frame posteriors (Graves et al. 2006). Unit 0 is the blank.

It does not know where the posteriors come from.
"""

from typing import Literal

import torch

from asrllm.batch import real
from asrllm.config import Config


class CtcGreedyConfig(Config):
    """The best unit of each frame, repeats merged, blanks dropped."""

    type: Literal["ctc_greedy"] = "ctc_greedy"


def ctc_greedy(log_probs: torch.Tensor, lens: torch.Tensor) -> list[tuple[list[int], float]]:
    """The labels of the best path of each utterance, and that path's log-probability.

    Args:
        log_probs: (B, T, V).
        lens: (B,) frames that are real.
    """
    scores, path = log_probs.float().max(dim=2)
    mask = real(lens.to(path.device), path.shape[1])
    before = torch.nn.functional.pad(path, (1, 0))[:, :-1]
    labels = mask & (path != 0) & (path != before)
    totals = scores.masked_fill(~mask, 0.0).sum(dim=1).tolist()
    return [(row[kept].tolist(), total) for row, kept, total in zip(path, labels, totals, strict=True)]
