"""The cross-attention interface: gated blocks between the LLM's layers, with speech as keys and values.

A block is Flamingo's (Alayrac et al. 2022, section 2.2 and figure 4): attention, then a feed-forward layer, each added
through tanh of a gate that begins at zero, so that the LLM begins as it is without speech. The row of the LLM holds
text only. Ours: sinusoids tell the speech positions apart, and a learnt position of silence comes before them, so that
there is always something to hear.

It knows the LLM's layers as modules; not how their row is laid out, but for `models/packing.py`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pydantic
import torch
from torch import nn

from asrllm.batch import real
from asrllm.config import Config
from asrllm.console import UserError
from asrllm.flops import Flops, matrices
from asrllm.models import packing
from asrllm.models.attention import sinusoids
from asrllm.models.llm import layers, width


class CrossAttentionConfig(Config):
    """A block before every n-th layer of the LLM; it is trained with the projector, which learns nothing without."""

    type: Literal["cross_attention"]
    every: int = pydantic.Field(default=4, ge=1)
    heads: int = pydantic.Field(default=8, ge=1)
    feed_forward: int | None = pydantic.Field(default=None, ge=1)  # width of its hidden layer; four times the LLM's


@dataclass(frozen=True)
class Heard:
    """Speech as the blocks hear it; constant while text is read or searched."""

    keys: list[torch.Tensor]  # of each block (B, heads, P, head size)
    values: list[torch.Tensor]
    mask: torch.Tensor  # (B, P) True on real positions

    def select(self, rows: torch.Tensor) -> "Heard":
        """That of the utterances `rows` (B',)."""
        return Heard([each[rows] for each in self.keys], [each[rows] for each in self.values], self.mask[rows])


class CrossAttention(nn.Module):
    """The blocks of an LLM; the LLM's own tree stays as it is and calls them where it is given `heard`."""

    def __init__(self, config: CrossAttentionConfig, llm: Any) -> None:
        """Put new blocks, which change nothing yet, between the layers of `llm`.

        Raises:
            UserError: it has too few layers, its width is no multiple of the heads, or it keeps `heard` from them.
        """
        super().__init__()
        dim, chosen = width(llm), layers(llm)[config.every - 1 :: config.every]
        if not chosen:
            raise UserError(f"model.interface.every is {config.every}, but the LLM has {len(layers(llm))} layers")
        if dim % config.heads:
            raise UserError(f"model.interface.heads: {config.heads} heads do not share the LLM's width {dim} equally")
        self.norm = nn.RMSNorm(dim)
        self.silence = nn.Parameter(torch.zeros(dim))
        self.blocks: Any = nn.ModuleList(Block(dim, config.heads, config.feed_forward or 4 * dim) for _ in chosen)
        _check_passed_on(llm, chosen)
        for number, layer in enumerate(chosen):
            layer.register_forward_pre_hook(partial(self._before_layer, number), with_kwargs=True)

    def listen(self, speech: torch.Tensor, lens: torch.Tensor) -> Heard:
        """Keys and values of speech (B, P, H) with `lens` (B,) real positions, may be 0."""
        speech = torch.cat([self.silence.expand(len(speech), 1, -1), self.norm(speech.float())], 1)
        size = speech.shape[1]
        speech = speech + sinusoids(size, speech.shape[2], speech.device)[:size].flip(0).to(speech.dtype)
        pairs = [block.listen(speech) for block in self.blocks]
        return Heard([key for key, _ in pairs], [value for _, value in pairs], real(lens + 1, size))

    def _before_layer(self, number: int, _layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if (heard := kwargs.get("heard")) is None:
            return None
        hidden, *rest = args
        own = heard.keys[number], heard.values[number], heard.mask
        return (self.blocks[number](hidden, *own, kwargs.get("layout")), *rest), kwargs

    def flops(self, lens: torch.Tensor, speech_lens: torch.Tensor) -> Flops:
        """Of texts of `lens` (B,) positions that hear `speech_lens` (B,) positions."""
        heard, texts = speech_lens.double() + 1, lens.double()
        keys = sum(matrices(block.key) + matrices(block.value) for block in self.blocks)
        rest = matrices(self) - keys
        pairs = float((texts * heard).sum())
        return Flops(
            weights=2 * (rest * float(texts.sum()) + keys * float(heard.sum())),
            products=4 * len(self.blocks) * len(self.silence) * pairs,
        )


class Block(nn.Module):
    """Gated cross-attention and a gated feed-forward layer."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.RMSNorm(dim)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.gate = nn.Parameter(torch.zeros(1))  # a row of one: FSDP2 splits no scalars
        self.feed = nn.Sequential(nn.RMSNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.feed_gate = nn.Parameter(torch.zeros(1))

    def listen(self, speech: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (B, heads, P, head size) of speech (B, P, H)."""
        return self._split(self.key(speech)), self._split(self.value(speech))

    def forward(
        self,
        hidden: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor,
        layout: packing.Layout | None,
    ) -> torch.Tensor:
        """What a layer of the LLM is given instead of `hidden` (B, L, H), or (1, positions, H) of a packed row."""
        text = hidden.float()  # the residual stream of an LLM in bfloat16 as well
        query = self._split(self.query(self.norm(text)))
        if layout is None:
            mixed = _attend(query, keys, values, mask)
        else:
            rows = zip(*(each.split(layout.at_once) for each in (keys, values, mask)), strict=True)
            pieces = query.split([group.size for group in layout.groups], 2)
            mixed = torch.cat(
                [
                    packing.lie(_attend(packing.stand(piece, group), *row), group)
                    for group, piece, row in zip(layout.groups, pieces, rows, strict=True)
                ],
                1,
            )
        text = text + self.gate.tanh() * self.out(mixed.flatten(2))
        return (text + self.feed_gate.tanh() * self.feed(text)).to(hidden.dtype)

    def _split(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, L, heads, head size) of queries (B, heads, L, head size); fused attention has a slow gradient on a CPU."""
    scores = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5
    shares = scores.float().masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
    return (shares.to(values.dtype) @ values).transpose(1, 2)


def _check_passed_on(llm: Any, chosen: list[nn.Module]) -> None:
    """Refuse an LLM whose layers are not given what its body is given."""
    seen = []

    def see(_layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(len(args) > 0 and "heard" in kwargs)

    handles = [layer.register_forward_pre_hook(see, with_kwargs=True) for layer in chosen]
    with torch.no_grad():
        llm.base_model(torch.tensor([[1]], device=llm.device), heard=None)
    for handle in handles:
        handle.remove()
    if len(seen) != len(chosen) or not all(seen):
        raise UserError(f"{type(llm).__name__} keeps the speech from its layers: choose model.interface.type prefix")
