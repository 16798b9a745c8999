"""Label prior of a CTC head: its mean posterior over training audio, the blank left out (as in RWTH's fusion code).

It knows posteriors and a file; not models, not search.
"""

import json
from pathlib import Path

import torch

from asrllm.batch import real
from asrllm.console import UserError, write_atomically

PRIOR_FILE = "prior.json"  # in the folder of the experiment


class PriorSum:
    """Adds up posteriors."""

    def __init__(self, size: int) -> None:
        """`size`: labels, the blank included."""
        self._sums = torch.zeros(size, dtype=torch.float64)

    def add(self, log_probs: torch.Tensor, lens: torch.Tensor) -> None:
        """Frames of a batch (B, T, V), real up to `lens` (B,)."""
        frames = log_probs[real(lens.to(log_probs.device), log_probs.shape[1])]
        self._sums += frames.double().exp().sum(0).cpu()

    def log_prior(self) -> torch.Tensor:
        """(V,) float64; 0 for the blank."""
        sums = self._sums.clamp(min=torch.finfo(torch.float64).tiny)
        log_prior = (sums / sums[1:].sum()).log()
        log_prior[0] = 0.0
        return log_prior


def write_prior(log_prior: torch.Tensor, path: Path) -> None:
    """Write natural logarithms, a number for each label; the first is the blank's and means nothing."""
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps({"log_prior": log_prior.tolist()}) + "\n")


def read_prior(path: Path, size: int) -> torch.Tensor:
    """The prior (V,) of `size` labels, the blank included.

    Raises:
        UserError: no such file, or not a prior of these labels.
    """
    try:
        log_prior = torch.tensor(json.loads(path.read_text())["log_prior"], dtype=torch.float64)
    except FileNotFoundError:
        raise UserError(f"{path}: no label prior there: run asrllm.bin.estimate_prior on the training data") from None
    except (ValueError, KeyError, TypeError) as fault:
        raise UserError(f"{path}: not a label prior ({fault}): run asrllm.bin.estimate_prior again") from None
    if log_prior.shape != (size,) or not log_prior.isfinite().all():
        raise UserError(
            f"{path}: found {len(log_prior)} numbers, expected a finite one for each of {size} labels: "
            "run asrllm.bin.estimate_prior again"
        )
    return log_prior
