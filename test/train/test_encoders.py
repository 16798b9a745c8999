"""Training on encoders in turn, against a plain loop, an uninterrupted run, and the two modes against each other."""

import json
import math
import multiprocessing
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).parent))
import toy
from toy import ToyLoader, ToyModel, make_trainer, swapping

from asrllm.console import UserError
from asrllm.train import checkpoint, cka, encoders
from asrllm.train.optim import seed_everything
from asrllm.train.snapshot import Snapshots

ROUGH = {"threshold": 0.9996, "start": 0.25, "cka": {"utterances": 20}}  # fires on the toy


def weights(exp: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(exp / "weights.safetensors")


def metrics(exp: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not left[name].equal(right[name])] == []


def fine_tune(exp: Path, pretraining: Path, loader: ToyLoader | None = None, **swaps: object) -> None:
    """12 steps of the head on encoders in turn, 3 + 3 + 6."""
    seed_everything(2)
    phase = swapping(pretraining, **swaps)
    make_trainer(exp, ToyModel(), loader or ToyLoader(), [phase], average_best=1, valid_every_steps=50).run()


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy pretraining that has ended, with ten snapshots."""
    exp = tmp_path_factory.mktemp("pretraining") / "encoder"
    toy.pretrain(exp)
    return exp


def test_snapshots_hold_the_parts_as_they_were(pretraining: Path) -> None:
    snapshots = Snapshots(pretraining)
    assert [(each.step, each.share) for each in snapshots.all()] == [(n, n / 20) for n in range(2, 21, 2)]
    assert snapshots.final() is not None
    last = checkpoint.read_weights(pretraining / "checkpoints/step-20/weights.safetensors")
    assert_same(checkpoint.read_weights(snapshots.all()[-1].folder / "weights.safetensors"), last)


def test_training_on_encoders_in_turn_is_that_of_a_plain_loop(pretraining: Path, tmp_path: Path) -> None:
    """Steps 1 to 3 on snapshot 10, 4 to 6 on 14, the rest on the last weights; one optimizer, a cosine for each."""
    fine_tune(tmp_path / "sft", pretraining, mode="fixed", fractions=[0.5, 0.7, 1.0])
    seed_everything(2)
    model = ToyModel()
    groups = [
        {"params": [model.head.weight], "weight_decay": 0.01},
        {"params": [model.head.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.98))
    data = iter([batch for epoch in range(2) for batch in ToyLoader().batches(epoch, 0)])
    for folder, steps in (("snapshots/step-10", 3), ("snapshots/step-14", 3), (".", 6)):
        tensors = checkpoint.read_weights(pretraining / folder / "weights.safetensors")
        checkpoint.load_part(model.encoder, tensors, "encoder")
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.02 if step == 0 else 0.01 * (1 + math.cos(math.pi * (step - 1) / (steps - 2)))
            optimizer.zero_grad()
            loss = model(next(data), ("near",))["near"]
            (loss.sum / loss.count).backward()
            torch.nn.utils.clip_grad_norm_(model.head.parameters(), 5.0)
            optimizer.step()
    trained = weights(tmp_path / "sft")
    torch.testing.assert_close(trained["head/weight"], model.head.weight.detach(), rtol=0, atol=1e-6)
    assert_same(
        {key: value for key, value in trained.items() if key.startswith("encoder/")},
        {key: value for key, value in weights(pretraining).items() if key.startswith("encoder/")},
    )


def test_every_value_and_every_swap_is_told(
    pretraining: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "asrllm")
    fine_tune(tmp_path / "sft", pretraining, **ROUGH)
    swaps, values = metrics(tmp_path / "sft", "swap"), metrics(tmp_path / "sft", "cka")
    assert [line["step"] for line in swaps] == [1, 4, 7][: len(swaps)] and len(swaps) >= 2
    assert swaps[-1]["snapshot"] == 20 and swaps[-1]["reason"] == "the pretraining ended here"
    assert [line["snapshot"] for line in values] == [*range(8, 21, 2), 20] and caplog.text.count(
        "pretraining step"
    ) == 8
    assert caplog.text.count("the encoder is now that of") == len(swaps)
    model = ToyModel()
    outputs = {}
    for line in values:
        for step in (line["snapshot"], line["reference"]):
            folder = Snapshots(pretraining).folder / f"step-{step}"
            checkpoint.load_part(model.encoder, checkpoint.read_weights(folder / "weights.safetensors"), "encoder")
            rows = torch.cat([toy.utterance(number) for number in range(200, 220)])
            outputs[step] = model.encoder(rows[:, None]).detach().double()
    for line in values[:-1]:  # the last is of the final weights, an average
        one, other = (outputs[line[key]] - outputs[line[key]].mean(0) for key in ("snapshot", "reference"))
        kernel, kernels = one @ one.T, other @ other.T
        expected = (kernel * kernels).sum() / (kernel.norm() * kernels.norm())
        assert line["cka"] == pytest.approx(float(expected), abs=1e-6)


def test_each_encoder_is_run_once_for_cka_whatever_asks_for_it(
    pretraining: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule, the arc lengths and a second phase: snapshots 6 to 20 and the finished encoder."""
    runs = []
    monkeypatch.setattr(encoders, "pool", lambda *given: runs.append(1) or cka.pool(*given))
    phase = swapping(pretraining, threshold=0.01, start=0.25)
    make_trainer(tmp_path / "sft", ToyModel(), ToyLoader(), [phase, phase], average_best=1, valid_every_steps=50).run()
    first, second = (metrics(tmp_path / "sft", "swap")[number::3][0]["reason"] for number in (0, 3))
    assert len(runs) == 9 and first == second and "of the arc length" in first


class Stops(ToyLoader):
    """Fails when batch number `stop` is wanted, as a kill does."""

    def __init__(self, stop: int) -> None:
        super().__init__()
        self.stop = stop

    def batches(self, epoch: int, start: int):
        for batch in super().batches(epoch, start):
            if self.made > self.stop:
                raise KeyboardInterrupt
            yield batch


@pytest.fixture(scope="module")
def replayed(pretraining: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tuning on the snapshots that the rule takes, uninterrupted."""
    exp = tmp_path_factory.mktemp("replayed")
    fine_tune(exp, pretraining, **ROUGH)
    return exp


@pytest.mark.parametrize("stop", [0, 3, 4, 6, 8])  # before, at and after both swaps
def test_stopped_anywhere_and_resumed_equals_uninterrupted(
    pretraining: Path, replayed: Path, tmp_path: Path, stop: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fine_tune(tmp_path / "cut", pretraining, Stops(stop), **ROUGH)
    fine_tune(tmp_path / "cut", pretraining, **ROUGH)
    assert_same(weights(replayed), weights(tmp_path / "cut"))
    for kind in ("swap", "cka", "phase"):
        assert metrics(replayed, kind) == metrics(tmp_path / "cut", kind)


def test_two_jobs_at_the_same_time_end_as_one_after_the_other(replayed: Path, tmp_path: Path) -> None:
    """Two real processes; the pretraining is held up at each batch, so that fine-tuning has to wait for it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["asrllm.train.trainer"])
    child = context.Process(target=toy.pretrain, args=(tmp_path / "encoder", 0.1))
    child.start()
    while not (tmp_path / "encoder" / "config.yaml").is_file():
        assert child.is_alive()
    fine_tune(tmp_path / "online", tmp_path / "encoder", mode="online", poll_seconds=0.05, **ROUGH)
    child.join(60)
    assert child.exitcode == 0
    assert_same(weights(replayed), weights(tmp_path / "online"))
    assert metrics(replayed, "swap") == metrics(tmp_path / "online", "swap")
    assert metrics(replayed, "cka") == metrics(tmp_path / "online", "cka")


def test_a_pretraining_that_stands_still_is_not_waited_for_without_end(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    with pytest.raises(UserError, match="no new snapshot after step 0 for"):
        fine_tune(tmp_path / "sft", tmp_path / "encoder", mode="online", poll_seconds=0.01, max_wait_hours=1e-6)


def test_alignment_on_the_first_encoder_alone(pretraining: Path, replayed: Path, tmp_path: Path) -> None:
    fine_tune(tmp_path / "align", pretraining, shares=[1.0, 0.0, 0.0], **ROUGH)
    assert metrics(tmp_path / "align", "swap") == metrics(replayed, "swap")[:1]


def test_snapshots_of_phases_with_different_budgets_are_refused(tmp_path: Path) -> None:
    phases = [toy.PRETRAINING, {"epochs": 1, "train": {"head": 1.0}, "losses": {"far": 1.0}}]
    with pytest.raises(UserError, match="budgets of all phases of the stage in one unit"):
        make_trainer(tmp_path, ToyModel(), ToyLoader(), phases, snapshot_every_steps=2)


def test_a_phase_that_trains_what_it_swaps_is_refused(pretraining: Path, tmp_path: Path) -> None:
    phase = swapping(pretraining) | {"train": {"encoder": 0.1}}
    with pytest.raises(UserError, match="encoder_swaps replaces encoder, so train must not name it"):
        make_trainer(tmp_path, ToyModel(), ToyLoader(), [phase])
    phase = swapping(pretraining, parts=["ctc"])
    with pytest.raises(UserError, match="phases.0.encoder_swaps.parts: the model has no part 'ctc'"):
        make_trainer(tmp_path, ToyModel(), ToyLoader(), [phase])
