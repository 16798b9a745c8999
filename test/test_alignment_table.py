"""The table of mini's comparison of alignments, from experiments written by hand."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from shell import module_of

from asrllm.console import UserError

SCRIPT = Path(__file__).resolve().parents[1] / "egs/mini/asr1/local/alignment_table.py"


@pytest.fixture
def table() -> ModuleType:
    return module_of(SCRIPT)


def write(
    folder: Path, accuracies: list[float], end: float, jump: dict[str, int | None] | None, utterances: int = 2
) -> None:
    """An experiment that has spent 1, 2, ... TFLOPs at its validations; one utterance has no interval."""
    lines = []
    for number, accuracy in enumerate(accuracies, 1):
        lines.append({"step": 10 * number, "kind": "train", "tflops": float(number), "llm_accuracy": 0.0})
        lines.append({"step": 10 * number, "kind": "valid", "llm_accuracy": accuracy})
    valid = {"llm_accuracy": end, "llm_loss": 2 * end}
    summary = {"trained": {"projector": 1_500_000, "encoder": 20_000}, "steps": 10 * len(accuracies), "valid": valid}
    summary |= {"flops": {"model": 1e12 * len(accuracies)}, "emergence": jump}
    score = {"err_percent": 12.34, "interval_percent": [10.0, 15.55] if utterances > 1 else None}
    (folder / "decode_greedy/dev").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "decode_greedy/dev/score.json").write_text(json.dumps({"units": [score]}))


def test_flops_to_the_error_that_the_first_one_ends_with(
    table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "posterior", [0.5, 0.7], 0.75, None)
    write(tmp_path / "linear", [0.2, 0.6, 0.76, 0.9], 0.9, {"step": 25})
    write(tmp_path / "conv", [0.2, 0.3], 0.3, {"step": None}, utterances=1)
    out, wer = tmp_path / "alignments.md", "12.3 (10.0 to 15.6)"
    table.main([*(str(tmp_path / name) for name in ("posterior", "linear", "conv")), "--out", str(out)])
    printed = capsys.readouterr().out
    assert [line.strip("|").split("|") for line in printed.splitlines()[2:]] == [
        ["posterior", "1.52 M", "20", "too few points", "0.750", "1.500", wer, "2.0", "2.0"],
        ["linear", "1.52 M", "40", "25", "0.900", "1.800", wer, "4.0", "3.0"],
        ["conv", "1.52 M", "20", "none", "0.300", "0.600", "12.3", "2.0", "not reached"],
    ]
    assert out.read_text() == printed


def test_an_experiment_that_has_not_ended_is_named(table: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"summary.json: no such file: let local/compare_alignments.sh run to its end"):
        table.main([str(tmp_path), "--out", str(tmp_path / "alignments.md")])
