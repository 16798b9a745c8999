"""The training-ready directory: the same audio as kaldiio reads it, made again only where the input changed."""

import os
import time
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from asrllm.console import UserError
from asrllm.data import format as formatting
from asrllm.data import kaldi
from asrllm.data.audio import load
from asrllm.data.kaldi import Utterance
from asrllm.data.validate import check


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    soundfile.write(tmp_path / "mono.wav", noise.integers(-32768, 32767, 32000, dtype=np.int16), 16000)
    soundfile.write(tmp_path / "call.wav", noise.uniform(-1, 1, (8000, 2)), 8000)
    utterances = [
        Utterance("a-1", "a", "one", f"{tmp_path}/mono.wav", 0.0, 0.5, recording="r1"),
        Utterance("a-2", "a", "two", f"cat {tmp_path}/mono.wav |", 0.5, 2.0, recording="r2"),
        Utterance("b-1", "b", "三", f"{tmp_path}/call.wav", 0.25, channel=2, recording="r3"),
    ]
    kaldi.write(utterances, tmp_path / "train")
    return tmp_path / "train"


def test_archive_equals_the_sources(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dump" / "train"
    assert formatting.write(folder, out, 16000)
    made = {each.utt_id: each for each in kaldi.read(out)}
    read = kaldiio.load_scp(str(out / "wav.scp"))
    truth, _ = soundfile.read(tmp_path / "mono.wav", dtype="int16")
    assert np.array_equal(read["a-1"][1], truth[:8000]) and np.array_equal(read["a-2"][1], truth[8000:])
    for source in kaldi.read(folder):
        entry = made[source.utt_id]
        wave = load(entry, 16000)
        rate, samples = read[source.utt_id]
        assert rate == 16000 and np.array_equal(wave.numpy() * 32768, samples)
        assert np.abs(wave.numpy() - load(source, 16000).clamp(-1, 32767 / 32768).numpy()).max() <= 0.5 / 32768
        assert (entry.text, entry.speaker) == (source.text, source.speaker)
        assert entry.seconds == pytest.approx(len(wave) / 16000, abs=1e-6)
    assert check(out).problems == []
    assert [key for key, _ in kaldiio.load_ark(str(out / "audio.ark"))] == ["a-1", "a-2", "b-1"]


def test_made_again_only_where_the_input_changed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dump"
    assert formatting.write(folder, out, 16000)
    assert not formatting.write(folder, out, 16000)
    assert formatting.write(folder, out, 8000)
    assert formatting.write(folder, out, 16000)
    (folder / "text").write_text("a-1 other\na-2 two\nb-1 three\n")
    assert formatting.write(folder, out, 16000)
    assert kaldi.read(out)[0].text == "other"
    os.utime(tmp_path / "call.wav", (time.time(), time.time() + 5))
    assert formatting.write(folder, out, 16000)
    (out / "audio.ark").unlink()
    assert formatting.write(folder, out, 16000)


def test_a_fault_leaves_the_old_whole(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dump"
    formatting.write(folder, out, 16000)
    before = (out / "audio.ark").read_bytes()
    (tmp_path / "call.wav").write_text("words")
    with pytest.raises(UserError, match="utterance b-1: .*call.wav: not readable as audio"):
        formatting.write(folder, out, 16000)
    assert (out / "audio.ark").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_processes_write_the_same(folder: Path, tmp_path: Path) -> None:
    formatting.write(folder, tmp_path / "one", 16000)
    formatting.write(folder, tmp_path / "two", 16000, jobs=2)
    assert (tmp_path / "one" / "audio.ark").read_bytes() == (tmp_path / "two" / "audio.ark").read_bytes()
