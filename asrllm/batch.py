"""The one noun that data makes and models eat: some utterances, padded at the end."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Batch:
    """Utterances side by side; raw audio, so that the encoder alone decides on features.

    Where the encoder is frozen its outputs may come from a cache: then `frames` is set and `waves` is None.
    """

    utt_ids: list[str]
    texts: list[str]
    waves: (
        torch.Tensor | None
    )  # (B, S) float32 in [-1, 1], 16 kHz unless the experiment says otherwise, zeros past the end
    wave_lens: torch.Tensor  # (B,) int64, samples
    frames: torch.Tensor | None = None  # (B, T, D) encoder outputs
    frame_lens: torch.Tensor | None = None  # (B,) int64

    def __len__(self) -> int:
        return len(self.utt_ids)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        return replace(self, **self._each(lambda value: value.to(device, non_blocking=True)))

    def take(self, rows: list[int]) -> "Batch":
        """Some of its utterances."""
        names, texts = [self.utt_ids[row] for row in rows], [self.texts[row] for row in rows]
        return replace(self, utt_ids=names, texts=texts, **self._each(lambda value: value[rows]))

    def repeat(self, times: int) -> "Batch":
        """All utterances, `times` times over."""
        if times == 1:
            return self
        copied = self._each(lambda value: torch.cat([value] * times))
        return replace(self, utt_ids=self.utt_ids * times, texts=self.texts * times, **copied)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
        """Its tensors after a change, by name; those that are there."""
        names = ("waves", "wave_lens", "frames", "frame_lens")
        return {name: change(value) for name in names if (value := getattr(self, name)) is not None}


def pad(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack rows (L_i, ...) to (B, max L, ...) with zeros past each end; also their lengths (B,)."""
    lens = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lens


def real(lens: torch.Tensor, size: int) -> torch.Tensor:
    """Mask (B, size), True where a position is real: real[b, i] = i < lens[b]."""
    return torch.arange(size, device=lens.device) < lens[:, None]


def causal(past: int, size: int, like: torch.Tensor) -> torch.Tensor:
    """Mask (1, 1, size, past + size) to add: each position sees all of the past, itself and those before."""
    lowest = torch.full((size, past + size), torch.finfo(like.dtype).min, dtype=like.dtype, device=like.device)
    return lowest.triu(past + 1)[None, None]


@dataclass(frozen=True)
class Loss:
    """One named loss over a batch: its sum over targets, so that batches and processes can be added up exactly."""

    sum: torch.Tensor  # scalar, differentiable
    count: int  # targets it was summed over: tokens for `llm` and `ctc`
    correct: torch.Tensor | None = None  # scalar, how many targets were the arg-max under teacher forcing
    speech_lens: torch.Tensor | None = None  # (B,) speech positions that the LLM was given for it
