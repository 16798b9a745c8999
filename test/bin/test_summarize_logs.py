"""The summary of logs that run.sh really wrote, and of one that a kill left."""

import subprocess
from pathlib import Path

import pytest

from asrllm.bin import summarize_logs
from asrllm.console import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_logs_of_an_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "echo '2026-01-01 WARNING batch JOB of 7'; [[ JOB != 2 ]]"
    line = [str(ROOT / "utils" / "run.sh"), "JOB=1:3", str(tmp_path / "x.JOB.log"), "bash", "-c", body]
    assert subprocess.run(line, stderr=subprocess.DEVNULL).returncode == 1
    (tmp_path / "train.log").write_text("# x\n# Running on a\n# Started\n#\n")
    summarize_logs.main([str(tmp_path)])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{tmp_path}/train.log: 0 ended; 1 without an end (train.log)"
    assert said[1].startswith(f"{tmp_path}/x.*.log: 2 ended; 1 failed (x.2.log); ")
    assert said[2] == "  3 times WARNING batch N of N"
    with pytest.raises(UserError, match="no such folder or no"):
        summarize_logs.main([str(tmp_path / "none")])
