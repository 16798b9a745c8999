"""The cache of encoder outputs: what was written is read, or the cache counts as absent."""

import errno
import os
from pathlib import Path

import pytest
import torch

from asrllm import console
from asrllm.console import UserError
from asrllm.data.cache import FrameCache

FRAMES = {"a": torch.randn(3, 5), "b": torch.randn(0, 5), "c": torch.randn(7, 5)}


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_reads_what_was_written(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    written = FrameCache(tmp_path / "cache", "key")
    assert not written.is_complete
    written.write(((utt_id, frames) for utt_id, frames in FRAMES.items()), name)
    for cache in (written, FrameCache(tmp_path / "cache", "key")):
        assert cache.is_complete and len(cache) == 3 and "a" in cache and "z" not in cache
        for utt_id, frames in FRAMES.items():
            assert cache.get(utt_id).dtype == dtype
            assert cache.get(utt_id).equal(frames.to(dtype))


def test_another_key_counts_as_absent_and_is_replaced(tmp_path: Path) -> None:
    FrameCache(tmp_path / "cache", "old").write(FRAMES.items())
    cache = FrameCache(tmp_path / "cache", "new")
    assert not cache.is_complete
    cache.write([("a", FRAMES["c"])], "fp32")
    assert cache.get("a").equal(FRAMES["c"]) and len(cache) == 1
    assert not FrameCache(tmp_path / "cache", "old").is_complete


def test_a_cut_file_counts_as_absent(tmp_path: Path) -> None:
    FrameCache(tmp_path / "cache", "key").write(FRAMES.items())
    os.truncate(tmp_path / "cache" / "frames.bin", 10)
    assert not FrameCache(tmp_path / "cache", "key").is_complete


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def outputs():
        yield "a", FRAMES["a"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FrameCache(tmp_path / "cache", "key").write(outputs())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_sentence_and_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FrameCache(tmp_path / "cache", "old").write(FRAMES.items())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as end:
        console.run(lambda: FrameCache(tmp_path / "cache", "new").write(FRAMES.items()))
    assert end.value.code == 1
    assert "no space left on the disk" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert FrameCache(tmp_path / "cache", "old").is_complete


def test_an_utterance_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache", "key")
    cache.write(FRAMES.items())
    with pytest.raises(UserError, match="no encoder outputs of utterance z"):
        cache.get("z")
