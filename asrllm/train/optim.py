"""AdamW over the parts of a phase, its state, its learning-rate schedule, random seeds, precision.

It knows parameters and steps; not losses, not data.
"""

import math
import random
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from asrllm import dist
from asrllm.train.stage import Phase


def make_optimizer(
    phase: Phase, parts: Mapping[str, nn.Module], betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); each group carries its `part` and `peak` rate.

    Biases and norms, which have at most one dimension, do not decay.
    """
    groups = []
    for part, peak in phase.train.items():
        weights = list(parts[part].parameters())
        decayed, plain = [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim <= 1]
        for chosen, decay in ((decayed, weight_decay), (plain, 0.0)):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "part": part, "peak": peak, "lr": peak})
    return torch.optim.AdamW(groups, betas=betas, fused=True)


def rate_factor(phase: Phase, step: int, place: float, warmed: float) -> float:
    """Share of the peak rate at `step` (from 0): linear warm-up, then constant or half a cosine.

    Args:
        phase: its warm-up, schedule and lowest rate.
        step: of the phase.
        place: of the step in the phase's budget, 0 to 1.
        warmed: the place at which the warm-up ended.
    """
    if step < phase.warmup_steps:
        return (step + 1) / phase.warmup_steps
    if phase.schedule == "constant":
        return 1.0
    done = (place - warmed) / max(1 - warmed, 1e-9)
    low = phase.final_rate_share
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Give every group its peak rate times `factor`; returns the rate of each part."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return {group["part"]: group["lr"] for group in optimizer.param_groups}


def gather_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a checkpoint holds of an optimizer, the same however its weights are split; whole on rank 0 alone."""
    tree = optimizer.state_dict()
    moments = {number: {key: dist.gather(each) for key, each in own.items()} for number, own in tree["state"].items()}
    return {"state": moments, "param_groups": [group | {"foreach": None} for group in tree["param_groups"]]}


def load_state(optimizer: torch.optim.Optimizer, tree: dict[str, Any]) -> None:
    """Go on from a state; each process takes its share of what is as large as a weight."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = {
        number: {
            key: dist.split_like(each, weights[number]) if each.shape == weights[number].shape else each
            for key, each in own.items()
        }
        for number, own in tree["state"].items()
    }
    pairs = zip(tree["param_groups"], optimizer.param_groups, strict=True)
    groups = [group | {"foreach": own["foreach"]} for group, own in pairs]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def seed_everything(*key: int) -> None:
    """Set all random generators from whole numbers such as (seed, step, rank).

    A step that seeds itself so needs no stored random state to be repeated exactly.
    """
    value = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)  # seeds every CUDA device, too


def pick_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """What `auto` means on a device: bf16 where its arithmetic is in hardware."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"
