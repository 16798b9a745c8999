"""Sequence packing: the utterances of a batch behind each other in one row, without padding between them (ours).

The row begins with positions that all utterances share, the text before the audio; then each utterance has its own. It
sees the shared positions and its own past, and counts its positions from the shared ones on. So all layers but
attention run on real positions only and the shared text runs once, whatever is trained: the result and its gradients
are those of every utterance alone.

It knows transformers' interface for attention; not what the positions hold.
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from asrllm.batch import causal
from asrllm.console import UserError

IMPLEMENTATION = "asrllm_packed"  # the name under which transformers knows `attend`


@dataclass(frozen=True)
class Group:
    """Neighbours in the row that attention puts side by side, (G, L) with padding at the ends."""

    size: int  # positions of all of them
    places: torch.Tensor  # (G, L) int64: which of these positions stands there, any past an utterance's end
    real: torch.Tensor  # (size,) int64: where in the flat (G * L) a position stands
    mask: torch.Tensor  # (1, 1, L, shared + L), added to scores: 0 for what a position sees


@dataclass(frozen=True)
class Layout:
    """Who is who in a row of shared + sum(lens) positions."""

    shared: int
    lens: list[int]  # own positions of each utterance
    positions: torch.Tensor  # (1, positions) int64, counted per utterance
    shared_mask: torch.Tensor  # (1, 1, shared, shared)
    at_once: int  # utterances of a group, but for the last
    groups: list[Group]


def lay_out(shared: int, lens: list[int], like: torch.Tensor, at_once: int | None = None) -> Layout:
    """The layout of a row on the device of `like`, with masks of its type.

    Attention is computed for `at_once` utterances at a time; if that is not given, on a CPU for one, elsewhere for all.
    """
    device = like.device
    step = at_once or (1 if device.type == "cpu" else len(lens))
    members = [lens[first : first + step] for first in range(0, len(lens), step)]
    own = [torch.arange(shared, shared + size, device=device) for size in lens]
    positions = torch.cat([torch.arange(shared, device=device), *own])[None]
    groups = [_group(shared, each, like) for each in members]
    return Layout(shared, lens, positions, causal(0, shared, like), step, groups)


def _group(shared: int, lens: list[int], like: torch.Tensor) -> Group:
    longest = max(lens)
    sizes = torch.tensor(lens, device=like.device)[:, None]
    steps = torch.arange(longest, device=like.device)
    places = sizes.cumsum(0) - sizes + steps.minimum(sizes - 1)
    return Group(sum(lens), places, (steps < sizes).flatten().nonzero()[:, 0], causal(shared, longest, like))


def use(llm: Any) -> None:
    """Let `llm` run its attention through `attend` from now on.

    Raises:
        UserError: it has an attention of its own.
    """
    if not llm._supports_attention_backend:
        raise UserError(f"{type(llm).__name__} has an attention of its own: choose an LLM with transformers' attention")
    llm.set_attn_implementation(IMPLEMENTATION)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Attention (1, positions, heads, head size) over a row of the given layout; plain attention where there is none.

    Args:
        module: the model's attention layer.
        query: (1, heads, positions, head size).
        key: (1, key heads, positions, head size), as `value`.
        value: see `key`.
        attention_mask: not read where there is a layout.
        layout: of the row.
        sliding_window: positions that the layer sees.
        settings: scaling, dropout and what else the model's own attention is called with.

    Raises:
        UserError: an utterance is longer than the window of the layer.
    """
    # Fused attention has a slow gradient on a CPU: 16 utterances of 54 positions in bfloat16 take 17 ms a layer, matrix
    # products 3 ms (one thread of an AMD EPYC); and it cannot cap scores. The model's own are beside its class.
    by_products = torch.is_grad_enabled() and query.device.type == "cpu" or settings.get("softcap") is not None
    inner = sys.modules[type(module).__module__].eager_attention_forward if by_products else sdpa_attention_forward
    if layout is None:
        return inner(module, query, key, value, attention_mask, sliding_window=sliding_window, **settings)
    longest = layout.shared + max(layout.lens)
    if sliding_window is not None and longest > sliding_window:
        raise UserError(
            f"an utterance makes {longest} positions, the LLM has a window of {sliding_window}: lower "
            "data.batch.max_seconds_utterance"
        )
    sizes = [layout.shared, *(group.size for group in layout.groups)]
    (shared_query, *queries), (shared_key, *keys), (shared_value, *values) = (
        each.split(sizes, 2) for each in (query, key, value)
    )
    mixed = []
    if layout.shared:
        mixed.append(inner(module, shared_query, shared_key, shared_value, layout.shared_mask, **settings)[0])
    for group, *own in zip(layout.groups, queries, keys, values, strict=True):
        one, other, third = (stand(each, group) for each in own)
        other, third = _behind(shared_key, other), _behind(shared_value, third)
        mixed.append(lie(inner(module, one, other, third, group.mask, **settings)[0], group))
    return torch.cat(mixed, 1), None


def stand(heads: torch.Tensor, group: Group) -> torch.Tensor:
    """(1, heads, size, d) as (G, heads, L, d)."""
    return heads if len(group.places) == 1 else heads[0][:, group.places].transpose(0, 1)


def lie(mixed: torch.Tensor, group: Group) -> torch.Tensor:
    """(G, L, heads, d) as (1, size, heads, d)."""
    return mixed if len(group.places) == 1 else mixed.flatten(0, 1)[group.real][None]


def _behind(shared: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The keys or values that an utterance sees."""
    return torch.cat([shared.expand(len(own), -1, -1, -1), own], 2)


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
