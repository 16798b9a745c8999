"""CTC as a term of the search where a token of the LLM has no spelling of its own in the CTC's units (sentencepiece).

A word is scored when it is complete: with the token that begins the next word, or with the end. Until then it adds
nothing, so that hypotheses with and without an open word compare unfairly (ours; a chain of labels is better where one
can be had).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from asrllm.decode.ctc_prefix import CtcPrefix, Paths
from asrllm.decode.ctc_scorer import append_chains, increments


@dataclass(frozen=True)
class WordState:
    """Rows (N,): what is scored, what would be with the open word, and the tokens of the open word."""

    scored: Paths
    ahead: Paths
    open: list[tuple[int, ...]]


class CtcWordScorer:
    """log-probability that the transcript begins with the complete words of a hypothesis, by CTC."""

    bounds = (-torch.inf, 0.0)

    def __init__(
        self,
        prefix: CtcPrefix,
        spell: Callable[[tuple[int, ...]], list[int]],
        starts: torch.Tensor,
        end_ids: Sequence[int],
    ) -> None:
        """`spell` gives the labels of the tokens of a word; `starts` (V,) says which tokens begin one."""
        self.prefix, self.spell, self.starts = prefix, spell, starts
        self.ends = torch.tensor(end_ids, dtype=torch.long, device=prefix.lens.device)

    def start(self) -> WordState:
        """Nothing said yet."""
        paths = self.prefix.start()
        return WordState(paths, paths, [()] * len(paths.last))

    def score_candidates(self, state: WordState, tokens: torch.Tensor) -> torch.Tensor:
        """Increments (B, K, C), float64; 0 inside a word."""
        flat = tokens.flatten(0, 1)
        before = state.scored.log_prefix[:, None]
        scores = torch.where(self.starts[flat], state.ahead.log_prefix[:, None], before)
        scores = torch.where(torch.isin(flat, self.ends), self.prefix.log_whole(state.ahead)[:, None], scores)
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
        spelled = [torch.tensor(self.spell(word), dtype=torch.long) for word in open_words]
        labels = torch.nn.utils.rnn.pad_sequence(spelled, batch_first=True).to(rows.device)
        lens = torch.tensor([len(word) for word in spelled], device=rows.device)
        return WordState(scored, append_chains(self.prefix, scored, labels, lens), open_words)
