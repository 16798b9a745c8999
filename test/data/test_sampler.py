"""Batch plans: every utterance once, equal counts on all ranks, within limits, the same every time."""

import random
from collections import Counter

import pytest

from asrllm.console import UserError
from asrllm.data.kaldi import Utterance
from asrllm.data.sampler import BatchConfig, Length, padding_share, plan, select


@pytest.fixture
def lengths() -> list[Length]:
    draw = random.Random(1)
    return [Length(draw.uniform(0.5, 15), draw.randint(1, 40)) for _ in range(501)]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_utterance_once_over_all_ranks(lengths: list[Length], world: int, epoch: int) -> None:
    plans = [plan(lengths, BatchConfig(max_seconds=60), 7, epoch, rank, world) for rank in range(world)]
    assert len({len(each) for each in plans}) == 1
    seen = Counter(index for each in plans for batch in each for index in batch)
    assert seen == Counter(range(len(lengths)))


def test_limits_hold(lengths: list[Length]) -> None:
    config = BatchConfig(max_seconds=60, max_tokens=200, max_utterances=9)
    for batch in plan(lengths, config, 7, 1):
        assert len(batch) * max(lengths[index].seconds for index in batch) <= 60
        assert len(batch) * max(lengths[index].tokens for index in batch) <= 200
        assert len(batch) <= 9


def test_plan_is_pure_and_differs_between_epochs(lengths: list[Length]) -> None:
    config = BatchConfig(max_seconds=60)
    state = random.getstate()
    first = plan(lengths, config, 7, 1)
    assert first == plan(lengths, config, 7, 1)
    assert random.getstate() == state
    second = plan(lengths, config, 7, 2)
    assert {tuple(sorted(batch)) for batch in first} != {tuple(sorted(batch)) for batch in second}
    assert first != plan(lengths, config, 8, 1)


@pytest.mark.parametrize("world", [1, 3])
def test_epoch_0_begins_with_the_largest_batch(lengths: list[Length], world: int) -> None:
    def size(batch: list[int]) -> float:
        return len(batch) * max(lengths[index].seconds for index in batch)

    plans = [plan(lengths, BatchConfig(max_seconds=60), 7, 0, rank, world) for rank in range(world)]
    assert max(size(each[0]) for each in plans) == max(size(batch) for each in plans for batch in each)


def test_sorting_leaves_little_padding(lengths: list[Length]) -> None:
    sorted_share = padding_share(plan(lengths, BatchConfig(max_seconds=60, jitter=0), 7, 1), lengths)
    share = padding_share(plan(lengths, BatchConfig(max_seconds=60), 7, 1), lengths)
    assert sorted_share < 0.02 < share < 0.12
    assert padding_share([[0, 1]], [Length(1.0, 0), Length(3.0, 0)]) == pytest.approx(1 / 3)
    assert padding_share([], []) == 0.0


def test_batches_of_one_that_cannot_be_shared_out() -> None:
    with pytest.raises(UserError, match="3 batches of one utterance cannot be shared out among 2 processes"):
        plan([Length(10.0, 5)] * 3, BatchConfig(max_seconds=10), 0, 0, 0, 2)


def test_select_names_what_it_leaves_out() -> None:
    lengths = [Length(0.05, 3), Length(5.0, 3), Length(31.0, 3), Length(20.0, 3), Length(4.0, 99)]
    utterances = [Utterance(f"utt{number}", "one", "text", "a.wav") for number in range(5)]
    kept, skipped = select(utterances, lengths, BatchConfig(max_seconds=15, max_tokens=50))
    assert kept == [1]
    assert [each.utt_id for each in skipped] == ["utt0", "utt2", "utt3", "utt4"]
    words = ["min_seconds_utterance", "max_seconds_utterance", "max_seconds 15 of a batch", "max_tokens 50"]
    assert all(word in each.why for word, each in zip(words, skipped, strict=True))
