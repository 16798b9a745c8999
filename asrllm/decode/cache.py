"""The keys and values of a search: one tree of tokens for each utterance, shared by all its hypotheses.

The hypotheses of an utterance are K queries of one row, not K rows. Each token that one of them took is a column of the
cache, written once; which columns a hypothesis sees is its line of a mask. So the prefix is stored and read once per
utterance, and a change of hypotheses reorders a small mask instead of the cache.

It knows transformers' cache classes; not scores, not search.
"""

import torch
from transformers.cache_utils import Cache, DynamicLayer

SPARE_COLUMNS = 64  # taken at once when the storage is full: a whole copy at each step would cost more than attention


class TreeLayer(DynamicLayer):
    """Keys and values of one layer, (B, heads, columns, head size), in storage with columns to spare."""

    keys: torch.Tensor  # type: ignore[assignment]
    values: torch.Tensor  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.used = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new columns after those in use and return all in use (the signature is transformers')."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        start, self.used = self.used, self.used + key_states.shape[2]
        self.keys = _write(self.keys, key_states, start)
        self.values = _write(self.values, value_states, start)
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.used


class TreeCache(Cache):
    """The layers of one model, made as the model first writes to them."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=TreeLayer)

    def spread(self, rows: int) -> "TreeCache":
        """A cache in which each of `rows` utterances begins with what the one here has read."""
        grown = TreeCache()
        for layer in self.layers:
            assert isinstance(layer, TreeLayer)
            new = TreeLayer()
            new.update(*(each[:, :, : layer.used].expand(rows, -1, -1, -1) for each in (layer.keys, layer.values)))
            grown.layers.append(new)
        return grown

    def keep(self, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """Drop all but the utterances `rows` (B',) and, in each of them, `columns` (B', C')."""
        for layer in self.layers:
            assert isinstance(layer, TreeLayer)
            layer.keys = layer.keys[rows[:, None], :, columns].transpose(1, 2)
            layer.values = layer.values[rows[:, None], :, columns].transpose(1, 2)
            layer.used = columns.shape[1]


def _write(storage: torch.Tensor, new: torch.Tensor, start: int) -> torch.Tensor:
    end = start + new.shape[2]
    if end > storage.shape[2]:
        rows, heads, _, size = storage.shape
        grown = storage.new_empty(rows, heads, end + SPARE_COLUMNS, size)
        grown[:, :, :start] = storage[:, :, :start]
        storage = grown
    storage[:, :, start:end] = new
    return storage
