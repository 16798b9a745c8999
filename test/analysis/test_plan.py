"""The plan of a run against the run itself."""

import json
import re
from pathlib import Path

import pytest
from toy_corpus import TRAININGS, inside, train_options, tree

from asrllm.bin import train


def plan(name: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    train.main([*train_options(name, "exp/none"), "--dry_run", *more])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", TRAININGS)
def test_the_run_costs_what_the_plan_says(recipe: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(recipe)
    with inside(recipe):
        told = plan(name, capsys)
    assert tree(recipe) == before
    summary = json.loads((recipe / "exp" / name / "summary.json").read_text())
    [foretold] = re.findall(r"all in all (\S+) model FLOPs", told)
    assert float(foretold) == pytest.approx(summary["flops"]["model"], rel=0.05)
    for part, count in summary["trained"].items():
        assert f"{part} ({count / 1e6:.2f} M)" in told


def test_it_tells_where_weights_come_from(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with inside(recipe):
        told = plan("train_align_posterior", capsys)
    sources = dict(re.findall(r"^  (\S+) +\S+ M  from (.*)$", told, flags=re.MULTILINE))
    assert sources == {
        "encoder": "exp/train_encoder",
        "ctc": "exp/train_encoder",
        "projector": "random numbers",
        "llm": "llm",
    }
    assert re.search(
        r"training data: 48 utterances; an epoch has 48 examples, 0.0\d h, \d+ batches, \d+.\d% padding", told
    )
    assert re.search(r"encoder outputs are cached: \S+ model FLOPs, once", told)


@pytest.mark.parametrize("unit", ["flops", "audio_hours", "epochs"])
def test_budgets_are_told_in_steps(recipe: Path, unit: str, capsys: pytest.CaptureFixture[str]) -> None:
    """200 steps of the encoder cost what they cost: that much in another unit is about 200 steps."""
    summary = json.loads((recipe / "exp/train_encoder/summary.json").read_text())
    with inside(recipe):
        told = plan("train_encoder", capsys)
        [epochs] = re.findall(r"about 200 steps, (\S+) epochs", told)
        size = {
            "flops": summary["flops"]["model"],
            "audio_hours": summary["audio_hours"],
            "epochs": round(float(epochs)),
        }[unit]
        phase = f"[{{{unit}: {size!r}, train: {{encoder: 5e-3, ctc: 5e-3}}, losses: {{ctc: 1.0}}}}]"
        [steps] = re.findall(r"about (\d+) steps", plan("train_encoder", capsys, "--set", f"stage.phases={phase}"))
    assert int(steps) == pytest.approx(200, rel=0.05)
