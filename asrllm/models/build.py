"""The one place that turns configuration into modules: a new component is its file and one `case` here."""

from functools import partial
from typing import Annotated, Any, Literal

import pydantic
from torch import nn

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.models.attention_decoder import AttentionDecoder, DecoderConfig
from asrllm.models.conformer import Conformer, ConformerConfig
from asrllm.models.cross_attention import CrossAttention, CrossAttentionConfig
from asrllm.models.ctc import CtcHead
from asrllm.models.frontend import FbankConfig, LogMel
from asrllm.models.llm import LlmConfig, embed, load_llm, width
from asrllm.models.lora import attach
from asrllm.models.posterior import PosteriorConfig, PosteriorProjector
from asrllm.models.prefix import PrefixConfig
from asrllm.models.pretrained import PretrainedConfig, PretrainedEncoder
from asrllm.models.projector import (
    ConvConfig,
    ConvProjector,
    LinearConfig,
    LinearProjector,
    TransformerConfig,
    TransformerProjector,
)
from asrllm.models.qformer import QFormerProjector, SegmentQFormerConfig, WindowQFormerConfig
from asrllm.models.recomputation import recompute
from asrllm.models.speech_llm import Language, SpeechLLM
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.prompt import PromptConfig, tokenize
from asrllm.text.tokenizer import LlmSubsetTokenizer, Tokenizer, characters

ProjectorConfig = Annotated[
    LinearConfig | ConvConfig | TransformerConfig | WindowQFormerConfig | SegmentQFormerConfig | PosteriorConfig,
    pydantic.Field(discriminator="type"),
]


class ModelConfig(Config):
    """The parts of a model; without `llm` it is an encoder with a CTC head."""

    encoder: ConformerConfig | PretrainedConfig | FbankConfig = pydantic.Field(discriminator="type")
    decoder: DecoderConfig | None = None  # for the loss `attention`
    projector: ProjectorConfig | None = None
    llm: LlmConfig | None = None
    interface: PrefixConfig | CrossAttentionConfig = pydantic.Field(default=PrefixConfig(), discriminator="type")
    intermediate_units: Literal["same", "character"] = "same"  # of the loss ctc_intermediate
    blank_penalty: float = 0.0  # nats off the CTC head's blank; tuned on held-out speech where it loses words
    prompt: PromptConfig = PromptConfig()
    recompute: tuple[Literal["encoder", "llm", "cross"], ...] = ()  # activations made again for the gradient, not kept

    @pydantic.model_validator(mode="after")
    def _together(self) -> "ModelConfig":
        if (self.projector is None) != (self.llm is None):
            raise ValueError("projector and llm are given together or not at all")
        if self.llm is None and self.interface.type != "prefix":
            raise ValueError("interface is given, but no llm")
        for part in self.recompute:
            if part not in self.parts:
                raise ValueError(f"recompute names {part}, but the model has no such part")
        if "encoder" in self.recompute and getattr(self.encoder, "convolution_norm", None) == "batch":
            raise ValueError("recompute counts a batch twice for encoder.convolution_norm batch: choose layer")
        return self

    @property
    def parts(self) -> list[str]:
        """The names of the parts that `build` makes."""
        names = ["encoder", "ctc", *(["decoder"] if self.decoder else [])]
        if self.llm is not None:
            names += ["projector", "llm", *(["llm.lora"] if self.llm.lora else [])]
            names += ["cross"] if self.interface.type == "cross_attention" else []
        return names

    @property
    def given_parts(self) -> dict[str, str]:
        """Those of them whose first weights come from a pretrained model, and from which."""
        given = {"encoder": self.encoder.model} if isinstance(self.encoder, PretrainedConfig) else {}
        if self.llm is not None and self.llm.init == "pretrained":
            given["llm"] = self.llm.model
        return given


def build(config: ModelConfig, units: Tokenizer) -> SpeechLLM:
    """The model with pretrained weights where a part has some, random ones elsewhere."""
    model = _build(config, units)
    for part in config.recompute:
        recompute(model.parts[part])
    model.recomputed = {*config.recompute, *(["llm.lora"] if "llm" in config.recompute else [])}
    return model


def _build(config: ModelConfig, units: Tokenizer) -> SpeechLLM:
    encoder: nn.Module
    match config.encoder:
        case ConformerConfig():
            encoder = Conformer(config.encoder)
        case PretrainedConfig():
            encoder = PretrainedEncoder(config.encoder)
        case FbankConfig():
            encoder = LogMel(config.encoder)
    lower = characters(units) if config.intermediate_units == "character" else units
    lower_size = None if lower is units else lower.size
    ctc = CtcHead(encoder.dim, units.size, lower_size, blank_penalty=config.blank_penalty)
    decoder = AttentionDecoder(config.decoder, encoder.dim, units.size) if config.decoder else None
    if config.llm is None or config.projector is None:
        return SpeechLLM(Language(units, lower, None, None), encoder, ctc, None, None, decoder=decoder)
    llm = load_llm(config.llm)
    tokens = LlmTokenizer(config.llm.model)
    projector = _projector(config.projector, encoder.dim, llm, units, tokens)
    adapters = attach(llm, config.llm.lora) if config.llm.lora else None
    language = Language(units, lower, tokens, tokenize(config.prompt, tokens))
    cross = CrossAttention(config.interface, llm) if config.interface.type == "cross_attention" else None
    return SpeechLLM(language, encoder, ctc, projector, llm, adapters, cross, decoder)


def _projector(config: ProjectorConfig, dim: int, llm: Any, units: Tokenizer, tokens: LlmTokenizer) -> nn.Module:
    match config:
        case LinearConfig():
            return LinearProjector(config, dim, width(llm))
        case ConvConfig():
            return ConvProjector(config, dim, width(llm))
        case TransformerConfig():
            return TransformerProjector(config, dim, width(llm))
        case WindowQFormerConfig() | SegmentQFormerConfig():
            return QFormerProjector(config, dim, width(llm))
        case PosteriorConfig():
            if not isinstance(units, LlmSubsetTokenizer):
                raise UserError("projector.type posterior wants CTC units of the LLM: train them with type: llm_subset")
            if not units.llm.same_vocabulary(tokens):
                raise UserError("model.llm: the CTC units are tokens of another LLM: train them with this one")
            return PosteriorProjector(config, dim, width(llm), units, partial(embed, llm))
