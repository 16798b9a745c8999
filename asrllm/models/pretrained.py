"""Pretrained speech encoders from a transformers folder or hub id: Whisper, Moonshine, wav2vec 2.0, HuBERT, WavLM.

Takes raw audio and computes the features a model was trained on by itself. The result of an utterance does not depend
on its batch mates, which the library's own padded batches do not guarantee. Knows nothing of training or of text.
"""

import logging
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.flops import Flops
from asrllm.models.frontend import SpecAugmentConfig

KINDS = ("whisper", "moonshine", "wav2vec2", "hubert", "wavlm")


class PretrainedConfig(Config):
    """A pretrained encoder; its kind is told by the `model_type` in its config.json."""

    type: Literal["pretrained"]
    model: str  # folder in transformers' form, or hub id
    whisper_padding: Literal["pad_30s", "cut"] = "pad_30s"  # Whisper only; stored, since decoding has to equal training
    specaugment: SpecAugmentConfig | None = None  # Whisper only; while the encoder is trained
    intermediate_layers: tuple[int, ...] = ()  # Whisper only; counted from 1, for the loss `ctc_intermediate`


class PretrainedEncoder(nn.Module):
    """A pretrained encoder without its decoder: raw 16 kHz audio in, frames out.

    Weights are float32. Raises UserError where the model is missing, of an unknown kind or lacks a weight.
    """

    sample_rate = 16000

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.encoder = load(config)
        self.dim: int = self.encoder.dim
        self.intermediate_layers = config.intermediate_layers

    def output_lens(self, wave_lens: torch.Tensor) -> torch.Tensor:
        """Frames (B,) that recordings of `wave_lens` (B,) samples give."""
        return self.encoder.output_lens(wave_lens)

    def flops(self, wave_lens: torch.Tensor) -> Flops:
        """Of one batch of recordings (B,) that many samples long."""
        return self.encoder.flops(wave_lens)

    def forward(self, waves: torch.Tensor, wave_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`waves` (B, S) with `wave_lens` (B,) -> frames (B, T, D), zero past each end, and frame_lens (B,)."""
        return self.encoder(waves, wave_lens)

    def with_intermediate(
        self, waves: torch.Tensor, wave_lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Frames, lengths, and the frames after each of `intermediate_layers`."""
        return self.encoder.with_intermediate(waves, wave_lens, self.intermediate_layers)


def load(config: PretrainedConfig) -> Any:
    """The encoder of `config.model` as a module of its kind (loading is strict)."""
    import transformers

    kind = model_type(config.model)
    if kind not in KINDS:
        raise UserError(
            f"encoder.model: {config.model} is of model_type {kind!r}, which is not a supported speech encoder: "
            f"expected one of {', '.join(KINDS)}"
        )
    for name in ("modeling_utils", "distributed.tensor_parallel"):  # what they would warn of is checked below
        logging.getLogger(f"transformers.{name}").setLevel(logging.ERROR)
    try:
        model, report = transformers.AutoModel.from_pretrained(
            config.model, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, SafetensorError) as error:
        raise UserError(f"encoder.model: no weights load from {config.model} ({error}): fetch it again") from None
    check_weights(config.model, report)
    match kind:
        case "whisper":
            from asrllm.models.whisper import WhisperEncoder

            return WhisperEncoder(model, config.whisper_padding, config.specaugment)
        case "moonshine":
            from asrllm.models.moonshine import MoonshineEncoder

            return MoonshineEncoder(model)
    from asrllm.models.wav2vec2 import Wav2Vec2Encoder

    return Wav2Vec2Encoder(model, normalize=wants_normalized_audio(config.model))


def model_type(model: str) -> str:
    """The `model_type` of a folder or hub id."""
    import transformers

    try:
        return str(transformers.AutoConfig.from_pretrained(model).model_type)
    except (OSError, ValueError) as error:
        raise UserError(
            f"encoder.model: {model} is neither a folder with a config.json that transformers knows nor a model that "
            "the hub can give here: run the recipe's local/prepare.py, which fetches it, or correct the name"
        ) from error


def check_weights(model: str, report: dict[str, Any]) -> None:
    """Raise UserError if a weight of the encoder was not in the files, or one in the files found no place."""
    missing = [key for key in report["missing_keys"] if not key.endswith("masked_spec_embed")]
    unused = [key for key in report["unexpected_keys"] if "encoder." in key]
    wrong = [*missing, *unused, *map(str, report["mismatched_keys"]), *report["error_msgs"]]
    if wrong:
        raise UserError(f"encoder.model: the weights in {model} do not fit its config.json: {', '.join(sorted(wrong))}")


def wants_normalized_audio(model: str) -> bool:
    """Whether the model's feature extractor makes recordings zero-mean and unit-variance."""
    import transformers

    try:
        features = transformers.AutoFeatureExtractor.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(
            f"encoder.model: {model} lacks preprocessor_config.json, which says how audio is scaled"
        ) from error
    if features.sampling_rate != PretrainedEncoder.sample_rate:
        raise UserError(f"encoder.model: {model} wants {features.sampling_rate} Hz, expected a model for 16000 Hz")
    return bool(features.do_normalize)
