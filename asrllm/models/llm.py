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


class LlmConfig(Config):
    """Where the LLM comes from."""

    model: str  # hub id, local folder, or path of a .gguf file
    dtype: Literal["fp32", "bf16"] = "fp32"  # of the weights in memory


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_llm(config: LlmConfig) -> nn.Module:
    """The pretrained model, in eval mode.

    Raises:
        UserError: nothing loads from there, a weight is missing or of another shape, or the model's head does more than
            one matrix product.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = Path(config.model)
    where: dict[str, Any] = {"dtype": DTYPES[config.dtype]}
    loader: Any = AutoModelForCausalLM  # its stubs know no second result
    if path.suffix == ".gguf":
        where["gguf_file"] = path.name
    try:
        source = str(path.parent) if path.suffix == ".gguf" else config.model
        llm, report = loader.from_pretrained(source, output_loading_info=True, ignore_mismatched_sizes=True, **where)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{config.model}: no causal LLM loads from this folder, file or hub id ({reason})") from None
    # The library leaves these as random numbers draw them.
    if lacking := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}):
        raise UserError(
            f"{config.model}: weights are missing or do not fit its config.json: {', '.join(lacking)}: fetch it again"
        )
    llm.eval()
    _check_head(llm, config.model)
    return llm


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


def width(llm: Any) -> int:
    """H, the width of the embeddings."""
    return int(llm.get_input_embeddings().weight.shape[1])
