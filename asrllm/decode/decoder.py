"""From a batch of utterances to their n-best lists, by the search that the configuration names.

It knows the model as a `SpeechModel` only; not experiments, not files.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import pydantic
import torch

from asrllm.batch import Batch
from asrllm.config import Config
from asrllm.decode.beam import Finished
from asrllm.decode.ctc_search import CtcGreedyConfig, CtcPrefixConfig, ctc_greedy, prefix_beam_search
from asrllm.decode.fusion import Fusion, FusionConfig, Pieces
from asrllm.decode.guards import Found, GuardsConfig, guarded
from asrllm.decode.hotword_prompt import HotwordPromptConfig
from asrllm.decode.joint import Companions, JointConfig, joint_search
from asrllm.decode.packed import packed
from asrllm.decode.scorer import Opening, SpeechModel, Tokenizer, encoded
from asrllm.decode.speculative import SpeculativeConfig, drafted_search
from asrllm.hypothesis import Hypothesis, NBest


class PretrainedConfig(Config):
    """A recogniser of transformers as it is (zero-shot): hub id or folder. It takes no part of an experiment."""

    type: Literal["pretrained"] = "pretrained"
    model: str


class DecodeConfig(Config):
    """How a data directory is decoded, and what is done against text that nobody said.

    `batch_seconds` is the audio decoded at once. `packed` lays the weights out anew for the CPU: a second copy of them
    in memory, about twice the speed (float32 only). `dtype: bfloat16` computes under autocast.
    """

    search: Annotated[
        CtcGreedyConfig | CtcPrefixConfig | FusionConfig | JointConfig | SpeculativeConfig | PretrainedConfig,
        pydantic.Field(discriminator="type"),
    ]
    guards: GuardsConfig = GuardsConfig()
    hotword_prompt: HotwordPromptConfig | None = None
    batch_seconds: float = pydantic.Field(60.0, gt=0.0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    packed: bool = True

    @pydantic.model_validator(mode="after")
    def _guarded(self) -> "DecodeConfig":
        name, on = self.search.type, self.guards
        if on != GuardsConfig() and isinstance(self.search, PretrainedConfig):
            raise ValueError("guards look at a CTC head, which search.type pretrained has not: leave them out")
        if on.loop is not None and not isinstance(self.search, JointConfig | SpeculativeConfig):
            raise ValueError(f"guards.loop stops an LLM that writes, which search.type {name} has not: leave it out")
        if on.ctc_agreement is not None and isinstance(self.search, CtcGreedyConfig | CtcPrefixConfig):
            raise ValueError(f"guards.ctc_agreement: search.type {name} gives the text of CTC itself: leave it out")
        if self.hotword_prompt is not None and not isinstance(self.search, JointConfig | SpeculativeConfig):
            raise ValueError(
                f"hotword_prompt is text for an LLM, which search.type {name} does not prompt: leave it out"
            )
        return self


@contextmanager
def prepared(model: torch.nn.Module, config: DecodeConfig) -> Iterator[None]:
    """Put `model` into eval mode, for good, and, within the block, on packed weights if the configuration says so."""
    model.eval()
    with packed(model) if config.packed and config.dtype == "float32" else nullcontext():
        yield


@dataclass(frozen=True)
class Decoder:
    """A model and how it is searched; beside the model a search of the LLM uses `companions`, fusion `pieces`.

    It keeps what the LLM has read of the prompt: make a new one where weights have changed.
    """

    model: SpeechModel
    config: DecodeConfig
    companions: Companions = Companions()
    pieces: Pieces | None = None
    sample_rate: int = 16000

    @cached_property
    def opening(self) -> Opening:
        """The model's text before the audio, read once for all batches."""
        shared = None if self.companions.hotword_prompt is None else self.model.prompt_line
        return Opening(self.model.llm, self.model.before(), shared)

    @torch.inference_mode()
    def decode(self, batch: Batch) -> list[NBest]:
        """Recognise a batch; one n-best list per utterance, in the order of the batch.

        Raises:
            UserError: the model cannot be searched, or gives what is not a number.
            ValueError: `search` is of type pretrained, which is no search of ours.
        """
        with torch.autocast(batch.wave_lens.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            hypotheses, counts = guarded(self.model, batch, self.config.guards, self._search)
        return [NBest(*each) for each in zip(batch.utt_ids, self._seconds(batch), hypotheses, counts, strict=True)]

    def _search(self, batch: Batch) -> Found:
        model, config, hints = self.model, self.config.search, None
        seconds, loop = self._seconds(batch), self.config.guards.loop
        counts: list[dict[str, int]] = [{} for _ in batch.utt_ids]
        if self.companions.hotword_prompt is not None:
            batch = encoded(model, batch)
            hints, counts = self.companions.hotword_prompt.hints(*model.ctc_log_probs(batch))
        match config:
            case CtcGreedyConfig():
                hypotheses = _ctc(model, batch)
            case CtcPrefixConfig():
                hypotheses = _ctc_prefix(model, batch, config)
            case FusionConfig():
                assert self.pieces is not None, "fusion wants an LM"
                hypotheses, counts = _fusion(model, batch, self.pieces)
            case JointConfig():
                beams, passes = joint_search(model, batch, config, seconds, self.companions, self.opening, loop, hints)
                counts = [one | other for one, other in zip(passes, counts, strict=True)]
                hypotheses = [[_spell(each, model.llm_tokenizer) for each in pool] for pool in beams]
            case SpeculativeConfig():
                best, passes = drafted_search(model, batch, config, seconds, self.opening, loop, hints)
                counts = [one | other for one, other in zip(passes, counts, strict=True)]
                hypotheses = [[_spell(each, model.llm_tokenizer)] for each in best]
            case PretrainedConfig():
                raise ValueError("a pretrained recogniser is run by transformers, not by a search")
        return hypotheses, counts

    def _seconds(self, batch: Batch) -> list[float]:
        return [length / self.sample_rate for length in batch.wave_lens.tolist()]


def _ctc(model: SpeechModel, batch: Batch) -> list[list[Hypothesis]]:
    paths = ctc_greedy(*model.ctc_log_probs(batch))
    return [[Hypothesis(model.ctc_tokenizer.decode(ids), total, {"ctc": total}, ids)] for ids, total in paths]


def _ctc_prefix(model: SpeechModel, batch: Batch, config: CtcPrefixConfig) -> list[list[Hypothesis]]:
    found = prefix_beam_search(*model.ctc_log_probs(batch), config)
    spell = model.ctc_tokenizer.decode
    return [
        [
            Hypothesis(spell(each.labels), each.log_prob, {"ctc": each.log_prob}, each.labels)
            for each in pool[: config.nbest]
        ]
        for pool in found
    ]


def _fusion(model: SpeechModel, batch: Batch, pieces: Pieces) -> tuple[list[list[Hypothesis]], list[dict[str, int]]]:
    log_probs, lens = model.ctc_log_probs(batch)
    fusion = Fusion(pieces, lens)
    hypotheses = fusion.finish(prefix_beam_search(log_probs, lens, pieces.config, fusion))
    counts = zip(fusion.lm_calls, fusion.lm_tokens, strict=True)
    return hypotheses, [{"lm_calls": calls, "lm_tokens": tokens} for calls, tokens in counts]


def _spell(found: Finished, tokenizer: Tokenizer) -> Hypothesis:
    text = tokenizer.decode(found.tokens).strip()
    return Hypothesis(text, found.score, found.scores, found.tokens, found.ended)
