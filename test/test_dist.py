"""The process group: one process without torchrun, sums over two with it, GPUs that are not there."""

import json
from pathlib import Path

import groups
import processes
import pytest
import torch

from asrllm import dist
from asrllm.console import UserError


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert dist.start(0) == torch.device("cpu")
    assert (dist.rank(), dist.world_size()) == (0, 1)
    dist.barrier()
    assert dist.total(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("here", [0, 1])
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, here: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    said = rf"--ngpu {here + 1}: this machine has {here} usable GPU\(s\): give --ngpu 0 to run on the CPU"
    with pytest.raises(UserError, match=said):
        dist.start(here + 1)


def test_two_processes_add_up(tmp_path: Path) -> None:
    assert processes.run(groups.member, tmp_path) == [0, 0]
    assert [json.loads((tmp_path / name).read_text()) for name in "01"] == [[0, 2, "cpu", 3.0], [1, 2, "cpu", 3.0]]


def test_a_tensor_is_split_and_put_together() -> None:
    assert processes.run(groups.splitter) == [0, 0]
