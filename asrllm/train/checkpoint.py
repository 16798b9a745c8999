"""Weights by part, checkpoints that are whole or absent, averages of them, and what a finished experiment is.

A checkpoint is a folder `step-N` with `weights.safetensors` (`part/name` -> tensor), `figures.json` (validation) and,
in the latest one only, `state.pt` (optimizer and position). It knows files and tensors; not models or training.
"""

import json
import math
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from asrllm import dist
from asrllm.console import UserError, sweep, write_atomically

Tensors = dict[str, torch.Tensor]


def is_finished(exp: Path) -> bool:
    """Whether an experiment has its final weights and its summary."""
    return (exp / "weights.safetensors").is_file() and (exp / "summary.json").is_file()


def part_weights(module: nn.Module) -> Tensors:
    """Weights and persistent buffers of a part; of names tied to one tensor only the first."""
    seen: set[int] = set()
    weights: Tensors = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            weights[name] = tensor.detach()
    return weights


def gather(parts: Mapping[str, nn.Module], names: Collection[str]) -> Tensors:
    """Weights of the named parts, keyed `part/name`; of those that are split over processes, all on rank 0 alone.

    All processes have to call it.
    """
    return {
        f"{part}/{key}": dist.gather(value)
        for part in parts
        if part in names
        for key, value in part_weights(parts[part]).items()
    }


def load_part(module: nn.Module, tensors: Mapping[str, torch.Tensor], part: str, where: str = "weights") -> None:
    """Copy the tensors of `part` (keys `part/name`) into its module, strictly.

    Args:
        module: the part, of the same configuration as the stored one.
        tensors: of any number of parts.
        part: the name of the part.
        where: names the file in errors.

    Raises:
        UserError: lists weights that are missing, unknown or of another shape.
    """
    own = part_weights(module)
    prefix = f"{part}/"
    given = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if not given:
        there = sorted({key.partition("/")[0] for key in tensors})
        raise UserError(f"{where}: holds no weights of part {part!r}, only of {', '.join(there) or 'nothing'}")
    faults = {
        "missing": [key for key in own if key not in given],
        "unknown": [key for key in given if key not in own],
        "of another shape": [
            f"{key} (found {tuple(given[key].shape)}, expected {tuple(own[key].shape)})"
            for key in own
            if key in given and given[key].shape != own[key].shape
        ],
    }
    said = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in faults.items() if keys)
    if said:
        raise UserError(f"{where}: the weights of part {part!r} do not fit this configuration: {said}")
    given = {key: dist.split_like(value, own[key]) for key, value in given.items()}
    module.load_state_dict(given, strict=False)  # the names were checked above; tied ones are given once


def read_weights(path: Path) -> Tensors:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        UserError: no such file, or not a whole one.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file: train that experiment first")
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}): delete it and train again") from None


def write_weights(tensors: Tensors, path: Path) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    with write_atomically(path) as temporary:
        safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
        temporary.chmod(0o644)  # safetensors lets nobody else read


class Checkpoints:
    """The folder `exp/checkpoints`.

    Args:
        folder: made when the first checkpoint is saved.
        best_by: the validation figure that ranks them; names that end in `accuracy` are better when higher.
        keep: how many of the best are kept beside the latest.
    """

    def __init__(self, folder: Path, best_by: str, keep: int) -> None:
        self.folder, self.best_by, self.keep = folder, best_by, keep

    def save(self, step: int, weights: Tensors, state: dict[str, Any], figures: Mapping[str, float | int]) -> None:
        """Write the checkpoint of a step; then remove what is neither the latest nor among the best."""
        folder = self.folder / f"step-{step}"
        with write_atomically(folder) as temporary:
            temporary.mkdir()
            write_weights(weights, temporary / "weights.safetensors")
            (temporary / "figures.json").write_text(json.dumps(dict(figures), indent=1) + "\n")
            with (temporary / "state.pt").open("wb") as stream:
                torch.save(state, stream)
        self._prune(step)

    def sweep(self) -> None:
        """Remove what a killed process left half-written, or was about to remove."""
        sweep(self.folder)
        for folder in self.folder.glob(".step-*.gone"):
            shutil.rmtree(folder)
        if (step := self._resumable()) is not None:
            self._prune(step)

    def steps(self) -> list[int]:
        """Steps of all whole checkpoints, ascending."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def latest(self) -> tuple[Tensors, dict[str, Any]] | None:
        """Weights and state to resume from; None before the first checkpoint."""
        step = self._resumable()
        if step is None:
            return None
        folder = self.folder / f"step-{step}"
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        return read_weights(folder / "weights.safetensors"), state

    def best(self, count: int) -> list[int]:
        """Up to `count` steps of the last phase that were validated, best first; of equals the later."""
        figures = {step: self._figures(step) for step in self.steps()}
        last = max((each["phase"] for each in figures.values()), default=0)
        sign = -1 if self.best_by.endswith("accuracy") else 1
        ranked = [
            (sign * each[self.best_by] if math.isfinite(each[self.best_by]) else math.inf, -step)
            for step, each in figures.items()
            if each["phase"] == last and self.best_by in each
        ]
        return [-step for _, step in sorted(ranked)[:count]]

    def average(self, steps: Iterable[int]) -> Tensors:
        """The mean of the weights of some checkpoints, summed in float64; whole numbers are those of the latest."""
        steps = sorted(steps)
        sums: Tensors = {}
        for step in steps:
            weights = read_weights(self.folder / f"step-{step}" / "weights.safetensors")
            for key, value in weights.items():
                sums[key] = sums[key] + value.double() if value.is_floating_point() and key in sums else _wide(value)
        return {
            key: (sums[key] / len(steps)).to(weights[key].dtype) if sums[key].is_floating_point() else sums[key]
            for key in sums
        }

    def _resumable(self) -> int | None:
        with_state = [step for step in self.steps() if (self.folder / f"step-{step}" / "state.pt").is_file()]
        return with_state[-1] if with_state else None

    def _figures(self, step: int) -> dict[str, Any]:
        return json.loads((self.folder / f"step-{step}" / "figures.json").read_text())

    def _prune(self, latest: int) -> None:
        kept = {latest, *self.best(self.keep)}
        for step in self.steps():
            folder = self.folder / f"step-{step}"
            if step != latest:
                (folder / "state.pt").unlink(missing_ok=True)
            if step not in kept:
                # Renamed before it is emptied: a folder named step-N is always whole.
                gone = folder.with_name(f".{folder.name}.gone")
                os.replace(folder, gone)
                shutil.rmtree(gone)


def _wide(value: torch.Tensor) -> torch.Tensor:
    return value.double() if value.is_floating_point() else value


def check_same_config(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> None:
    """Refuse to continue an interrupted run under another configuration.

    Raises:
        UserError: names every key that differs, with both values.
    """
    before, now = _flat(old, ""), _flat(new, "")
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        said = "; ".join(f"{key} was {before.get(key)!r}, is now {now.get(key)!r}" for key in differing)
        raise UserError(
            f"{where}: a run of another configuration is here ({said}): restore these values, or give another --exp"
        )


def _flat(tree: Any, prefix: str) -> dict[str, Any]:
    """Leaves of nested mappings and lists by dotted path."""
    if isinstance(tree, Mapping) and tree:
        items: Iterable[tuple[Any, Any]] = tree.items()
    elif isinstance(tree, (list, tuple)) and tree:
        items = enumerate(tree)
    else:
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for key, value in items:
        leaves |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves
