"""What gives scores to the search: two protocols, and the LLM as a scorer.

A scorer is made for one batch of utterances. It sees rows (B, K): K hypotheses for each of B utterances, K alike for
all. It does not know of beams, limits or other scorers. A `Scorer` gives the scores of all tokens and so proposes how a
hypothesis may go on; a `CandidateScorer` only scores what was proposed.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from asrllm.batch import Batch, causal, pad, real
from asrllm.console import UserError
from asrllm.decode.cache import TreeCache

State = TypeVar("State")


class Tokenizer(Protocol):
    """Token ids back to text."""

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`."""


class CtcTokenizer(Tokenizer, Protocol):
    """The units of the CTC head."""

    def encode(self, text: str) -> list[int]:
        """Labels of a text; a UserError where it cannot be written in them."""


class LlmTokenizer(Tokenizer, Protocol):
    """The tokens of the LLM."""

    def encode_template(self, text: str) -> list[int]:
        """The tokens of a piece of the prompt."""

    def encode_transcript(self, text: str) -> list[int]:
        """The tokens that the LLM writes for a transcript, without an end token."""


class SpeechModel(Protocol):
    """The part of a speech LLM that decoding calls."""

    @property
    def llm(self) -> Any:
        """A causal LM of transformers."""

    @property
    def llm_end_ids(self) -> list[int]:
        """The tokens that end a transcript."""

    @property
    def llm_tokenizer(self) -> LlmTokenizer:
        """The units of the LLM."""

    @property
    def ctc_tokenizer(self) -> CtcTokenizer:
        """The units of the CTC head; 0 is its blank."""

    def before(self) -> torch.Tensor:
        """Embeddings (P, H) of the text that every prefix begins with; P may be 0."""

    @property
    def prompt_line(self) -> int:
        """Positions of `before` on lines above that of the audio."""

    def prefix(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, L, H) from there to the transcript, zeros past the end, and their lengths (B,), at least 1."""

    def heard(self, batch: Batch) -> "Heard | None":
        """What the LLM hears beside the prefix, by cross-attention; None without."""

    def encode(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder frames (B, T, D) and lengths (B,); those in the batch if it carries some."""

    def ctc_log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Frame-wise log-probabilities (B, T, V) and lengths (B,)."""


class Heard(Protocol):
    """Speech that an LLM with cross-attention hears, constant over the search."""

    def select(self, rows: torch.Tensor) -> "Heard":
        """That of the utterances `rows` (B',)."""


class Scorer(Protocol[State]):
    """One term of the score of a hypothesis. States are values: a method returns a new one and the old one is spent."""

    bounds: tuple[float, float]  # the least and the most that one token can add

    def start(self) -> tuple[torch.Tensor, State]:
        """Scores (B, 1, V) of the first token, and the state of B rows with no token yet."""

    def score(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Append `tokens` (B, K) to the rows; scores (B, K, V) of the token after, and the new state."""

    def select(self, state: State, rows: torch.Tensor) -> State:
        """The state whose row (b, k) goes on from the flat row `rows[b, k]` = utterance * K + hypothesis.

        `rows` is (B', K'): utterances may leave (B' <= B, order kept), the number of hypotheses may change.
        """


class CandidateScorer(Protocol[State]):
    """A term that would be too dear for a whole vocabulary. An end token is a candidate like any other."""

    bounds: tuple[float, float]  # the least and the most that one token can add

    def start(self) -> State:
        """The state of B rows (B, 1) with no token yet."""

    def score_candidates(self, state: State, tokens: torch.Tensor) -> torch.Tensor:
        """What each of `tokens` (B, K, C) would add to its row; -inf where it cannot follow."""

    def advance(self, state: State, rows: torch.Tensor, tokens: torch.Tensor) -> State:
        """The state whose row (b, k) is the flat row `rows[b, k]`, see `Scorer.select`, and `tokens[b, k]` after it."""


@dataclass(frozen=True)
class LlmState:
    """Where the LLM stands: the tree of each utterance and each hypothesis' view of it."""

    cache: TreeCache
    visible: torch.Tensor  # (B, K, columns) bool: the columns of the cache that are this hypothesis' past
    positions: torch.Tensor  # (B,) int64: position of the next token, the same for all hypotheses of an utterance
    heard: Heard | None = None


class Opening:
    """What all prefixes of a decoding begin with: read once for all batches, so by weights that stay."""

    def __init__(self, llm: PreTrainedModel, embeds: torch.Tensor, shared: int | None = None) -> None:
        """`embeds` (P, H); P may be 0. Where utterances have hints they share the first `shared` positions only."""
        self.llm, self.embeds = llm, embeds[:shared]
        self.rest = embeds[len(self.embeds) :]  # (P - shared, H), between an utterance's hint and its prefix
        self._read: TreeCache | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    def cache(self, rows: int, dtype: torch.dtype) -> TreeCache:
        """One in which `rows` utterances have read it, as embeddings of `dtype`, always the same."""
        if not len(self):
            return TreeCache()
        if self._read is None:
            self._read = TreeCache()
            self.llm.base_model(inputs_embeds=self.embeds[None].to(dtype), past_key_values=self._read, use_cache=True)
        return self._read.spread(rows)


class LlmScorer:
    """log p(token | prefix, tokens before) of a causal LM, by one pass over the prefixes and one per token after.

    The model runs its own attention, under a 4-D mask and explicit positions, so the result is that of the model on the
    whole sequence without padding. Refused are models for which this cannot hold.
    """

    bounds = (-torch.inf, 0.0)

    def __init__(
        self,
        llm: PreTrainedModel,
        embeds: torch.Tensor,
        lens: torch.Tensor,
        max_tokens: int,
        heard: Heard | None = None,
        opening: Opening | None = None,
    ) -> None:
        """Score continuations of `opening`, then `embeds` (B, L, H), real up to `lens` (B,).

        At most `max_tokens` tokens follow. `heard` is handed to the layers of the model in every pass but that over
        `opening`, which is the same for all utterances.

        Raises:
            UserError: the model keeps a state that cannot be branched, or its context is too short.
        """
        self.opening = opening or Opening(llm, embeds.new_zeros(0, embeds.shape[2]))
        check_llm(llm, len(self.opening) + int(lens.max()) + max_tokens)
        self.llm = llm
        self.embeds = embeds
        self.lens = lens
        self.heard = heard

    def start(self) -> tuple[torch.Tensor, LlmState]:
        """Read all prefixes; padding lies behind the real positions, so causal attention never sees it."""
        return self._read_prefixes(self.embeds, self.lens, (self.lens - 1)[:, None])

    def start_with(self, drafts: list[list[int]]) -> tuple[torch.Tensor, LlmState]:
        """Read all prefixes and after each its draft; scores (B, 1 + most tokens, V) from the prefix' end on."""
        embed, device = self.llm.get_input_embeddings(), self.embeds.device
        rows = [
            torch.cat([row[:size], embed(torch.tensor(draft, dtype=torch.long, device=device)).to(row.dtype)])
            for row, size, draft in zip(self.embeds, self.lens.tolist(), drafts, strict=True)
        ]
        embeds, lens = pad(rows)
        where = self.lens[:, None] - 1 + torch.arange(1 + max(map(len, drafts)), device=device)
        return self._read_prefixes(embeds, lens.to(device), where)

    def score(self, tokens: torch.Tensor, state: LlmState) -> tuple[torch.Tensor, LlmState]:
        """Add a column for each token; a hypothesis sees its past and its own column."""
        rows, beam = tokens.shape
        own = torch.eye(beam, dtype=torch.bool, device=tokens.device).expand(rows, -1, -1)
        visible = torch.cat([state.visible, own], dim=2)
        log_probs = self._read(tokens, visible, state.positions[:, None].expand(-1, beam), state)
        return log_probs, replace(state, visible=visible, positions=state.positions + 1)

    def read(self, tokens: torch.Tensor, state: LlmState) -> tuple[torch.Tensor, LlmState]:
        """Append a chain of `tokens` (B, n) to the one hypothesis of each utterance; scores (B, n, V) after each."""
        rows, count = tokens.shape
        own = torch.ones(count, count, dtype=torch.bool, device=tokens.device).tril().expand(rows, -1, -1)
        visible = torch.cat([state.visible.expand(-1, count, -1), own], dim=2)
        positions = state.positions[:, None] + torch.arange(count, device=tokens.device)
        log_probs = self._read(tokens, visible, positions, state)
        return log_probs, replace(state, visible=visible[:, -1:], positions=state.positions + count)

    def _read(
        self, tokens: torch.Tensor, visible: torch.Tensor, positions: torch.Tensor, state: LlmState
    ) -> torch.Tensor:
        """Scores (B, n, V) after `tokens` (B, n), of which each sees its line of `visible` (B, n, columns)."""
        mask = torch.zeros(visible.shape, dtype=self.embeds.dtype, device=tokens.device)
        mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)
        output = self.llm(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask[:, None],
            past_key_values=state.cache,
            use_cache=True,
            heard=state.heard,
        )
        return _log_probs(output.logits)

    def _read_prefixes(
        self, embeds: torch.Tensor, lens: torch.Tensor, where: torch.Tensor
    ) -> tuple[torch.Tensor, LlmState]:
        """Scores (B, m, V) at the positions `where` (B, m) of `embeds`, real up to `lens`."""
        rows, size, _ = embeds.shape
        cache, shared = self.opening.cache(rows, embeds.dtype), len(self.opening)
        positions = torch.arange(shared, shared + size, device=embeds.device).expand(rows, -1)
        places = where.clamp(max=size - 1)[..., None]

        def keep_some(head: nn.Module, hidden: tuple[torch.Tensor]) -> torch.Tensor:
            """The head is most of the work at a position: give it only those that are asked for."""
            return hidden[0].gather(1, places.expand(-1, -1, hidden[0].shape[2]))

        handle = self.llm.get_output_embeddings().register_forward_pre_hook(keep_some)
        try:
            output = self.llm(
                inputs_embeds=embeds,
                position_ids=positions,
                attention_mask=causal(shared, size, embeds) if shared else None,
                past_key_values=cache,
                use_cache=True,
                heard=self.heard,
            )
        finally:
            handle.remove()
        visible = nn.functional.pad(real(lens, size), (shared, 0), value=True)
        return _log_probs(output.logits), LlmState(cache, visible[:, None], shared + lens, self.heard)

    def select(self, state: LlmState, rows: torch.Tensor) -> LlmState:
        """Reorder the mask; touch the cache only when utterances leave or half of its columns are dead."""
        utterances, beam, size = state.visible.shape
        visible = state.visible.flatten(0, 1)[rows]
        alive = visible.any(dim=1)
        needed = int(alive.sum(dim=1).max())
        if len(rows) == utterances and size <= 2 * needed:
            return replace(state, visible=visible)
        kept = rows[:, 0] // beam
        columns = alive.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :needed]
        state.cache.keep(kept, columns)
        visible = visible.gather(2, columns[:, None].expand(-1, visible.shape[1], -1))
        heard = None if state.heard is None else state.heard.select(kept)
        return LlmState(state.cache, visible, state.positions[kept], heard)


def encoded(model: SpeechModel, batch: Batch) -> Batch:
    """The batch with its frames, so that nobody encodes it again."""
    frames, lens = model.encode(batch)
    return replace(batch, frames=frames, frame_lens=lens)


def llm_scorer(
    model: SpeechModel,
    batch: Batch,
    max_tokens: int,
    opening: Opening,
    hints: list[list[int]] | None = None,
) -> LlmScorer:
    """The LLM of `model` after its prompt, which begins with `opening`, and the speech of `batch`.

    `hints`: tokens of each utterance, after what the opening shares.
    """
    embeds, lens = model.prefix(batch)
    if hints is not None or len(opening.rest):
        embeds, lens = _hinted(opening, embeds, lens, hints or [[]] * len(batch))
    return LlmScorer(model.llm, embeds, lens, max_tokens, model.heard(batch), opening)


def _hinted(
    opening: Opening, embeds: torch.Tensor, lens: torch.Tensor, hints: list[list[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each prefix of `embeds` (B, L, H), real up to `lens` (B,), after its hint and the rest of the opening."""
    embed = opening.llm.get_input_embeddings()
    ids = [torch.tensor(hint, dtype=torch.long, device=embeds.device) for hint in hints]
    rows = [
        torch.cat([embed(hint).to(embeds.dtype), opening.rest.to(embeds.dtype), row[:size]])
        for hint, row, size in zip(ids, embeds, lens.tolist(), strict=True)
    ]
    longer, longer_lens = pad(rows)
    return longer, longer_lens.to(lens.device)


def check_llm(llm: PreTrainedModel, size: int) -> None:
    """Refuse an LLM whose `size` positions cannot be searched exactly.

    Raises:
        UserError: says what the model has that the search cannot branch.
    """
    config = llm.config.get_text_config()
    name = type(llm).__name__
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    strange = kinds - {"full_attention", "sliding_attention"}
    if strange or not llm._supports_attention_backend:
        what = f"layers of type {', '.join(sorted(strange))}" if strange else "an attention of its own"
        raise UserError(f"{name} has {what}, which beam search cannot branch: choose an LLM with plain attention")
    if config._attn_implementation not in ("sdpa", "eager", "asrllm_packed"):  # the last is sdpa outside of training
        raise UserError(f"{name} runs {config._attn_implementation}, which takes no mask of ours: load it with sdpa")
    limits = {
        "window": window if "sliding_attention" in kinds else None,
        "context": getattr(config, "max_position_embeddings", None),
    }
    for what, limit in limits.items():
        if limit is not None and size > limit:
            raise UserError(
                f"{name} has a {what} of {limit} positions, but prefix and token limit together are {size}: "
                "cut the audio into shorter segments or lower max_tokens"
            )


def _log_probs(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits, dim=-1, dtype=torch.float32)
