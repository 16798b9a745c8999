"""Speech LLM decoding by a weighted sum of scores: LLM, CTC, an external LM, a prior, the length (papers: joint CTC and
attention decoding, Hori et al. 2017; with an LLM, Watanabe's prefix scores on the tokens it proposes).

It knows the model as a `SpeechModel`; not files.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import pydantic
import torch
from transformers import PreTrainedModel

from asrllm.batch import Batch
from asrllm.config import Config
from asrllm.console import UserError
from asrllm.decode.beam import BeamConfig, Finished, beam_search
from asrllm.decode.ctc_prefix import CtcPrefix
from asrllm.decode.ctc_scorer import Chains, CtcScorer
from asrllm.decode.ctc_words import CtcWordScorer
from asrllm.decode.guards import LoopConfig
from asrllm.decode.hotword_prompt import HotwordPrompt
from asrllm.decode.hotwords import HotwordScorer, HotwordTree
from asrllm.decode.scorer import CandidateScorer, LlmScorer, Opening, Scorer, SpeechModel, encoded, llm_scorer
from asrllm.text.lexicon import Lexicon
from asrllm.text.spelling import Words, first_space, spell_tokens
from asrllm.text.tokenizer import SentencePieceTokenizer

SHORTEST_LIMIT = 8  # tokens that even the shortest audio may take: a word spelled out and the end token


class Weights(Config):
    """What the score of a hypothesis is a sum of; a term without a weight is not computed, 0 only keeps its score."""

    llm: float = pydantic.Field(default=1.0, gt=0.0)
    ctc: float | None = pydantic.Field(default=None, ge=0.0)  # log-probability of the CTC head
    lm: float | None = None  # log-probability of the language model `lm`
    ilm: float | None = None  # log-probability of the LLM without the speech; below zero it is divided out
    prior: float | None = pydantic.Field(default=None, le=0.0)  # log prior of the CTC labels, divided out
    length: float | None = None  # 1 for each token but the end: above zero a reward
    hotword: float | None = None  # 1 for each letter of a phrase of the list `hotwords`

    def given(self) -> dict[str, float]:
        """Those that are there."""
        return {name: weight for name, weight in self.model_dump().items() if weight is not None}


class JointConfig(BeamConfig):
    """Beam search over the LLM's tokens with a sum of scores.

    Where a weight of `lm` or `ilm` is below zero, nothing bounds what a longer hypothesis may gain, and the search goes
    on to the token limit.
    """

    type: Literal["beam"] = "beam"
    weights: Weights = Weights()
    lm: str | None = None  # hub id or folder of a causal LM with the LLM's vocabulary
    lexicon: str | None = None  # for phonemes with weights.ctc: `dictionary`, or a file of words and their phonemes
    hotwords: str | None = None  # file of phrases that are likely to be said, one a line

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "JointConfig":
        for name, weight in (("lm", "lm"), ("hotwords", "hotword")):
            keys = {name: getattr(self, name), f"weights.{weight}": getattr(self.weights, weight)}
            given = [key for key, value in keys.items() if value is not None]
            if len(given) == 1:
                raise ValueError(f"{given[0]} is given, but not {(keys.keys() - given).pop()}")
        if self.lexicon is not None and self.weights.ctc is None:
            raise ValueError("lexicon is given, but not weights.ctc")
        return self


class TokenTable:
    """What each token adds, wherever it stands; an end token adds nothing."""

    def __init__(self, adds: torch.Tensor, end_ids: list[int]) -> None:
        """Read `adds` (V,) float64."""
        self.adds = adds.index_fill(0, torch.tensor(end_ids, device=adds.device), 0.0)
        self.bounds = (self.adds.min().item(), self.adds.max().item())

    def start(self) -> None:
        """It remembers nothing."""

    def score_candidates(self, state: None, tokens: torch.Tensor) -> torch.Tensor:
        """(B, K, C)."""
        return self.adds[tokens]

    def advance(self, state: None, rows: torch.Tensor, tokens: torch.Tensor) -> None:
        """It remembers nothing."""


@dataclass(frozen=True)
class Companions:
    """What a search uses beside the model, if its weights ask for it."""

    lm: Any = None  # a causal LM of transformers
    log_prior: torch.Tensor | None = None  # of the CTC labels, see `decode/prior.py`
    hotwords: HotwordTree | None = None
    hotword_prompt: HotwordPrompt | None = None
    lexicon: Lexicon | None = None


def joint_search(
    model: SpeechModel,
    batch: Batch,
    config: JointConfig,
    seconds: list[float],
    companions: Companions,
    opening: Opening,
    loop: LoopConfig | None = None,
    hints: list[list[int]] | None = None,
) -> tuple[list[list[Finished]], list[dict[str, int]]]:
    """The n best hypotheses of each utterance of `seconds`, and how many LLM calls they took.

    `opening` and `hints` as in `llm_scorer`, `loop` as in `beam_search`. Without the speech the LLM has no hints.

    Raises:
        UserError: units or vocabularies that cannot be joined; see also `beam_search`.
    """
    limits = [token_limit(each, config) for each in seconds]
    least = [max(config.min_tokens, int(config.min_tokens_per_second * each)) for each in seconds]
    weights, device = config.weights.given(), batch.wave_lens.device
    batch = encoded(model, batch)
    scorers: dict[str, Scorer[Any]] = {"llm": llm_scorer(model, batch, max(limits), opening, hints)}
    if "lm" in weights:
        assert companions.lm is not None, "the configuration names a language model"
        scorers["lm"] = _lm_scorer(companions.lm, model, len(batch), max(limits))
    if "ilm" in weights:
        scorers["ilm"] = llm_scorer(model, _silence(batch), max(limits), opening)
    raters: dict[str, CandidateScorer[Any]] = {}
    if "ctc" in weights:
        raters["ctc"] = ctc_scorer(model, CtcPrefix(*model.ctc_log_probs(batch)), companions.lexicon)
    if "prior" in weights:
        assert companions.log_prior is not None, "the configuration asks for a prior"
        raters["prior"] = TokenTable(_chains(model).sums(companions.log_prior.to(device)), model.llm_end_ids)
    if "length" in weights:
        ones = torch.ones(_size(model.llm), dtype=torch.float64, device=device)
        raters["length"] = TokenTable(ones, model.llm_end_ids)
    if "hotword" in weights:
        assert companions.hotwords is not None, "the configuration names hotwords"
        raters["hotword"] = HotwordScorer(companions.hotwords, model.llm_end_ids, len(batch), device)
    calls: list[int] = []
    found = beam_search(scorers, weights, model.llm_end_ids, limits, config, raters, least, loop, calls)
    return found, [{"llm_calls": each} for each in calls]


def token_limit(seconds: float, config: BeamConfig) -> int:
    """Most tokens, end token included, for audio of `seconds`."""
    return min(config.max_tokens, max(SHORTEST_LIMIT, math.ceil(config.tokens_per_second * seconds)))


def ctc_scorer(model: SpeechModel, prefix: CtcPrefix, lexicon: Lexicon | None = None) -> CtcScorer | CtcWordScorer:
    """The CTC head's say on the tokens of the LLM, in the way that its units allow; `lexicon` if they are phonemes.

    Raises:
        UserError: they allow none.
    """
    if lexicon is not None or isinstance(model.ctc_tokenizer, SentencePieceTokenizer):
        texts: tuple[Any, Any] = (lexicon or model.ctc_tokenizer, model.llm_tokenizer)
        words = _words(*texts)
        starts = torch.tensor([token in words.starts for token in range(_size(model.llm))], device=prefix.lens.device)
        return CtcWordScorer(prefix, words.spell, starts, model.llm_end_ids)
    return CtcScorer(prefix, _chains(model), model.llm_end_ids)


def _chains(model: SpeechModel) -> Chains:
    texts: tuple[Any, Any] = (model.ctc_tokenizer, model.llm_tokenizer)
    return _spelled(*texts, _size(model.llm)).to(model.llm.device)


@lru_cache(maxsize=1)
def _spelled(units: Any, tokens: Any, size: int) -> Chains:
    return Chains(spell_tokens(units, tokens), size, first_space(units))


@lru_cache(maxsize=1)
def _words(units: Any, tokens: Any) -> Words:
    return Words(units, tokens)


def _silence(batch: Batch) -> Batch:
    """The batch with no frame but padding."""
    assert batch.frames is not None and batch.frame_lens is not None
    return replace(batch, frames=batch.frames[:, :1], frame_lens=torch.zeros_like(batch.frame_lens))


def _lm_scorer(lm: PreTrainedModel, model: SpeechModel, utterances: int, limit: int) -> LlmScorer:
    """The language model, from the token that begins its texts on."""
    if _size(lm) != _size(model.llm):
        raise UserError(
            f"the language model has {_size(lm)} tokens and the LLM {_size(model.llm)}: "
            "choose one with the LLM's own tokenizer"
        )
    begin = next(each for each in (lm.config.bos_token_id, lm.config.eos_token_id) if each is not None)
    embeds = lm.get_input_embeddings()(torch.tensor([[begin]], device=lm.device)).expand(utterances, -1, -1)
    return LlmScorer(lm, embeds, torch.ones(utterances, dtype=torch.long, device=lm.device), limit)


def _size(llm: Any) -> int:
    """V, by the output layer."""
    return int(llm.get_output_embeddings().weight.shape[0])
