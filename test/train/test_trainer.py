"""Training against oracles: plain autograd, one process, an uninterrupted run."""

import json
import signal
import sys
from pathlib import Path

import processes
import pytest
import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).parent))
import toy
from toy import BOTH, ToyLoader, ToyModel, make_batch, make_trainer

from asrllm.console import UserError
from asrllm.train.checkpoint import is_finished
from asrllm.train.optim import seed_everything


def weights(exp: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(exp / "weights.safetensors")


def metrics(exp: Path) -> list[dict]:
    return [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]


def flops(exp: Path) -> dict:
    return json.loads((exp / "summary.json").read_text())["flops"]


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=atol, msg=name)


def train_toy(exp: Path, kill_at: int = -1) -> list[int | None]:
    """Train in another process; its exit code."""
    return processes.run(toy.train, exp, kill_at, toy.TWO_PHASES, True, {}, count=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that nothing interrupted."""
    exp = tmp_path_factory.mktemp("whole")
    assert train_toy(exp) == [0]
    return exp


def test_a_phase_moves_exactly_the_parts_it_names(tmp_path: Path) -> None:
    model = ToyModel()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    phase = {"steps": 3, "train": {"head": 0.1}, "losses": {"near": 1.0}}
    summary = make_trainer(tmp_path, model, ToyLoader(), [phase]).run()
    moved = {name.partition(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved == {"head"}
    assert summary["trained"] == {"head": 9} and summary["parameters"] == {"encoder": 16, "head": 9}
    assert {name.partition("/")[0] for name in weights(tmp_path)} == {"head"}
    assert is_finished(tmp_path)


def test_first_step_is_that_of_plain_autograd(tmp_path: Path) -> None:
    """Accumulated over three micro-batches of unequal lengths; AdamW's first step is rate * sign(gradient), so compare
    the gradient norm, too."""
    model, twin = ToyModel(), ToyModel()
    twin.load_state_dict(model.state_dict())
    phase = {"steps": 1, "train": {"encoder": 0.05, "head": 0.02}, "losses": {"near": 1.0, "far": 0.5}}
    make_trainer(
        tmp_path, model, ToyLoader(2, 6), [phase], accumulate=3, clip_norm=1e9, log_every_steps=1, weight_decay=0.0
    ).run()
    losses = twin(make_batch([0, 1, 2, 3, 4, 5]), ("near", "far"))
    (losses["near"].sum / losses["near"].count + 0.5 * losses["far"].sum / losses["far"].count).backward()
    norm = torch.cat([weight.grad.flatten() for weight in twin.parameters()]).norm()
    groups = [{"params": twin.encoder.parameters(), "lr": 0.05}, {"params": twin.head.parameters(), "lr": 0.02}]
    torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0).step()
    line = next(line for line in metrics(tmp_path) if line["kind"] == "train")
    assert line["gradient_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert_same(dict(model.state_dict()), dict(twin.state_dict()), atol=1e-6)


def test_accumulating_two_equals_a_batch_twice_as_long(tmp_path: Path) -> None:
    one, two = ToyModel(), ToyModel()
    two.load_state_dict(one.state_dict())
    make_trainer(tmp_path / "one", one, ToyLoader(8), [BOTH]).run()
    make_trainer(tmp_path / "two", two, ToyLoader(4), [BOTH], accumulate=2).run()
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"), atol=1e-6)


@pytest.mark.parametrize("kill_at", [2, 8])  # in the first and in the second phase, both in the middle of an epoch
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(whole: Path, tmp_path: Path, kill_at: int) -> None:
    assert train_toy(tmp_path / "cut", kill_at) == [-signal.SIGKILL]
    assert not is_finished(tmp_path / "cut")
    assert train_toy(tmp_path / "cut") == [0]
    assert_same(weights(whole), weights(tmp_path / "cut"))
    assert flops(tmp_path / "cut") == flops(whole)
    steps = [line["step"] for line in metrics(tmp_path / "cut") if line["kind"] == "train"]
    assert steps == [line["step"] for line in metrics(whole) if line["kind"] == "train"]


def test_stored_too_rarely_the_steps_since_are_done_again(tmp_path: Path) -> None:
    def trainer(exp: Path, loader: ToyLoader) -> None:
        seed_everything(3)
        make_trainer(exp, ToyModel(0.3, True), loader, [BOTH], checkpoint_every_steps=4, valid_every_steps=100).run()

    class Stops(ToyLoader):
        def batches(self, epoch: int, start: int):
            for batch in super().batches(epoch, start):
                if self.made > 7:
                    raise KeyboardInterrupt
                yield batch

    trainer(tmp_path / "whole", ToyLoader())
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut", Stops())
    trainer(tmp_path / "cut", ToyLoader())
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_step_that_is_not_finite_is_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Oracle: the run whose loader lacks that batch, with constant rate (AdamW's moments see the same gradients)."""
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()
    bad = frozenset({f"utt{order[8]}"})  # in the third batch

    class Without(ToyLoader):
        def count(self, epoch: int) -> int:
            return 5

        def batches(self, epoch: int, start: int):
            yield from [make_batch(order[4 * n : 4 * n + 4]) for n in (0, 1, 3, 4, 5)]

    model, twin = ToyModel(norm=True, poison=bad), ToyModel(norm=True)
    twin.load_state_dict(model.state_dict())
    phase = {"epochs": 1, "train": {"encoder": 0.05, "head": 0.02}, "losses": {"near": 1.0}}
    make_trainer(tmp_path / "bad", model, ToyLoader(), [phase], average_best=1).run()
    make_trainer(tmp_path / "without", twin, Without(), [phase], average_best=1).run()
    left, right = weights(tmp_path / "bad"), weights(tmp_path / "without")
    left.pop("encoder/1.num_batches_tracked"), right.pop("encoder/1.num_batches_tracked")
    assert_same(left, right)
    assert "step 3 skipped" in caplog.text and next(iter(bad)) in caplog.text


def test_too_many_steps_that_are_not_finite_end_the_run(tmp_path: Path) -> None:
    model = ToyModel(poison=frozenset(f"utt{n}" for n in range(24)))
    with pytest.raises(UserError, match="3 steps in a row"):
        make_trainer(tmp_path, model, ToyLoader(), [BOTH], max_bad_steps=3).run()
    assert not is_finished(tmp_path)


def test_epochs_repeat_and_curves(tmp_path: Path) -> None:
    model = ToyModel()
    phase = {"epochs": 1, "train": {"head": 0.02}, "losses": {"near": 1.0}}
    summary = make_trainer(tmp_path, model, ToyLoader(), [phase, phase | {"epochs": 2}], repeat=2, accumulate=4).run()
    assert summary["steps"] == 2 * 3 * 2  # 6 batches, 4 and 2 of them in a step
    assert sorted(model.seen) == sorted([f"utt{n}" for n in range(24)] * 6)
    seconds = sum(len(make_batch([n]).waves[0]) for n in range(24)) * 6 / 16000
    assert summary["audio_hours"] * 3600 == pytest.approx(seconds)
    assert [line["step"] for line in metrics(tmp_path) if line["kind"] == "phase"] == [1, 3, 7, 9]
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert list((tmp_path / "tensorboard").iterdir())


def test_early_stop_ends_the_phase(tmp_path: Path) -> None:
    phase = {"steps": 50, "train": {"head": 1e-12}, "losses": {"near": 1.0}}
    settings = {"valid_every_steps": 2, "early_stop_patience": 2, "best_by": "near_accuracy"}
    summary = make_trainer(tmp_path, ToyModel(), ToyLoader(), [phase], **settings).run()
    assert summary["steps"] == 6  # the first is the best; two more without a better one


@pytest.mark.parametrize(
    ("phase", "settings", "said"),
    [
        ({"steps": 1, "train": {"projector": 1.0}, "losses": {"near": 1.0}}, {}, "its parts are encoder, head"),
        ({"steps": 1, "train": {"encoder": 1.0}, "losses": {"far": 1.0}}, {}, "trains encoder, but none of its losses"),
        ({"steps": 1, "epochs": 1, "train": {"head": 1.0}, "losses": {"far": 1.0}}, {}, "exactly one budget"),
        ({"steps": 1, "train": {}, "losses": {"far": 1.0}}, {}, "phases.0.train: name at least one"),
        ({"steps": 1, "train": {"head": 0.0}, "losses": {"far": 1.0}}, {}, "expected a number above 0"),
        (BOTH | {"losses": {"nar": 1.0}}, {}, "no loss named nar"),
        (BOTH, {"best_by": "wer"}, "train.best_by: no figure 'wer'"),
        (BOTH, {"average_best": 9}, "average_best 9 is above keep_checkpoints 5"),
    ],
)
def test_mistakes_are_sentences(tmp_path: Path, phase: dict, settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_trainer(tmp_path, ToyModel(), ToyLoader(), [phase], **settings).run()


def test_no_batches_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make no batch"):
        make_trainer(tmp_path, ToyModel(), ToyLoader(total=0), [BOTH]).run()


def test_bf16_trains_weights_that_stay_fp32(tmp_path: Path) -> None:
    summary = make_trainer(tmp_path, ToyModel(norm=True), ToyLoader(), [BOTH], precision="bf16").run()
    assert summary["precision"] == "bf16"
    assert {value.dtype for value in weights(tmp_path).values()} == {torch.float32, torch.int64}
    valid = [line["loss"] for line in metrics(tmp_path) if line["kind"] == "valid"]
    assert valid[-1] < valid[0]
