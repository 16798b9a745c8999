"""Items, batches and prefetching: one result, however it is reached."""

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asrllm.console import UserError
from asrllm.data.augment import AugmentConfig, EmptyConfig, JoinConfig, NoiseConfig, ReverbConfig
from asrllm.data.dataset import Dataset, batches, join
from asrllm.data.kaldi import Utterance

PLAN = [[3, 0], [1], [2, 4, 5]]


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    noise = np.random.default_rng(0)
    result = []
    for number in range(6):
        path = str(tmp_path / f"{number}.wav")
        soundfile.write(path, noise.uniform(-0.5, 0.5, 8000 + 1000 * number), 16000)
        result.append(Utterance(f"utt{number}", "one", f"text {number}", path))
    return result


def test_prefetched_batches_are_the_direct_ones(utterances: list[Utterance]) -> None:
    dataset = Dataset(utterances, 16000, (0.9, 1.0, 1.1), seed=3)
    for epoch in (0, 1):
        made = list(batches(dataset, PLAN, epoch))
        assert [batch.utt_ids for batch in made] == [["utt3", "utt0"], ["utt1"], ["utt2", "utt4", "utt5"]]
        for batch, indices in zip(made, PLAN, strict=True):
            for row, index in enumerate(indices):
                wave, text = dataset.item(index, epoch)
                assert text == batch.texts[row]
                assert torch.equal(batch.waves[row, : batch.wave_lens[row]], wave)
                assert not batch.waves[row, len(wave) :].any()
    resumed = list(batches(dataset, PLAN, 1, start=2))
    assert len(resumed) == 1 and torch.equal(resumed[0].waves, made[2].waves)


def test_closing_early_ends_the_thread(utterances: list[Utterance]) -> None:
    iterator = batches(Dataset(utterances, 16000), PLAN * 20)
    next(iterator)
    assert any(thread.name.startswith("batches") for thread in threading.enumerate())
    iterator.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_a_fault_in_the_thread_reaches_the_loop(utterances: list[Utterance], tmp_path: Path) -> None:
    (tmp_path / "2.wav").unlink()
    with pytest.raises(UserError, match="utterance utt2: .*2.wav: no such audio file"):
        list(batches(Dataset(utterances, 16000), PLAN))


def test_speed_changes_length_and_is_drawn_by_epoch(utterances: list[Utterance]) -> None:
    dataset = Dataset(utterances, 16000, (0.9, 1.0, 1.1), seed=3)
    drawn = set()
    for epoch in range(4):
        for index, seconds in enumerate(dataset.seconds(epoch)):
            wave, _ = dataset.item(index, epoch)
            assert len(wave) == pytest.approx(seconds * 16000, abs=1)
            drawn.add(round((8000 + 1000 * index) / len(wave), 2))
    assert drawn == {0.9, 1.0, 1.1}


def test_cached_frames_stand_in_for_waves(utterances: list[Utterance]) -> None:
    frames = {f"utt{number}": torch.full((number + 1, 4), float(number)) for number in range(6)}
    batch = next(batches(Dataset(utterances, 16000, frames=frames.__getitem__), PLAN))
    assert batch.waves is None
    assert batch.frames.shape == (2, 4, 4) and batch.frame_lens.tolist() == [4, 1]
    assert batch.wave_lens.tolist() == [11000, 8000]
    with pytest.raises(UserError, match="speed_factors and augment"):
        Dataset(utterances, 16000, (0.9, 1.0), frames=frames.__getitem__)


@pytest.fixture
def everything(utterances: list[Utterance], tmp_path: Path) -> Dataset:
    """All changes at once; the utterances' own audio serves as clips."""
    folders = (str(tmp_path),)
    augment = AugmentConfig(
        noise=NoiseConfig(folders=folders, share=0.5),
        reverb=ReverbConfig(folders=folders, share=0.5),
        empty=EmptyConfig(folders=folders, share=0.5, min_seconds=0.2, max_seconds=2.0),
        join=JoinConfig(share=0.5, max_seconds=1.6),
    )
    return Dataset(utterances, 16000, (0.9, 1.0, 1.1), seed=3, augment=augment)


def test_planned_seconds_are_the_delivered_ones(everything: Dataset) -> None:
    joined, empty = 0, 0
    for epoch in range(5):
        for index, (item, seconds) in enumerate(zip(everything.items(epoch), everything.seconds(epoch), strict=True)):
            wave, text = everything.item(index, epoch)
            assert abs(len(wave) - seconds * 16000) <= len(item.members)  # resampling rounds up
            assert text == " ".join(f"text {member}" for member in item.members)
            joined += len(item.members) > 1
            empty += text == ""
    assert joined and empty == 5 * 3


def test_changed_waves_are_the_same_after_a_restart(everything: Dataset) -> None:
    again = Dataset(everything.utterances, 16000, (0.9, 1.0, 1.1), seed=3, augment=everything.augment)
    for epoch in (1, 2):
        plan = [[index] for index in range(len(everything.items(epoch)))]
        whole = list(batches(everything, plan, epoch))
        torch.rand(3)
        resumed = list(batches(again, plan, epoch, start=2))
        for first, second in zip(whole[2:], resumed, strict=True):
            assert first.utt_ids == second.utt_ids and first.texts == second.texts
            assert torch.equal(first.waves, second.waves)


def test_every_utterance_is_heard_once_an_epoch_and_joined_ones_fit() -> None:
    seconds = np.array([0.5 + index % 7 for index in range(400)])

    def joined(share: float, epoch: int) -> list[list[int]]:
        members, starts = join(seconds, JoinConfig(share=share, max_seconds=8.0), seed=1, epoch=epoch)
        return [part.tolist() for part in np.split(members, starts[1:-1])]

    for share in (0.0, 0.4):
        groups = joined(share, 2)
        assert [group[0] for group in groups] == sorted(group[0] for group in groups)
        assert sorted(index for group in groups for index in group) == list(range(400))
        assert all(len(group) == 1 or sum(seconds[index] for index in group) <= 8.0 for group in groups)
        assert (len(groups) < 400) == (share > 0)
    assert groups != joined(0.4, 3)
