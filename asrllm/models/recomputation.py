"""Activation checkpointing (Chen et al. 2016): blocks that keep their input alone and run again for their gradient.

Memory for a third more time: of a stack of blocks only the inputs are kept, and the activations of one block at a time.
It knows blocks of a Conformer and of transformers' models.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from asrllm.models import conformer
from asrllm.models.cross_attention import Block


def recompute(part: nn.Module) -> int:
    """Let every block of `part` run again for its gradient, for good; how many there are."""
    found = blocks(part)
    for block in found:
        vars(block)["forward"] = partial(_run, block.forward)
    return len(found)


def blocks(part: nn.Module) -> list[Any]:
    """The layers of a stack, in their order."""
    kinds = (GradientCheckpointingLayer, conformer.Block, Block)
    return [block for block in part.modules() if isinstance(block, kinds)]


def _run(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)
