"""Batch plans: every utterance once, equal counts on all ranks, within limits, the same every time."""

import random
from collections import Counter

import numpy as np
import pytest

from asrllm.console import UserError
from asrllm.data.sampler import BatchConfig, Lengths, plan, select


def slow_plan(lengths: Lengths, config: BatchConfig, seed: int, epoch: int, rank: int, world: int) -> list[list[int]]:
    """The same plan, utterance by utterance."""
    seconds, tokens = lengths.seconds.tolist(), lengths.tokens.tolist()
    generator = np.random.default_rng([seed, epoch])
    jitter = generator.uniform(-1, 1, len(seconds)).tolist()
    keys = [each * (1 + config.jitter * draw) for each, draw in zip(seconds, jitter, strict=True)]

    def size(batch: list[int]) -> float:
        return len(batch) * max(seconds[index] for index in batch)

    batches: list[list[int]] = []
    for index in sorted(range(len(seconds)), key=lambda index: keys[index]):
        longer = [*(batches[-1] if batches else []), index]
        fits = (
            size(longer) <= config.max_seconds
            and (not config.max_tokens or len(longer) * max(tokens[each] for each in longer) <= config.max_tokens)
            and (not config.max_utterances or len(longer) <= config.max_utterances)
        )
        if batches and fits:
            batches[-1].append(index)
        else:
            batches.append([index])
    while len(batches) % world:
        place = max(range(len(batches)), key=lambda place: len(batches[place]))
        batch = batches[place]
        batches[place : place + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    groups = [batches[first : first + world] for first in range(0, len(batches), world)]
    shuffled = [groups[index] for index in generator.permutation(len(groups))]
    if epoch == 0:
        largest = max(groups, key=lambda group: max(map(size, group)))
        shuffled.remove(largest)
        shuffled.insert(0, largest)
    return [group[rank] for group in shuffled]


@pytest.fixture
def lengths() -> Lengths:
    draw = np.random.default_rng(1)
    return Lengths(draw.uniform(0.5, 15, 501).round(1), draw.integers(1, 40, 501, dtype=np.int32))


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("limits", [{}, {"max_tokens": 150}, {"max_utterances": 7}, {"jitter": 0.0}])
def test_arrays_make_the_plan_that_a_loop_makes(lengths: Lengths, world: int, epoch: int, limits: dict) -> None:
    config = BatchConfig(max_seconds=60, **limits)
    for rank in range(world):
        wanted = slow_plan(lengths, config, 7, epoch, rank, world)
        assert list(plan(lengths, config, 7, epoch, rank, world)) == wanted


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_utterance_once_over_all_ranks(lengths: Lengths, world: int, epoch: int) -> None:
    plans = [plan(lengths, BatchConfig(max_seconds=60), 7, epoch, rank, world) for rank in range(world)]
    assert len({len(each) for each in plans}) == 1
    seen = Counter(index for each in plans for batch in each for index in batch)
    assert seen == Counter(range(len(lengths)))


def test_limits_hold(lengths: Lengths) -> None:
    config = BatchConfig(max_seconds=60, max_tokens=200, max_utterances=9)
    for batch in plan(lengths, config, 7, 1):
        assert len(batch) * max(lengths.seconds[index] for index in batch) <= 60
        assert len(batch) * max(lengths.tokens[index] for index in batch) <= 200
        assert len(batch) <= 9


def test_plan_is_pure_and_differs_between_epochs(lengths: Lengths) -> None:
    config = BatchConfig(max_seconds=60)
    state = random.getstate()
    first = list(plan(lengths, config, 7, 1))
    assert first == list(plan(lengths, config, 7, 1))
    assert random.getstate() == state
    second = list(plan(lengths, config, 7, 2))
    assert {tuple(sorted(batch)) for batch in first} != {tuple(sorted(batch)) for batch in second}
    assert first != list(plan(lengths, config, 8, 1))


@pytest.mark.parametrize("world", [1, 3])
def test_epoch_0_begins_with_the_largest_batch(lengths: Lengths, world: int) -> None:
    def size(batch: list[int]) -> float:
        return len(batch) * max(lengths.seconds[index] for index in batch)

    plans = [plan(lengths, BatchConfig(max_seconds=60), 7, 0, rank, world) for rank in range(world)]
    assert max(size(each[0]) for each in plans) == max(size(batch) for each in plans for batch in each)


def test_sorting_leaves_little_padding(lengths: Lengths) -> None:
    sorted_share = plan(lengths, BatchConfig(max_seconds=60, jitter=0), 7, 1).padding_share(lengths.seconds)
    share = plan(lengths, BatchConfig(max_seconds=60), 7, 1).padding_share(lengths.seconds)
    assert sorted_share < 0.02 < share < 0.12


def test_padding_by_hand() -> None:
    two = Lengths(np.array([1.0, 3.0]))
    assert plan(two, BatchConfig(), 0, 0).padding_share(two.seconds) == pytest.approx(1 / 3)
    none = Lengths(np.zeros(0))
    assert (
        len(plan(none, BatchConfig(), 0, 0)) == 0 and plan(none, BatchConfig(), 0, 0).padding_share(none.seconds) == 0
    )


def test_batches_of_one_that_cannot_be_shared_out() -> None:
    with pytest.raises(UserError, match="3 batches of one utterance cannot be shared out among 2 processes"):
        plan(Lengths(np.full(3, 10.0)), BatchConfig(max_seconds=10), 0, 0, 0, 2)


def test_select_names_what_it_leaves_out() -> None:
    lengths = Lengths(np.array([0.05, 5.0, 31.0, 20.0, 4.0]), np.array([3, 3, 3, 3, 99], dtype=np.int32))
    kept, why = select(lengths, BatchConfig(max_seconds=15, max_tokens=50))
    assert kept.tolist() == [1]
    assert list(why) == [0, 2, 3, 4]
    words = ["min_seconds_utterance", "max_seconds_utterance", "max_seconds 15 of a batch", "max_tokens 50"]
    assert all(word in each for word, each in zip(words, why.values(), strict=True))
