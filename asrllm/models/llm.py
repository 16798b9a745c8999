"""Any causal language model of transformers, from a hub id, a local folder or a GGUF file.

It knows embeddings and logits, not audio. The body and the head are called apart, so that logits are computed only
where a target stands.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.flops import Flops
from asrllm.models.lora import LoraConfig


class LlmConfig(Config):
    """Where the LLM comes from, and the adapters on it."""

    model: str  # hub id, local folder, or path of a .gguf file
    dtype: Literal["fp32", "bf16"] = "fp32"  # of the weights in memory
    init: Literal["pretrained", "random"] = "pretrained"  # `random`: the shape alone is that of `model`
    seed: int = 0  # of random weights
    lora: LoraConfig | None = None


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_llm(config: LlmConfig) -> nn.Module:
    """The model without adapters, in eval mode.

    Raises:
        UserError: nothing loads from there, a weight is missing or of another shape, or the model's head does more than
            one matrix product.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    path, where = Path(config.model), {}
    source = config.model
    if path.suffix == ".gguf":
        source, where["gguf_file"] = str(path.parent), path.name
    load = _pretrained if config.init == "pretrained" else _random
    try:
        llm = load(config, source, where)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{config.model}: no causal LLM loads from this folder, file or hub id ({reason})") from None
    llm.eval()
    _check_head(llm, config.model)
    return llm


def _pretrained(config: LlmConfig, source: str, where: dict[str, str]) -> Any:
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM  # its stubs know no second result
    llm, report = loader.from_pretrained(
        source, dtype=DTYPES[config.dtype], output_loading_info=True, ignore_mismatched_sizes=True, **where
    )
    # The library leaves these as random numbers draw them.
    if lacking := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}):
        raise UserError(
            f"{config.model}: weights are missing or do not fit its config.json: {', '.join(lacking)}: fetch it again"
        )
    return llm


def _random(config: LlmConfig, source: str, where: dict[str, str]) -> Any:
    """Weights drawn as the library draws them for training from scratch, the same for the same seed."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = AutoConfig.from_pretrained(source, **where)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return AutoModelForCausalLM.from_config(shape, dtype=DTYPES[config.dtype])


def _check_head(llm: Any, name: str) -> None:
    """Refuse models that scale or cap their logits, which `logits` below does not know."""
    probe = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        whole = llm(probe).logits[0, -1].float()
        parts = logits(llm, llm.base_model(probe).last_hidden_state[:, -1])[0].float()
    if not torch.allclose(whole, parts, atol=1e-2, rtol=1e-2):
        raise UserError(f"{name}: this LLM changes its logits after the output layer, which is not supported")


def embed(llm: Any, ids: torch.Tensor) -> torch.Tensor:
    """Embeddings (..., H) of token ids (...)."""
    return llm.get_input_embeddings()(ids)


def logits(llm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits (..., V) of final hidden states (..., H)."""
    return llm.get_output_embeddings()(hidden)


def layers(llm: Any) -> list[nn.Module]:
    """The layers of the LLM's body, from the embeddings on."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [layer for layer in llm.base_model.modules() if isinstance(layer, GradientCheckpointingLayer)]


def width(llm: Any) -> int:
    """H, the width of the embeddings."""
    return int(llm.get_input_embeddings().weight.shape[1])


def flops(llm: Any, lens: torch.Tensor, past: int = 0, targets: int = 0) -> Flops:
    """Of rows with `lens` (B,) positions that follow `past` cached ones, and of logits at `targets` positions.

    A position attends to itself and to those before it, which is half of what a dense kernel executes. Dense models
    only: of a mixture of experts this counts no expert.
    """
    body, shape = llm.base_model, llm.config
    tables = {id(table.weight) for table in body.modules() if isinstance(table, nn.Embedding)}
    weights = sum(each.numel() for each in body.parameters() if each.ndim == 2 and id(each) not in tables)
    head_width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    rows = lens.double()
    pairs = float((rows * past + rows**2 / 2).sum())
    return Flops(
        weights=2 * weights * float(rows.sum()) + 2 * llm.get_output_embeddings().weight.numel() * targets,
        products=4 * shape.num_hidden_layers * shape.num_attention_heads * head_width * pairs,
    )
