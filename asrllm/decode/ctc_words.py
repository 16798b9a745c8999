"""CTC as a term of the search where a token of the LLM has no spelling of its own in the CTC's units: word by word.

So it is with sentencepiece, where a word has one spelling, and with phonemes, where it may have several: their
probabilities add up. A word is scored when it is complete: with the token that begins the next word, or with the end.
Until then it adds nothing, so that hypotheses with and without an open word compare unfairly (ours; a chain of labels
is better where one can be had).

A sum over all pronunciations of all words needs few rows: label sequences of one hypothesis that end in the same label
go on alike, so they are one row (ours). It is a sum over sequences of pronunciations, each of which counts in full.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from asrllm.decode.ctc_prefix import CtcPrefix, Paths, log_sums
from asrllm.decode.ctc_scorer import append_chains, increments


@dataclass(frozen=True)
class Spellings:
    """N hypotheses, each in all its spellings: M rows of paths, at least one a hypothesis."""

    paths: Paths
    owners: torch.Tensor  # (M,) int64, the hypothesis of each row
    count: int  # N

    def log_prefix(self) -> torch.Tensor:
        """log-probability (N,) that the transcript begins with a hypothesis."""
        return log_sums(self.paths.log_prefix, self.owners, self.count)

    def log_whole(self, prefix: CtcPrefix) -> torch.Tensor:
        """log-probability (N,) that a hypothesis is all there is."""
        return log_sums(prefix.log_whole(self.paths), self.owners, self.count)

    def take(self, rows: torch.Tensor) -> "Spellings":
        """The hypotheses `rows` (N',)."""
        owners, members = (rows[:, None] == self.owners).nonzero(as_tuple=True)
        return Spellings(self.paths.take(members), owners, len(rows))

    def where(self, chosen: torch.Tensor, others: "Spellings") -> "Spellings":
        """These hypotheses where `chosen` (N,), the others' elsewhere."""
        mine, theirs = chosen[self.owners], ~chosen[others.owners]
        paths = self.paths.take(mine).join(others.paths.take(theirs))
        return Spellings(paths, torch.cat([self.owners[mine], others.owners[theirs]]), self.count)

    def append(self, prefix: CtcPrefix, words: Sequence[Sequence[Sequence[int]]]) -> "Spellings":
        """Each hypothesis with a word more, of which `words` are the spellings."""
        ways = [(row, labels) for row, owner in enumerate(self.owners.tolist()) for labels in words[owner]]
        rows = torch.tensor([row for row, _ in ways], device=self.owners.device)
        spelled = [torch.tensor(labels, dtype=torch.long) for _, labels in ways]
        labels = torch.nn.utils.rnn.pad_sequence(spelled, batch_first=True).to(rows.device)
        lens = torch.tensor([len(each) for each in spelled], device=rows.device)
        paths = append_chains(prefix, self.paths.take(rows), labels, lens)
        return replace(self, paths=paths, owners=self.owners[rows])._merged(prefix.labels)

    def _merged(self, labels: int) -> "Spellings":
        ends, groups = (self.owners * labels + self.paths.last).unique(return_inverse=True)
        if len(ends) == len(groups):
            return self
        return replace(self, paths=self.paths.merge(groups, len(ends)), owners=ends // labels)


@dataclass(frozen=True)
class WordState:
    """Rows (N,): what is scored, what would be with the open word, and the tokens of the open word."""

    scored: Spellings
    ahead: Spellings
    open: list[tuple[int, ...]]


class CtcWordScorer:
    """log-probability that the transcript begins with the complete words of a hypothesis, by CTC.

    Where one spelling of a word begins another both count, so that a word may add more than 0; but no text has in the
    end more than after any of its words, so that the bounds hold for the search.
    """

    bounds = (-torch.inf, 0.0)

    def __init__(
        self,
        prefix: CtcPrefix,
        spell: Callable[[tuple[int, ...]], Sequence[Sequence[int]]],
        starts: torch.Tensor,
        end_ids: Sequence[int],
    ) -> None:
        """`spell` gives the labels of the tokens of a word, in all its ways; `starts` (V,) which tokens begin one."""
        self.prefix, self.spell, self.starts = prefix, spell, starts
        self.ends = torch.tensor(end_ids, dtype=torch.long, device=prefix.lens.device)

    def start(self) -> WordState:
        """Nothing said yet."""
        paths = self.prefix.start()
        nothing = Spellings(paths, paths.utterances, len(paths.last))
        return WordState(nothing, nothing, [()] * nothing.count)

    def score_candidates(self, state: WordState, tokens: torch.Tensor) -> torch.Tensor:
        """Increments (B, K, C), float64; 0 inside a word."""
        flat = tokens.flatten(0, 1)
        before = state.scored.log_prefix()[:, None]
        scores = torch.where(self.starts[flat], state.ahead.log_prefix()[:, None], before)
        scores = torch.where(torch.isin(flat, self.ends), state.ahead.log_whole(self.prefix)[:, None], scores)
        return increments(scores, before).view_as(tokens)

    def advance(self, state: WordState, rows: torch.Tensor, tokens: torch.Tensor) -> WordState:
        """Close the word of a row whose token begins another, and spell the open one anew."""
        begun = self.starts[tokens.flatten()]
        rows = rows.flatten()
        scored = state.ahead.take(rows).where(begun, state.scored.take(rows))
        open_words = [
            (token,) if begins else (*state.open[row], token)
            for row, token, begins in zip(rows.tolist(), tokens.flatten().tolist(), begun.tolist(), strict=True)
        ]
        return WordState(scored, scored.append(self.prefix, [self.spell(word) for word in open_words]), open_words)
