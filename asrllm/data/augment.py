"""Speed perturbation of waves (Ko et al. 2015, "Audio augmentation for speech recognition", section 2).

The factor of an utterance is a function of the seed, the epoch and its id: no random state, hence the same on every
rank and after a restart. SpecAugment works on features and stands in the encoder's front end.
"""

import hashlib
from collections.abc import Sequence

import torch


def draw_factor(factors: Sequence[float], seed: int, epoch: int, utt_id: str) -> float:
    """One of `factors`, all equally likely."""
    digest = hashlib.blake2b(f"{seed} {epoch} {utt_id}".encode(), digest_size=8).digest()
    return factors[int.from_bytes(digest, "little") % len(factors)]


def speed(wave: torch.Tensor, factor: float) -> torch.Tensor:
    """The wave (S,) played `factor` times as fast, its pitch changed too: about S / factor samples.

    Args:
        wave: samples at any rate.
        factor: whole hundredths, such as 0.9; resampling from 9 to 10 is cheap, from 97 to 100 dearer.
    """
    if factor == 1.0:
        return wave
    from torchaudio.functional import resample  # imported late: where torchaudio is broken, the rest still works

    return resample(wave, round(factor * 100), 100)
