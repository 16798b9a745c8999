"""Checkpoints are whole or absent; loading is strict; averages are means."""

import errno
import os
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from asrllm import console
from asrllm.bin import average
from asrllm.console import UserError
from asrllm.train import checkpoint
from asrllm.train.checkpoint import Checkpoints


def one(value: float, count: int = 1) -> checkpoint.Tensors:
    return {"head/w": torch.full((2, 3), float(value)), "head/count": torch.tensor(count)}


def full_fsync(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_safetensors(tensors: object, path: object) -> None:
    raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("owner", "name", "fault"), [(os, "fsync", full_fsync), (safetensors.torch, "save_file", full_safetensors)]
)
def test_a_full_disk_is_a_sentence_and_leaves_the_old(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    owner: object,
    name: str,
    fault: object,
) -> None:
    store = Checkpoints(tmp_path, "loss", 1)
    store.save(1, one(1.0), {"step": 1}, {"phase": 1, "loss": 2.0})
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(SystemExit) as end:
        console.run(lambda: store.save(2, one(2.0), {"step": 2}, {"phase": 1, "loss": 1.0}))
    assert end.value.code == 1
    assert "no space left on the disk" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    weights, state = store.latest()
    assert state == {"step": 1} and weights["head/w"].eq(1.0).all()


def test_torch_tells_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torch.save hides the system's error in a chain; the sentence must come all the same."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")

    def save() -> None:
        with open("/dev/full", "wb", buffering=0) as stream:
            torch.save({"w": torch.zeros(1000)}, stream)

    with pytest.raises(SystemExit):
        console.run(save)
    assert "no space left on the disk" in capsys.readouterr().err


def test_the_latest_with_its_state_and_the_best_of_the_last_phase_are_kept(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, "near_accuracy", 2)
    figures = [(1, 0.9), (2, 0.5), (2, 0.7), (2, 0.6), (2, 0.1)]
    for step, (phase, accuracy) in enumerate(figures, 1):
        store.save(step, one(step), {"step": step}, {"phase": phase, "near_accuracy": accuracy})
    store.save(6, one(6), {"step": 6}, {"phase": 2})  # without validation
    assert store.steps() == [3, 4, 6] and store.best(5) == [3, 4]
    assert [path.parent.name for path in tmp_path.glob("*/state.pt")] == ["step-6"]
    assert store.latest()[1] == {"step": 6}


def test_a_validation_that_is_not_finite_ranks_last(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, "loss", 5)
    for step, loss in enumerate([float("nan"), 3.0, float("inf"), 2.0], 1):
        store.save(step, one(step), {}, {"phase": 1, "loss": loss})
    assert store.best(2) == [4, 2]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, "loss", 1)
    store.save(1, one(1.0), {}, {"phase": 1, "loss": 1.0})
    for name in (".step-2.99999999.part", ".step-0.gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(b"half")
    assert store.steps() == [1]
    store.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_average_program(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "checkpoints", "loss", 5)
    for step, loss in enumerate([3.0, 1.0, 2.0], 1):
        store.save(step, one(step, step), {}, {"phase": 1, "loss": loss})
    checkpoint.write_weights({"llm/w": torch.ones(1), "head/w": torch.zeros(2, 3)}, tmp_path / "weights.safetensors")
    average.main(["--exp", str(tmp_path), "--best", "2", "--out", str(tmp_path / "average.safetensors")])
    weights = checkpoint.read_weights(tmp_path / "average.safetensors")
    assert weights["head/w"].eq(2.5).all() and weights["head/w"].dtype == torch.float32
    assert weights["head/count"] == 3 and weights["llm/w"] == 1
    with pytest.raises(UserError, match="no checkpoint with the validation figure 'wer'"):
        average.main(["--exp", str(tmp_path), "--by", "wer", "--out", str(tmp_path / "x")])


def test_loading_is_strict_and_names_weights() -> None:
    tensors = checkpoint.gather({"head": nn.Linear(2, 3)}, ["head"])
    checkpoint.load_part(nn.Linear(2, 3), tensors, "head")
    with pytest.raises(UserError, match=r"of another shape: weight \(found \(3, 2\), expected \(3, 4\)\)"):
        checkpoint.load_part(nn.Linear(4, 3), tensors, "head", "exp/x/weights.safetensors")
    with pytest.raises(UserError, match="missing: 0.weight, 0.bias; unknown: weight, bias"):
        checkpoint.load_part(nn.Sequential(nn.Linear(2, 3)), tensors, "head")
    with pytest.raises(UserError, match="holds no weights of part 'ctc', only of head"):
        checkpoint.load_part(nn.Linear(2, 3), tensors, "ctc")


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    def tied() -> nn.ModuleDict:
        pair = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
        pair["head"].weight = pair["embed"].weight
        return pair

    left, right = tied(), tied()
    checkpoint.write_weights(checkpoint.gather({"llm": left}, ["llm"]), tmp_path / "w.safetensors")
    tensors = checkpoint.read_weights(tmp_path / "w.safetensors")
    assert list(tensors) == ["llm/embed.weight"]
    checkpoint.load_part(right, tensors, "llm")
    assert right["head"].weight.equal(left["embed"].weight) and right["head"].weight is right["embed"].weight


def test_a_weights_file_that_is_missing_or_cut_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such weights file"):
        checkpoint.read_weights(tmp_path / "weights.safetensors")
    checkpoint.write_weights(one(1.0), tmp_path / "weights.safetensors")
    os.truncate(tmp_path / "weights.safetensors", 20)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        checkpoint.read_weights(tmp_path / "weights.safetensors")


def test_another_config_is_refused_with_its_keys() -> None:
    old = {"train": {"seed": 1, "betas": [0.9, 0.98]}, "stage": {"phases": [{"steps": 5}]}}
    checkpoint.check_same_config(old, old, "exp/x")
    new = {"train": {"seed": 1, "betas": [0.9, 0.99]}, "stage": {"phases": [{"steps": 5}, {"steps": 6}]}}
    with pytest.raises(
        UserError, match=r"train.betas.1 was 0.98, is now 0.99; stage.phases.1.steps was None, is now 6"
    ):
        checkpoint.check_same_config(old, new, "exp/x")
