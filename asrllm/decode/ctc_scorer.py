"""CTC as a term of the search over the LLM's tokens: a token is a chain of CTC labels.

What a token adds is log prefix(g + its labels) - log prefix(g); an end token adds log p(g) - log prefix(g), so that the
sum over a whole hypothesis is its CTC log-probability. It does not know of texts: see `text/spelling.py`.
"""

from collections.abc import Mapping, Sequence

import torch

from asrllm.decode.ctc_prefix import BLANK, CtcPrefix, Paths

UNKNOWN = -1  # length of the chain of a token that cannot be written in the labels


class Chains:
    """The labels of each token, as tensors."""

    def __init__(self, spelled: Mapping[int, Sequence[int]], tokens: int, first_space: int | None) -> None:
        """Read labels of token ids below `tokens`; label `first_space` is left out at the begin of a transcript."""
        known = {token: labels for token, labels in spelled.items() if token < tokens}
        longest = max([1, *map(len, known.values())])
        self.first_space = first_space
        self.lens = torch.full((tokens,), UNKNOWN)
        self.labels = torch.full((tokens, longest), BLANK)
        ids = torch.tensor(list(known), dtype=torch.long)
        self.lens[ids] = torch.tensor([len(labels) for labels in known.values()], dtype=torch.long)
        padded = [[*labels, *[BLANK] * (longest - len(labels))] for labels in known.values()]
        self.labels[ids] = torch.tensor(padded, dtype=torch.long).view(-1, longest)

    def to(self, device: torch.device) -> "Chains":
        """The same, in place, on `device`."""
        self.lens, self.labels = self.lens.to(device), self.labels.to(device)
        return self

    def sums(self, scores: torch.Tensor) -> torch.Tensor:
        """For each token (V,) the sum of the `scores` (U,) of its labels; 0 where it cannot be written."""
        real = torch.arange(self.labels.shape[1], device=self.lens.device) < self.lens[:, None]
        return (scores[self.labels] * real).sum(1)

    def of(self, tokens: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels (N, M) of `tokens` (N,) after sequences that end in `last` (N,), and how many they are."""
        labels, lens = self.labels[tokens], self.lens[tokens]
        if self.first_space is not None:
            bare = (last == BLANK) & (lens > 0) & (labels[:, 0] == self.first_space)
            labels = torch.where(bare[:, None], labels.roll(-1, 1), labels)
            lens = lens - bare.to(lens.dtype)
        return labels, lens


class CtcScorer:
    """log-probability that the transcript begins with a hypothesis, by CTC."""

    bounds = (-torch.inf, 0.0)

    def __init__(self, prefix: CtcPrefix, chains: Chains, end_ids: Sequence[int]) -> None:
        self.prefix, self.chains = prefix, chains
        self.ends = torch.tensor(end_ids, dtype=torch.long, device=prefix.lens.device)

    def start(self) -> Paths:
        """Nothing said yet."""
        return self.prefix.start()

    def score_candidates(self, state: Paths, tokens: torch.Tensor) -> torch.Tensor:
        """Increments (B, K, C), float64."""
        flat = tokens.flatten(0, 1)  # (N, C)
        rows = torch.arange(len(flat), device=flat.device)[:, None].expand_as(flat)
        labels, lens = (
            each.unflatten(0, flat.shape) for each in self.chains.of(flat.flatten(), state.last[rows].flatten())
        )
        scores = self.prefix.log_prefix(state, labels[..., 0])
        scores = torch.where(lens == 0, state.log_prefix[:, None], scores)
        if self.chains.labels.shape[1] > 1 and (many := lens > 1).any():
            scores[many] = self._score_chains(state, rows[many], labels[many], lens[many])
        scores = scores.masked_fill(lens == UNKNOWN, -torch.inf)
        scores = torch.where(torch.isin(flat, self.ends), self.prefix.log_whole(state)[:, None], scores)
        return increments(scores, state.log_prefix[:, None]).view_as(tokens)

    def advance(self, state: Paths, rows: torch.Tensor, tokens: torch.Tensor) -> Paths:
        """Append the labels of the tokens that were taken."""
        paths = state.take(rows.flatten())
        labels, lens = self.chains.of(tokens.flatten(), paths.last)
        return append_chains(self.prefix, paths, labels, lens)

    def _score_chains(self, paths: Paths, rows: torch.Tensor, labels: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """log prefix (n,) of the sequences `rows` (n,) with chains after them; equal beginnings are run once."""
        scores = torch.empty(len(rows), dtype=paths.log_prefix.dtype, device=rows.device)
        left = torch.arange(len(rows), device=rows.device)
        for place in range(labels.shape[1]):
            label = labels[left, place]
            last = lens[left] == place + 1
            scores[left[last]] = self.prefix.log_prefix(paths.take(rows[last]), label[last, None])[:, 0]
            left, rows, label = left[~last], rows[~last], label[~last]
            if not len(left):
                break
            begun, rows = (rows * self.prefix.labels + label).unique(return_inverse=True)
            paths = self.prefix.append(paths.take(begun // self.prefix.labels), begun % self.prefix.labels)
        return scores


def increments(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """after - before for logarithms; -inf where nothing is left, and after that too."""
    return torch.where(after > -torch.inf, after - before, -torch.inf)


def append_chains(prefix: CtcPrefix, paths: Paths, labels: torch.Tensor, lens: torch.Tensor) -> Paths:
    """Each sequence with the first `lens` (N,) of its `labels` (N, M) after it."""
    for place in range(int(lens.max())):
        going = lens > place
        longer = prefix.append(paths, torch.where(going, labels[:, place], paths.last))
        paths = longer.where(going, paths)
    return paths
