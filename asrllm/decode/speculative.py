"""Greedy decoding by a draft (speculative decoding, Leviathan et al. 2023): the CTC hypothesis, taken for the text.

The LLM reads prefix and draft in one pass. Where its own choice departs from the draft, its token is taken, and the
rest of the draft, found again by edit distance, is the guess for the next pass (ours). The result is that of greedy
search, whatever the draft; a good one saves nearly all passes.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import pydantic
import torch

from asrllm.batch import Batch
from asrllm.config import Config
from asrllm.decode.beam import BeamConfig, Finished
from asrllm.decode.ctc_search import ctc_greedy
from asrllm.decode.guards import LoopConfig, ends_in_loop
from asrllm.decode.joint import token_limit
from asrllm.decode.scorer import LlmScorer, LlmState, Opening, SpeechModel, encoded, llm_scorer


class SpeculativeConfig(Config):
    """Greedy search, drafted by the CTC head; limits as in `BeamConfig`."""

    type: Literal["speculative"] = "speculative"
    draft_tokens: int = pydantic.Field(32, ge=1)  # most tokens of the draft that one pass reads
    length_exponent: float = pydantic.Field(0.0, ge=0.0)
    tokens_per_second: float = pydantic.Field(10.0, gt=0.0)
    max_tokens: int = pydantic.Field(400, ge=1)

    @property
    def greedy(self) -> BeamConfig:
        """The search that gives the same result."""
        return BeamConfig.model_validate({"beam": 1} | self.model_dump(exclude={"type", "draft_tokens"}))


@dataclass
class _Text:
    """One utterance on its way."""

    draft: list[int]
    limit: int
    end_ids: frozenset[int]
    loop: LoopConfig | None = None
    tokens: list[int] = field(default_factory=list)
    total: float = 0.0
    distances: list[int] = field(init=False)  # from `tokens` to each prefix of the draft
    counts: dict[str, int] = field(default_factory=lambda: {"llm_calls": 0, "draft_tokens": 0, "draft_accepted": 0})

    def __post_init__(self) -> None:
        self.distances = list(range(len(self.draft) + 1))

    @property
    def done(self) -> bool:
        """Whether the text has ended, reached its limit or a loop."""
        if not self.tokens:
            return False
        stopped = self.tokens[-1] in self.end_ids or len(self.tokens) == self.limit
        return stopped or (self.loop is not None and bool(ends_in_loop(torch.tensor(self.tokens), self.loop)))

    def add(self, token: int, log_prob: float) -> None:
        """Take a token; the distances move on by one row of the table of Levenshtein."""
        self.tokens.append(token)
        self.total += log_prob
        old, new = self.distances, [self.distances[0] + 1]
        for place, guess in enumerate(self.draft):
            new.append(min(old[place] + (guess != token), old[place + 1] + 1, new[place] + 1))
        self.distances = new

    def guess(self, count: int) -> list[int]:
        """What the draft says comes next: its rest after the (longest) prefix that is most like the text."""
        nearest = min(self.distances)
        place = max(place for place, distance in enumerate(self.distances) if distance == nearest)
        return self.draft[place : place + min(count, self.limit - len(self.tokens) - 1)]

    def take(self, guess: list[int], chosen: list[int], log_probs: list[float]) -> int:
        """Go along the LLM's choices while they are the guess, and one further; returns how many guesses were right.

        `chosen[i]` follows the first i tokens of the guess.
        """
        self.counts["llm_calls"] += 1
        self.counts["draft_tokens"] += len(guess)
        right = 0
        for token, log_prob in zip(chosen, log_probs, strict=True):
            self.add(token, log_prob)
            matched = right < len(guess) and token == guess[right]
            right += matched
            if self.done or not matched:
                break
        self.counts["draft_accepted"] += right
        return right


def drafted_search(
    model: SpeechModel,
    batch: Batch,
    config: SpeculativeConfig,
    seconds: list[float],
    opening: Opening,
    loop: LoopConfig | None = None,
    hints: list[list[int]] | None = None,
) -> tuple[list[Finished], list[dict[str, int]]]:
    """`speculative_search` from the best path of the CTC head, for utterances of `seconds`; see `llm_scorer`."""
    limits = [token_limit(each, config.greedy) for each in seconds]
    batch = encoded(model, batch)
    paths = ctc_greedy(*model.ctc_log_probs(batch))
    drafts = [model.llm_tokenizer.encode_transcript(model.ctc_tokenizer.decode(labels)) for labels, _ in paths]
    scorer = llm_scorer(model, batch, max(limits), opening, hints)
    return speculative_search(scorer, drafts, model.llm_end_ids, limits, config, loop)


@torch.inference_mode()
def speculative_search(
    scorer: LlmScorer,
    drafts: list[list[int]],
    end_ids: list[int],
    limits: list[int],
    config: SpeculativeConfig,
    loop: LoopConfig | None = None,
) -> tuple[list[Finished], list[dict[str, int]]]:
    """The greedy text of each utterance, and what it took: LLM calls, tokens drafted, tokens accepted.

    Args:
        scorer: the LLM on its prefixes.
        drafts: tokens of each utterance, without an end token.
        end_ids: tokens that end a text.
        limits: most tokens for each utterance, end token included.
        config: how much of the draft is read at once, length exponent.
        loop: as in `beam_search`.
    """
    ends = frozenset(end_ids)
    texts = [_Text([*draft, end_ids[0]], limit, ends, loop) for draft, limit in zip(drafts, limits, strict=True)]
    guesses = [text.guess(config.draft_tokens) for text in texts]
    log_probs, state = scorer.start_with(guesses)
    first = len(scorer.opening) + scorer.lens
    live = list(range(len(texts)))
    while True:
        best, chosen = log_probs.max(dim=2)
        right = [
            texts[i].take(guess, row, values)
            for i, guess, row, values in zip(live, guesses, chosen.tolist(), best.tolist(), strict=True)
        ]
        state = _forget(state, first, torch.tensor(right, device=first.device))
        stay = [row for row, i in enumerate(live) if not texts[i].done]
        if not stay:
            break
        live = [live[row] for row in stay]
        state = scorer.select(state, torch.tensor(stay, device=first.device)[:, None])
        # The last token is the LLM's own and not in its cache yet: each pass reads it, then the guess.
        guesses = [texts[i].guess(config.draft_tokens) for i in live]
        rows = [[texts[i].tokens[-1], *guess] for i, guess in zip(live, guesses, strict=True)]
        width = max(map(len, rows))
        columns = state.visible.shape[2]
        tokens = torch.tensor([row + [row[-1]] * (width - len(row)) for row in rows], device=first.device)
        log_probs, state = scorer.read(tokens, state)
        first = torch.full((len(live),), columns + 1, device=first.device)
    return [_finish(text, config.length_exponent) for text in texts], [text.counts for text in texts]


def _forget(state: LlmState, first: torch.Tensor, kept: torch.Tensor) -> LlmState:
    """The state without the columns of wrong guesses: of those from `first` (B,) on, `kept` (B,) stay."""
    columns = torch.arange(state.visible.shape[2], device=first.device)
    visible = state.visible & (columns < (first + kept)[:, None])[:, None]
    return replace(state, visible=visible, positions=visible.sum(2)[:, 0])


def _finish(text: _Text, exponent: float) -> Finished:
    ended = text.tokens[-1] in text.end_ids
    score = text.total / len(text.tokens) ** exponent
    return Finished(text.tokens[:-1] if ended else text.tokens, score, {"llm": text.total}, ended)
