"""Phases that end by steps, FLOPs or hours, against each other and against a run that was killed."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from toy import ToyLoader, ToyModel, make_trainer

from asrllm import config as configs
from asrllm.config import parse
from asrllm.console import UserError
from asrllm.train.budget import Budget
from asrllm.train.optim import seed_everything
from asrllm.train.position import Position
from asrllm.train.stage import Phase, Stage

HEAD = {"train": {"head": 0.02}, "losses": {"near": 1.0}}


def run(exp: Path, loader: ToyLoader, phase: dict, **settings: object) -> dict:
    seed_everything(3)
    return make_trainer(exp, ToyModel(0.3, True), loader, [phase], **settings).run()


def rates(exp: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["rate_head"] for line in lines if line["kind"] == "train"}


@pytest.mark.parametrize("unit", ["flops", "audio_hours"])
def test_the_end_is_the_first_step_at_which_the_budget_is_spent(tmp_path: Path, unit: str) -> None:
    spent = []
    for steps in (7, 8):
        summary = run(tmp_path / str(steps), ToyLoader(), {"steps": steps, **HEAD})
        spent.append(summary["flops"]["model"] if unit == "flops" else summary["audio_hours"])
    seven, eight = spent
    for name, amount, steps in (("exact", eight, 8), ("over", 1.0001 * seven, 8), ("under", 0.9999 * seven, 7)):
        assert run(tmp_path / name, ToyLoader(), {unit: amount, **HEAD})["steps"] == steps, name


def test_the_cosine_follows_what_is_spent(tmp_path: Path) -> None:
    """Equal steps: after 2 of warm-up the rate at a share s of the budget is that of (s - w) / (1 - w), w at step 2."""

    class Equal(ToyLoader):
        def batches(self, epoch: int, start: int):
            first = next(super().batches(0, 0))
            yield from [first] * (self.count(epoch) - start)

    shape = {"schedule": "cosine", "warmup_steps": 2, **HEAD}
    each = run(tmp_path / "one", Equal(), {"steps": 1, **HEAD})["flops"]["model"]
    run(tmp_path / "flops", Equal(), {"flops": 10 * each, **shape}, log_every_steps=1)
    run(tmp_path / "steps", Equal(), {"steps": 11, **shape}, log_every_steps=1)
    by_flops, by_steps = rates(tmp_path / "flops"), rates(tmp_path / "steps")
    assert len(by_flops) == 10 and by_flops[2] == 0.02
    assert by_flops == pytest.approx({step: by_steps[step] for step in by_flops})


def test_a_killed_run_ends_with_the_same_step_and_the_same_rates(tmp_path: Path) -> None:
    class Stops(ToyLoader):
        def batches(self, epoch: int, start: int):
            for batch in super().batches(epoch, start):
                if self.made > 8:
                    raise KeyboardInterrupt
                yield batch

    phase = {"flops": 20000, "schedule": "cosine", "warmup_steps": 3, **HEAD}
    settings = {"checkpoint_every_steps": 4, "valid_every_steps": 100, "log_every_steps": 1}
    whole = run(tmp_path / "whole", ToyLoader(), phase, **settings)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Stops(), phase, **settings)
    assert run(tmp_path / "cut", ToyLoader(), phase, **settings)["flops"] == whole["flops"]
    assert rates(tmp_path / "cut") == rates(tmp_path / "whole") and whole["steps"] > 12
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_turns_share_a_budget() -> None:
    shares, whole = (0.25, 0.25, 0.5), Budget(8e9, "flops")
    assert [whole.of_turn(shares, turn, turn == 2).amount for turn in range(3)] == [2e9, 2e9, 4e9]
    assert whole.of_turn(shares, 1, True).amount == 6e9
    assert Budget(7, "steps").of_turn(shares, 1, True).amount == 5
    assert Budget(0, "steps").share(Position()) == 1.0  # a turn without a share ends at once


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    """YAML 1.1 reads 2e14, without a dot, as a word."""
    for text in ("2e14", "2.0e+14", "2E14", "200000000000000"):
        path = tmp_path / "stage.yaml"
        path.write_text(f"phases: [{{flops: {text}, train: {{head: 1e-3}}, losses: {{near: 1}}}}]\n")
        assert configs.load(path, Stage).phases[0].flops == 2e14


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"steps": 1, "flops": 1e9}, "give exactly one budget, steps, epochs, flops or audio_hours"),
        ({}, "give exactly one budget"),
        ({"flops": 0}, "flops: input should be greater than 0"),
        ({"audio_hours": -1}, "audio_hours: input should be greater than 0"),
        ({"flops": "2e14 flops"}, "flops: input should be a valid number"),
    ],
)
def test_mistakes_are_sentences(keys: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse({**HEAD, **keys}, Phase, "phase")


def test_bars_count_steps_or_percent() -> None:
    at = Position(phase_step=3, phase_flops=5e9)
    assert (Budget(12, "steps").size, Budget(12, "steps").marks(at)) == (12, 3)
    assert (Budget(2e10, "flops").size, Budget(2e10, "flops").marks(at)) == (100, 25)
