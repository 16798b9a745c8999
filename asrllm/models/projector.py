"""Projectors: encoder frames (B, T, D) to speech positions (B, P, H) in the LLM's embedding space.

`linear` is SLAM-ASR's (Ma et al. 2024, equations 2 to 4). `posterior` is ours: the LLM is given the CTC hypothesis in
its own embeddings, so it can read from the first step on, and learns from the frames what the hypothesis does not say.
"""

from typing import Annotated, Literal

import pydantic
import torch
from torch import nn

from asrllm.batch import real
from asrllm.config import Config
from asrllm.text.tokenizer import BLANK


class LinearConfig(Config):
    """Concatenate `stride` frames, then two linear layers with a ReLU between."""

    type: Literal["linear"]
    stride: int = pydantic.Field(default=5, ge=1)
    hidden: int = 2048


class PosteriorConfig(Config):
    """Expected LLM embedding under the CTC posterior, one position a label, plus a residual of the frames."""

    type: Literal["posterior"]
    hidden: int = 512
    context: int = pydantic.Field(default=1, ge=0)  # frames on either side of a label's that the residual sees


ProjectorConfig = Annotated[LinearConfig | PosteriorConfig, pydantic.Field(discriminator="type")]


class LinearProjector(nn.Module):
    """P = T // stride; the tail is dropped (SLAM-ASR, section 2.2)."""

    def __init__(self, config: LinearConfig, dim: int, llm_dim: int) -> None:
        super().__init__()
        self.stride = config.stride
        self.layers = nn.Sequential(
            nn.Linear(config.stride * dim, config.hidden), nn.ReLU(), nn.Linear(config.hidden, llm_dim)
        )

    def output_lens(self, frame_lens: torch.Tensor) -> torch.Tensor:
        """Positions of that many frames."""
        return frame_lens // self.stride

    def forward(
        self, frames: torch.Tensor, frame_lens: torch.Tensor, log_probs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Speech positions (B, P, H) and their lengths."""
        positions = frames.shape[1] // self.stride
        stacked = frames[:, : positions * self.stride].unflatten(1, (positions, self.stride)).flatten(2)
        return self.layers(stacked), self.output_lens(frame_lens)


class PosteriorProjector(nn.Module):
    """One position for each label of the greedy CTC path (ours).

    Frames that follow each other with the same arg-max label make one position: its distribution over labels is their
    mean without the blank, its embedding the expectation of the LLM's embeddings under it. Blank frames make none. To
    this a residual of the frames is added that starts at zero, and an offset that starts at zero.
    """

    embeddings: torch.Tensor

    def __init__(self, config: PosteriorConfig, dim: int, llm_dim: int, embeddings: torch.Tensor) -> None:
        """`embeddings` (V - 1, H): the LLM's embedding of each label but the blank; not trained, not stored."""
        super().__init__()
        self.context = config.context
        self.register_buffer("embeddings", embeddings.clone(), persistent=False)
        last = nn.Linear(config.hidden, llm_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.residual = nn.Sequential(
            nn.LayerNorm((2 * config.context + 1) * dim),
            nn.Linear((2 * config.context + 1) * dim, config.hidden),
            nn.ReLU(),
            last,
        )
        self.offset = nn.Parameter(torch.zeros(llm_dim))

    def output_lens(self, frame_lens: torch.Tensor) -> torch.Tensor:
        """The most positions that so many frames can make; the labels decide how many they do."""
        return frame_lens

    def forward(
        self, frames: torch.Tensor, frame_lens: torch.Tensor, log_probs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Speech positions (B, P, H) and their lengths; `log_probs` (B, T, V) are the CTC head's."""
        assert log_probs is not None, "the posterior projector reads the CTC head"
        owner, lens = label_runs(log_probs.argmax(-1), frame_lens)  # owner (B, T): position of a frame, or -1
        positions = max(1, int(lens.max())) if len(lens) else 1
        share = nn.functional.one_hot(owner + 1, positions + 1)[..., 1:].to(log_probs.dtype)  # (B, T, P)
        share = (share / share.sum(1, keepdim=True).clamp(min=1)).transpose(1, 2)  # (B, P, T): mean over the run
        probs = share @ log_probs.exp()[..., BLANK + 1 :]  # (B, P, V - 1)
        probs = probs / probs.sum(-1, keepdim=True).clamp(min=1e-6)
        speech = probs.to(self.embeddings.dtype) @ self.embeddings
        frames = frames * real(frame_lens, frames.shape[1])[..., None]  # what the residual sees past the end is zero
        around = nn.functional.pad(frames, (0, 0, self.context, self.context)).unfold(1, 2 * self.context + 1, 1)
        pooled = share.to(frames.dtype) @ around.flatten(2)  # (B, P, D * (2 context + 1))
        return speech + self.residual(pooled) + self.offset, lens


def label_runs(labels: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number the runs of equal labels that are not the blank, per row.

    Args:
        labels: (B, T) arg-max labels.
        lens: (B,) real frames.

    Returns:
        (B, T) number of the run that a frame belongs to, -1 for blanks and padding; (B,) runs per row.
    """
    kept = (labels != BLANK) & real(lens, labels.shape[1])
    previous = nn.functional.pad(labels, (1, 0), value=BLANK)[:, :-1]
    starts = kept & (labels != previous)
    number = starts.cumsum(1) - 1
    return number.masked_fill(~kept, -1), starts.sum(1)
