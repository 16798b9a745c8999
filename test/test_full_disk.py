"""Programs that run out of disk on a small file system: one sentence, nothing half-written, and on with more room."""

import importlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
from toy_corpus import decode_options, train_options

from asrllm import console

ENCODER = Path("exp/train_encoder/weights.safetensors")


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A file system with so much room; skips where none can be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root alone (test/train/test_checkpoint.py fakes one)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize(
    ("program", "kilobytes", "options"),
    [
        ("check_data", 100, ["data/dev", "--format", "DISK/dump"]),
        ("train_tokenizer", 8, ["--config", "conf/tokenizer.yaml", "--text", "dump/train/text", "--out", "DISK/units"]),
        ("train", 8, train_options("train_encoder", "DISK/exp")),
        ("train", 40, train_options("train_encoder", "DISK/exp")),
        ("train", 400, train_options("train_encoder", "DISK/exp")),
        ("decode", 4, decode_options("decode_beam", "exp/train_joint", "DISK/out")),
    ],
)
def test_full_disk(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str, kilobytes: int, options: list[str]
) -> None:
    """Whatever is there afterwards is whole; a training goes on from it once there is room."""
    main = importlib.import_module(f"asrllm.bin.{program}").main
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        filled = [option.replace("DISK", str(disk)) for option in options]
        with pytest.raises(SystemExit) as end:
            console.run(lambda: main(filled))
        said = capsys.readouterr().err.splitlines()
        left = [path for path in disk.rglob("*") if path.name.startswith(".") or path.name.endswith(".part")]
        named = {path.name for path in disk.rglob("*")}
    assert end.value.code == 1
    assert len(said) == 1 and "no space left on the disk" in said[0], said
    assert left == []
    assert not named & {"units", "dump", "hyp.1of1.jsonl"}


def test_training_goes_on_once_there_is_room(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: exp/train_encoder, whose disk was never full."""
    main = importlib.import_module("asrllm.bin.train").main
    with small_disk(tmp_path / "disk", 500) as disk:
        options = train_options("train_encoder", str(disk / "exp"))
        with pytest.raises(SystemExit):
            console.run(lambda: main(options))
        assert "no space left on the disk" in capsys.readouterr().err
        assert list(disk.glob("exp/checkpoints/step-*/state.pt"))
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        main(options)
        found = safetensors.torch.load_file(disk / "exp" / "weights.safetensors")
    whole = safetensors.torch.load_file(ENCODER)
    assert found.keys() == whole.keys() and all(found[key].equal(whole[key]) for key in whole)
