"""The projector `posterior`, ours: the LLM is given the CTC hypothesis in its own embeddings.

So it can read from the first step on, and learns from the frames what the hypothesis does not say.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import pydantic
import torch
from torch import nn

from asrllm.batch import real
from asrllm.config import Config
from asrllm.flops import Flops, matrices
from asrllm.text.tokenizer import BLANK


class PosteriorConfig(Config):
    """Expected LLM embedding under the CTC posterior, one position a label, plus a residual of the frames."""

    type: Literal["posterior"]
    hidden: int = 512
    context: int = pydantic.Field(default=1, ge=0)  # frames on either side of a label's that the residual sees


class Units(Protocol):
    """CTC units that are tokens of the LLM."""

    llm_ids: list[int]

    def respell(self, ids: list[int]) -> list[tuple[int, int, int]]:
        """Labels as the tokens the LLM would write: (llm_id, first label, last label + 1) of each."""


class PosteriorProjector(nn.Module):
    """One position for each token of the greedy CTC hypothesis (ours).

    Frames that follow each other with the same arg-max label make one run; blank frames make none. A token that is the
    label of one run gets the expectation of the LLM's embeddings under the run's mean distribution without the blank.
    Where the hypothesis is spelled with shorter units than the LLM would use, it is respelled: such a token covers
    several runs and gets its plain embedding. To this a residual of the frames is added that starts at zero, and an
    offset that starts at zero.
    """

    def __init__(
        self,
        config: PosteriorConfig,
        dim: int,
        llm_dim: int,
        units: Units,
        embed: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """`embed` gives the LLM's embeddings (..., H) of token ids (...)."""
        super().__init__()
        self.context, self.units, self.embed = config.context, units, embed
        last = nn.Linear(config.hidden, llm_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.width = (2 * config.context + 1) * dim
        self.residual = nn.Sequential(nn.LayerNorm(self.width), nn.Linear(self.width, config.hidden), nn.ReLU(), last)
        self.offset = nn.Parameter(torch.zeros(llm_dim))

    def output_lens(self, frame_lens: torch.Tensor) -> torch.Tensor:
        """The most positions that so many frames can make, with labels the LLM writes as they are."""
        return frame_lens

    def flops(self, frame_lens: torch.Tensor, speech_lens: torch.Tensor) -> Flops:
        """Of utterances with that many frames and speech positions (B,), as many as runs of labels."""
        units, width = len(self.units.llm_ids), self.width
        made, frames = speech_lens.double(), frame_lens.double()
        gathered = float((made * frames * (units + width + made)).sum())
        return Flops(weights=2 * matrices(self.residual) * float(made.sum()), fixed=2 * gathered)

    def expectation_flops(self, speech_lens: torch.Tensor) -> Flops:
        """Of the expected embeddings at that many positions (B,): the LLM's weights, not the projector's."""
        return Flops(first=2 * len(self.units.llm_ids) * len(self.offset) * float(speech_lens.sum()))

    def forward(
        self, frames: torch.Tensor, frame_lens: torch.Tensor, log_probs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Speech positions (B, P, H) and their lengths; `log_probs` (B, T, V) are the CTC head's."""
        assert log_probs is not None, "the posterior projector reads the CTC head"
        labels = log_probs.argmax(-1)
        owner, runs = label_runs(labels, frame_lens)  # owner (B, T): run of a frame, or -1
        ids, covers, exact, lens = self._spell(labels, owner, runs)
        share = nn.functional.one_hot(owner + 1, covers.shape[2] + 1)[..., 1:].transpose(1, 2).to(log_probs.dtype)
        share = covers.to(log_probs.dtype) @ share  # (B, P, T): the frames of a position
        share = share / share.sum(-1, keepdim=True).clamp(min=1)
        probs = share @ log_probs.exp()[..., BLANK + 1 :]  # (B, P, V - 1)
        probs = probs / probs.sum(-1, keepdim=True).clamp(min=1e-6)
        table = self.embed(torch.tensor(self.units.llm_ids, device=frames.device))
        speech = torch.where(exact[..., None], probs.to(table.dtype) @ table, self.embed(ids))
        frames = frames * real(frame_lens, frames.shape[1])[..., None]  # what the residual sees past the end is zero
        around = nn.functional.pad(frames, (0, 0, self.context, self.context)).unfold(1, 2 * self.context + 1, 1)
        pooled = share.to(frames.dtype) @ around.flatten(2)  # (B, P, D * (2 context + 1))
        return speech + self.residual(pooled) + self.offset, lens

    def owners(self, log_probs: torch.Tensor, frame_lens: torch.Tensor) -> torch.Tensor:
        """Position (B, T) that each frame is a part of, -1 for blanks and padding."""
        labels = log_probs.argmax(-1)
        run, runs = label_runs(labels, frame_lens)
        _, covers, _, _ = self._spell(labels, run, runs)
        position = covers.int().argmax(1).gather(1, run.clamp(min=0))  # covers (B, P, R)
        return position.masked_fill(run < 0, -1)

    def _spell(
        self, labels: torch.Tensor, owner: torch.Tensor, runs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids (B, P), the runs of each (B, P, R), whether it is the label of one run (B, P), lengths (B,)."""
        spelled = []
        for row, places, count in zip(labels.tolist(), owner.tolist(), runs.tolist(), strict=True):
            label_of = dict(zip(places, row, strict=True))
            own = [label_of[run] for run in range(count)]
            spelled.append([(*token, own) for token in self.units.respell(own)])
        positions, most = max(1, *map(len, spelled)), max(1, int(runs.max()))
        ids = torch.zeros(len(spelled), positions, dtype=torch.int64)
        covers = torch.zeros(len(spelled), positions, most, dtype=torch.bool)
        exact = torch.zeros(len(spelled), positions, dtype=torch.bool)
        for b, row in enumerate(spelled):
            for p, (llm_id, first, end, own) in enumerate(row):
                ids[b, p] = llm_id
                covers[b, p, first:end] = True
                exact[b, p] = end - first == 1 and self.units.llm_ids[own[first] - 1] == llm_id
        device = labels.device
        return ids.to(device), covers.to(device), exact.to(device), torch.tensor([*map(len, spelled)], device=device)


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
