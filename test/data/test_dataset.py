"""Items, batches and prefetching: one result, however it is reached."""

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asrllm.console import UserError
from asrllm.data.dataset import Dataset, batches
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
    with pytest.raises(UserError, match="speed perturbation"):
        Dataset(utterances, 16000, (0.9, 1.0), frames=frames.__getitem__)
