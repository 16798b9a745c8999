"""Audio equals what soundfile and kaldiio read, in every format, span, channel and rate; faults are sentences."""

import math
import shlex
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import torch

from asrllm.console import UserError
from asrllm.data.audio import decode, header, load, load_source, seconds
from asrllm.data.kaldi import Utterance

REAL = [
    ("yesno/waves_yesno/*.wav", 8000),
    ("fsdd/recordings/*.flac", 8000),
    ("esc10/*/*.ogg", 44100),
    ("speechocean762/WAVE/*/*.opus", 16000),
    ("aishell_mini/data_aishell/wav/*/*/*.flac", 16000),
]


@pytest.mark.parametrize(("pattern", "rate"), REAL)
def test_real_recordings_equal_soundfile(real_data: Path, pattern: str, rate: int) -> None:
    for path in sorted(real_data.glob(pattern))[:3]:
        truth, truth_rate = soundfile.read(path, dtype="float32")
        assert truth_rate == rate
        told = header(str(path))
        assert (told.sample_rate, told.channels, told.samples) == (rate, 1, len(truth))
        assert np.array_equal(load_source(str(path), rate).numpy(), truth)
        first, last = round(0.1 * rate), round(0.25 * rate)
        assert np.array_equal(load_source(str(path), rate, 0.1, 0.25).numpy(), truth[first:last])
        pipe = f"cat {shlex.quote(str(path))} |"
        assert np.array_equal(load_source(pipe, rate, 0.1).numpy(), truth[first:])
        assert header(pipe) == told
        assert len(load_source(str(path), 16000)) == math.ceil(len(truth) * 16000 / rate)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_a_tone(tmp_path: Path, rate: int) -> None:
    path = str(tmp_path / "tone.wav")
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate), rate, subtype="FLOAT")
    expected = 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
    wave = load_source(path, 16000)
    assert wave.shape == (16000,) and wave.dtype == torch.float32
    assert (wave - expected)[200:-200].abs().max() < 2e-3


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "PCM_24", "FLOAT"])
def test_sample_types(tmp_path: Path, subtype: str) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 500)
    path = str(tmp_path / "noise.wav")
    soundfile.write(path, wave, 16000, subtype=subtype)
    assert np.abs(load_source(path, 16000).numpy() - wave).max() < (0.01 if subtype == "PCM_U8" else 1e-4)


def test_archives_written_by_kaldiio(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    mono = noise.integers(-32768, 32767, 16000, dtype=np.int16)
    stereo = noise.integers(-32768, 32767, (8000, 2), dtype=np.int16)
    coarse = noise.integers(0, 255, 4000, dtype=np.uint8)
    ark, scp = str(tmp_path / "a.ark"), str(tmp_path / "a.scp")
    kaldiio.save_ark(ark, {"mono": (16000, mono), "stereo": (8000, stereo), "coarse": (8000, coarse)}, scp=scp)
    flac = str(tmp_path / "flac.ark")
    kaldiio.save_ark(
        flac, {"x": (16000, mono)}, scp=f"{scp}2", write_function="soundfile", write_kwargs={"format": "flac"}
    )
    places = dict(line.split() for line in Path(scp).read_text().splitlines())
    (flac_place,) = (line.split()[1] for line in Path(f"{scp}2").read_text().splitlines())
    exact = mono.astype(np.float32) / 32768
    assert np.array_equal(load_source(places["mono"], 16000).numpy(), exact)
    assert np.array_equal(load_source(places["mono"], 16000, 0.25, 0.5).numpy(), exact[4000:8000])
    assert np.array_equal(load_source(flac_place, 16000).numpy(), exact)
    assert np.array_equal(load_source(places["stereo"], 8000, channel=2).numpy(), stereo[:, 1] / np.float32(32768))
    assert np.array_equal(load_source(places["coarse"], 8000).numpy(), coarse / np.float32(128) - 1)
    assert header(places["stereo"]).channels == 2


def test_wav_of_unknown_length_from_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.linspace(-0.5, 0.5, 3000), 16000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # what ffmpeg writes to a pipe
    (tmp_path / "stream").write_bytes(data)
    wave = load_source(f"cat {tmp_path}/stream |", 16000)
    assert torch.equal(wave, load_source(str(path), 16000))


def test_two_spans_of_one_pipe_do_not_share_memory(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(3000, 0.5), 16000)
    pipe = f"cat {tmp_path}/a.wav |"
    load_source(pipe, 16000).zero_()
    assert load_source(pipe, 16000).min() == 0.5


def test_channels(tmp_path: Path) -> None:
    path = str(tmp_path / "call.wav")
    soundfile.write(path, np.stack([np.full(800, 0.25), np.full(800, -0.25)], 1), 8000)
    assert load_source(path, 8000, channel=1).unique().item() == 0.25
    assert load_source(path, 8000, channel=2).unique().item() == -0.25
    with pytest.raises(UserError, match="found 2 channels, expected one: choose it with reco2file_and_channel or"):
        load_source(path, 8000)
    with pytest.raises(UserError, match="channel 3 is chosen, but it has the channels 1 to 2"):
        load_source(path, 8000, channel=3)


def test_seconds_come_from_the_table_or_the_header(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.zeros(4000), 8000)
    assert seconds(Utterance("a", "a", "", "nowhere.wav", seconds=3.5)) == 3.5
    assert seconds(Utterance("a", "a", "", path)) == 0.5
    assert seconds(Utterance("a", "a", "", path, start=0.1)) == pytest.approx(0.4)
    assert seconds(Utterance("a", "a", "", path, start=0.1, end=0.3)) == pytest.approx(0.2)


def test_an_end_within_the_tolerance_is_cut(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.zeros(16000), 16000)
    assert len(load_source(path, 16000, 0.5, 1.009)) == 8000
    with pytest.raises(UserError, match="found 1 s of audio, expected 1.02 s for the segment to end there"):
        load_source(path, 16000, 0.5, 1.02)


def test_faults_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "words.wav").write_text("no audio at all")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    kaldiio.save_ark(str(tmp_path / "feats.ark"), {"a": np.zeros((3, 4), np.float32)})
    soundfile.write(tmp_path / "cut.wav", np.zeros(16000), 16000)
    (tmp_path / "cut.ark").write_bytes(b"a " + (tmp_path / "cut.wav").read_bytes()[:999])
    faults = {
        f"{tmp_path}/nowhere.wav": "no such audio file",
        f"{tmp_path}/nowhere.ark:5": "no such audio file",
        f"{tmp_path}/words.wav": "not readable as audio",
        f"{tmp_path}/words.wav:3": "not readable as audio",
        f"{tmp_path}": "not readable as audio",
        f"{tmp_path}/empty.wav": "no samples",
        f"{tmp_path}/feats.ark:2": "found a matrix, expected audio",
        f"{tmp_path}/cut.ark:2": "found 955 bytes of samples, expected 32000",
        "cat /nowhere.wav |": "the command ended with status 1: cat: /nowhere.wav",
        "true |": "it printed nothing",
        "echo hello |": "not readable as audio",
    }
    for source, words in faults.items():
        with pytest.raises(UserError, match=words) as caught:
            load(Utterance("utt7", "one", "", source), 16000)
        assert str(caught.value).startswith("utterance utt7: ") and "\n" not in str(caught.value)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 48000), 16000)
    path.write_bytes(path.read_bytes()[:40000])
    with pytest.raises(UserError, match="a.flac: "):
        decode(str(path))
