"""Tar shards: what is written comes back byte for byte, wherever writing or reading was interrupted."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asrllm.console import UserError
from asrllm.data import audio, shards
from asrllm.data.shards import Position, Sample

IDS = ["plain", "with/slash", "../up", "dot.ted", "sp ace", "夏", "%41", "x" * 150, "a", "b", "c"]


@pytest.fixture
def samples() -> list[Sample]:
    made = []
    for number, utt_id in enumerate(IDS):
        buffer = io.BytesIO()
        suffix = ["wav", "flac", "ogg"][number % 3]
        wave = 0.2 * np.sin(np.arange(1600 + 160 * number) / 7)
        soundfile.write(buffer, wave, 16000, format=suffix.upper())
        made.append(Sample(utt_id, f"s{number % 2}", f"text {number} 天", buffer.getvalue(), suffix))
    return made


def all_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_everything_in_order(samples: list[Sample], tmp_path: Path) -> None:
    assert shards.write(lambda done: samples[done:], tmp_path, 8000) == len(samples)
    tars = sorted(tmp_path.glob("*.tar"))
    assert 2 < len(tars) < len(samples)
    assert [sample for _, sample in shards.read(tmp_path)] == samples
    with tarfile.open(tars[0]) as tar:  # as any other program reads it
        assert tar.extractfile("plain.wav").read() == samples[0].audio  # type: ignore[union-attr]
        assert json.load(tar.extractfile("plain.json"))["text"] == "text 0 天"  # type: ignore[arg-type]
    for path in tars:
        with tarfile.open(path) as tar:
            assert not any("/" in name for name in tar.getnames())


def test_a_data_directory_reads_from_the_shards(samples: list[Sample], tmp_path: Path) -> None:
    shards.write(lambda done: samples[done:], tmp_path, 8000)
    for sample, utterance in zip(samples, shards.utterances(tmp_path), strict=True):
        expected = torch.from_numpy(soundfile.read(io.BytesIO(sample.audio), dtype="float32")[0])
        assert torch.equal(audio.load(utterance, 16000), expected)
        header = audio.header(utterance.source)
        assert (header.sample_rate, header.samples) == (16000, len(expected))
        assert utterance.seconds == pytest.approx(len(expected) / 16000)
        assert (utterance.utt_id, utterance.text) == (sample.utt_id, sample.text)


@pytest.mark.parametrize("stop", range(0, 11, 2))
def test_writing_goes_on_where_it_was_stopped(samples: list[Sample], tmp_path: Path, stop: int) -> None:
    shards.write(lambda done: samples[done:], tmp_path / "whole", 8000)

    def breaking(done: int) -> Iterator[Sample]:
        yield from samples[done:stop]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.write(breaking, tmp_path / "parts", 8000)
    with pytest.raises(UserError, match="holds no whole set of shards"):
        list(shards.utterances(tmp_path / "parts"))
    asked = []
    shards.write(lambda done: asked.append(done) or samples[done:], tmp_path / "parts", 8000)
    assert all_files(tmp_path / "parts") == all_files(tmp_path / "whole")
    assert asked[0] <= stop
    assert shards.write(lambda done: pytest.fail("all is there"), tmp_path / "parts", 8000) == len(samples)


def test_reading_goes_on_at_every_position(samples: list[Sample], tmp_path: Path) -> None:
    shards.write(lambda done: samples[done:], tmp_path, 8000)
    passed = list(shards.read(tmp_path))
    for number, (position, _) in enumerate(passed, 1):
        assert [sample for _, sample in shards.read(tmp_path, position)] == samples[number:]
    assert [position for position, _ in shards.read(tmp_path, Position(1, 1))] == [
        position for position, _ in passed if position > (1, 1)
    ]


def test_ranks_share_the_shards(samples: list[Sample], tmp_path: Path) -> None:
    shards.write(lambda done: samples[done:], tmp_path, 8000)
    shares = [[sample.utt_id for _, sample in shards.read(tmp_path, rank=rank, world=2)] for rank in (0, 1)]
    assert all(shares) and sorted(shares[0] + shares[1]) == sorted(IDS)


def test_what_is_wrong_is_said(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="utterance a: comes twice"):
        shards.write(lambda done: [samples[8], samples[8]], tmp_path / "twice")
    with pytest.raises(UserError, match="utterance u: not readable as audio"):
        shards.write(lambda done: [Sample("u", "s", "t", b"noise")], tmp_path / "noise")
    assert not all_files(tmp_path / "twice") and not all_files(tmp_path / "noise")
    shards.write(lambda done: samples[done:], tmp_path / "cut", 8000)
    tar = sorted((tmp_path / "cut").glob("*.tar"))[0]
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(UserError, match="shard-000000.tar: not a whole shard of ours"):
        list(shards.read(tmp_path / "cut"))
    with pytest.raises(UserError, match="no file begins there"):
        audio.header(f"{sorted((tmp_path / 'cut').glob('*.tar'))[1]}:700")
    with pytest.raises(UserError, match="no such audio file"):
        audio.header("nowhere.tar:512")
