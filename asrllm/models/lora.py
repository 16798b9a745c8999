"""Low-rank adapters (LoRA, Hu et al. 2021) on the linear layers of an LLM, by peft.

The adapters are a module of their own: the LLM's tree, its weights and their names stay those of the LLM without
adapters, so that either side is frozen, trained, stored and loaded by itself. It knows neither training nor files.
"""

from typing import Any, Literal

import pydantic
import torch
from torch import nn

from asrllm.config import Config
from asrllm.console import UserError

ADAPTER = "default"  # peft's name for the only set of adapters


class LoraConfig(Config):
    """Adapters of rank `rank` beside some linear layers, scaled by alpha / rank, with rsLoRA by alpha / sqrt(rank)."""

    rank: int = pydantic.Field(default=16, ge=1)
    alpha: float = pydantic.Field(default=32.0, gt=0)
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)  # of what an adapter reads, while it is trained
    rslora: bool = False  # Kalajdzievski 2023
    targets: Literal["all_linear"] | tuple[str, ...] = ("q_proj", "v_proj")  # names of layers; never the output layer


def attach(llm: Any, config: LoraConfig) -> nn.Module:
    """Put new adapters, which change nothing yet, on `llm` in place; returns them as a module in float32.

    Its weights are named as in peft's files: `model.layers.0.self_attn.q_proj.lora_A.weight`.

    Raises:
        UserError: peft is not installed, or a target is no linear layer of this LLM.
    """
    try:
        import peft
    except ImportError:
        raise UserError("model.llm.lora: needs the package peft: run tools/install.sh") from None
    _check_targets(llm, config)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # a whole number by its annotation alone
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        target_modules="all-linear" if config.targets == "all_linear" else list(config.targets),
        task_type="CAUSAL_LM",
    )
    trainable = [weight.requires_grad for weight in llm.parameters()]
    peft.inject_adapter_in_model(settings, llm, ADAPTER)
    adapters = nn.Module()
    for name, layer in _adapted(llm):
        place = _place(adapters, name)
        for kind in ("lora_A", "lora_B", "lora_dropout"):
            # peft reads these as attributes; taken out of the LLM's tree they are no weights of the LLM.
            vars(layer)[kind] = held = layer._modules.pop(kind)
            place.add_module(kind, held[ADAPTER])
    for weight, wanted in zip(llm.parameters(), trainable, strict=True):
        weight.requires_grad_(wanted)  # peft froze them, which is not for a model to decide
    llm.register_state_dict_post_hook(_name_as_without)
    llm.register_load_state_dict_pre_hook(_take_names_without)
    return adapters.float().train(llm.training)


@torch.no_grad()
def merge(llm: Any) -> None:
    """Add the adapters to the weights beside them and take them off, in place.

    Raises:
        UserError: a merged weight is not a number.
    """
    for name, layer in _adapted(llm):
        try:
            layer.merge(safe_merge=True)
        except ValueError:
            raise UserError(f"the adapter of {name} is not finite: its training failed") from None
        llm.set_submodule(name, layer.get_base_layer())
    del llm.peft_config


def _check_targets(llm: Any, config: LoraConfig) -> None:
    """Refuse names that are no linear layer of the LLM's body (peft wants only one of them to be there)."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's

    linear = {name for name, layer in llm.base_model.named_modules() if isinstance(layer, (nn.Linear, Conv1D))}
    for target in () if config.targets == "all_linear" else config.targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            there = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise UserError(f"model.llm.lora.targets: no layer of the LLM's body is called {target!r}: it has {there}")


def _adapted(llm: nn.Module) -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return [(name, layer) for name, layer in llm.named_modules() if isinstance(layer, LoraLayer)]


def _place(root: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path, made where it is missing."""
    for name in path.split("."):
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def _name_as_without(_llm: nn.Module, weights: dict[str, Any], prefix: str, _: object) -> None:
    """Leave the name of peft's wrapper out of the keys of a state dict; the order stays."""
    whole = dict(weights)
    weights.clear()
    weights.update({key.replace(".base_layer.", ".") if key.startswith(prefix) else key: whole[key] for key in whole})


def _take_names_without(llm: nn.Module, weights: dict[str, Any], prefix: str, *_: object) -> None:
    """Give the keys of a state dict the name of peft's wrapper, where there is one."""
    for name, _layer in _adapted(llm):
        for kind in ("weight", "bias"):
            if (key := f"{prefix}{name}.{kind}") in weights:
                weights[f"{prefix}{name}.base_layer.{kind}"] = weights.pop(key)
