"""The program as a user meets it: summary, problems, exit codes, nothing half-written."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrllm import console
from asrllm.bin.check_data import main
from asrllm.console import UserError
from asrllm.data import kaldi
from asrllm.data.kaldi import Utterance


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    utterances = []
    for number in range(60):
        path = str(tmp_path / f"{number}.wav")
        soundfile.write(path, np.full(1600, 0.1), 16000)
        utterances.append(Utterance(f"one-{number:02}", "one", "some text", path))
    kaldi.write(utterances, tmp_path / "train")
    return tmp_path / "train"


def test_clean_directory_is_formatted_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder), "--format", str(tmp_path / "dump")])
    main([str(folder), "--format", str(tmp_path / "dump")])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{folder}: 60 utterances, 1 speakers, 0.00 hours, 16000 Hz, 0 problem(s)"
    assert [said[1], said[3]] == [f"{tmp_path}/dump: written", f"{tmp_path}/dump: up to date"]


def test_problems_are_shown_counted_and_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(55):
        (tmp_path / f"{number}.wav").unlink()
    with pytest.raises(UserError, match=r"55 problem\(s\): --fix OUT writes a repaired copy"):
        main([str(folder), "--format", str(tmp_path / "dump"), "--report", str(tmp_path / "report.txt")])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 52 and said[-1] == "  and 5 more"
    assert len((tmp_path / "report.txt").read_text().splitlines()) == 55
    assert not (tmp_path / "dump").exists()
    main([str(folder), "--fix", str(tmp_path / "fixed"), "--format", str(tmp_path / "dump")])
    assert "55 utterance(s) dropped" in capsys.readouterr().out
    assert len(kaldi.read(tmp_path / "dump")) == 5


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["nowhere"], 1, "check_data: error: nowhere: no such data directory"),
        (["--sample_rate_must_be", "8000"], 1, "60 problem(s)"),
        (["--nj", "0"], 2, "argument --nj: expected a whole number from 1, found '0'"),
        (["--nj", "two"], 2, "argument --nj: expected a whole number from 1, found 'two'"),
        (["--listen"], 2, "--listen and --against belong to --doctor OUT, which is not given"),
        (["--doctor", "odd", "--fix", "fixed"], 2, "--doctor looks and changes nothing"),
        (["--sample", "8000"], 2, "unrecognized arguments: --sample 8000"),
    ],
)
def test_exit_status(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    status: int,
    words: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["check_data", *([] if options == ["nowhere"] else [str(folder)]), *options])
    with pytest.raises(SystemExit) as end:
        console.run(main)
    assert end.value.code == status
    assert words in capsys.readouterr().err
