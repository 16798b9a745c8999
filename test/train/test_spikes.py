"""A run that failed on batches goes on without them, as one that never had them."""

import json
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).parent))
from toy import BOTH, ToyLoader, ToyModel, make_batch, make_trainer

from asrllm.console import UserError
from asrllm.train.feed import Feed
from asrllm.train.optim import seed_everything

ORDER = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()


class Without(ToyLoader):
    """The toy's batches but for some of epoch 0."""

    def __init__(self, *gone: int) -> None:
        super().__init__()
        self.gone = gone

    def count(self, epoch: int) -> int:
        return 6 - len(self.gone) * (epoch == 0)

    def batches(self, epoch: int, start: int):
        every = list(ToyLoader().batches(epoch, 0))
        yield from [batch for number, batch in enumerate(every) if epoch or number not in self.gone][start:]


def run(exp: Path, loader: ToyLoader, poison: frozenset[str] = frozenset(), leave_out: bool = False) -> None:
    seed_everything(1)
    model = ToyModel(0.3, True, poison)
    trainer = make_trainer(exp, model, loader, [BOTH], max_bad_steps=2, average_best=1, valid_every_steps=5)
    trainer.leave_out = leave_out
    trainer.run()


def weights(exp: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(exp / "weights.safetensors")


@pytest.mark.parametrize("gone", [(2, 3), (4, 5)])  # in the middle and at the end of the epoch
def test_started_again_without_the_batches_that_failed(tmp_path: Path, gone: tuple[int, int]) -> None:
    poison = frozenset(f"utt{ORDER[4 * number + 1]}" for number in gone)
    with pytest.raises(UserError, match="2 steps in a row .* start again with --leave_out_skipped"):
        run(tmp_path / "bad", ToyLoader(), poison)
    assert sorted(path.name for path in tmp_path.glob("bad/checkpoints/step-*"))[-1] == f"step-{gone[0]}"
    lines = [json.loads(line) for line in (tmp_path / "bad/skipped_steps.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["batches"]) for line in lines] == [(0, [number]) for number in gone]
    assert all(poison & set(line["utt_ids"]) for line in lines)
    run(tmp_path / "bad", ToyLoader(), leave_out=True)
    run(tmp_path / "without", Without(*gone))
    left, right = weights(tmp_path / "bad"), weights(tmp_path / "without")
    assert [name for name in left if not left[name].equal(right[name])] == []


def test_a_feed_passes_over_what_is_left_out() -> None:
    out = {(0, 0), (0, 3), (0, 5), (1, 0), (1, 1)}
    feed = Feed(ToyLoader(), 2, out, torch.device("cpu"))
    assert [group.numbers for group in feed.groups(0, 0)] == [[1, 2], [4]] and feed.steps(0) == 2
    assert [group.numbers for group in feed.groups(0, 2)] == [[2, 4]]
    assert feed.place(0, 0) == (0, 1) and feed.place(0, 5) == (1, 2) and feed.place(1, 6) == (2, 0)
    everything = Feed(ToyLoader(), 2, {(3, number) for number in range(6)}, torch.device("cpu"))
    assert everything.place(2, 6) == (4, 0) and everything.steps(3) == 0
    (first, *_) = feed.groups(0, 4)
    assert first.utt_ids == make_batch(ORDER[16:20]).utt_ids
