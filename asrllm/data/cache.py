"""Outputs of a frozen encoder on disk: computed once, read in every epoch through a memory map.

A folder holds `frames.bin`, all frames one after another, and `index.json` with the key, the type, the width and where
each utterance lies. The key is the caller's hash of all that the outputs depend on: weights, features, audio. It knows
nothing of encoders.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch

from asrllm.console import UserError, write_atomically

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class FrameCache:
    """Frames (T, D) by utterance id in a folder that is whole or absent.

    Args:
        folder: of this cache alone.
        key: what the frames must have been computed from; a folder of another key counts as absent.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self._places: dict[str, list[int]] = {}  # utterance id -> first frame, frames
        self._frames: torch.Tensor | None = None
        self._map()

    @property
    def is_complete(self) -> bool:
        """Whether frames of this key can be read; if not, `write` them."""
        return self._frames is not None

    def __contains__(self, utt_id: object) -> bool:
        return utt_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def write(
        self, outputs: Iterable[tuple[str, torch.Tensor]], dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    ) -> None:
        """Write the frames (T, D) of all utterances, in place of whatever the folder held; at least one utterance."""
        self._frames = None
        places: dict[str, list[int]] = {}
        start, dim = 0, 0
        with write_atomically(self.folder) as temporary:
            temporary.mkdir()
            with (temporary / "frames.bin").open("wb") as stream:
                for utt_id, frames in outputs:
                    dim = frames.shape[1]
                    stored = frames.detach().to("cpu", _DTYPES[dtype]).contiguous()
                    stream.write(stored.view(torch.uint8).numpy().tobytes())
                    places[utt_id] = [start, len(frames)]
                    start += len(frames)
            index = {"key": self.key, "dtype": dtype, "dim": dim, "frames": start, "places": places}
            (temporary / "index.json").write_text(json.dumps(index))
        self._map()

    def get(self, utt_id: str) -> torch.Tensor:
        """Frames (T, D) of an utterance in the stored type: a view of the memory map, not to be written to.

        Raises:
            UserError: the cache is not complete, or lacks the utterance.
        """
        if self._frames is None or utt_id not in self._places:
            raise UserError(f"{self.folder}: no encoder outputs of utterance {utt_id}: delete this folder, start again")
        start, length = self._places[utt_id]
        return self._frames[start : start + length]

    def _map(self) -> None:
        """Map the file if the folder is there, of this key, and as long as its index says."""
        index = self._index()
        if index is None or index["key"] != self.key or not index["frames"]:
            return
        path, dtype = self.folder / "frames.bin", _DTYPES[index["dtype"]]
        size = index["frames"] * index["dim"]
        if not path.is_file() or path.stat().st_size != size * dtype.itemsize:
            return
        self._places = index["places"]
        self._frames = torch.from_file(str(path), shared=False, size=size, dtype=dtype).view(-1, index["dim"])

    def _index(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / "index.json").read_text())
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return None
