"""The corpus shipped with egs/mini/asr1: what its README promises, read from the files alone, and its prepare.py."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

PARTS = ("train", "dev", "test")
SAMPLE_RATE = 16000


@pytest.fixture(scope="module")
def corpus(root: Path) -> Path:
    return root / "egs" / "mini" / "asr1" / "corpus"


def table(path: Path) -> dict[str, list[str]]:
    """A Kaldi table as key -> fields; fails where a key comes twice."""
    rows = [line.split() for line in path.read_text().splitlines()]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


@pytest.fixture(scope="module")
def texts(corpus: Path) -> dict[str, dict[str, list[str]]]:
    return {part: table(corpus / part / "text") for part in PARTS}


@pytest.fixture(scope="module")
def segments(corpus: Path) -> dict[str, dict[str, list[str]]]:
    return {part: table(corpus / part / "segments") for part in PARTS}


def test_no_sentence_is_said_twice(texts):
    sentences = [" ".join(words) for part in PARTS for words in texts[part].values()]
    assert len(set(sentences)) == len(sentences)


def test_words(texts):
    counts = {part: Counter(word for words in texts[part].values() for word in words) for part in PARTS}
    assert 280 <= len(counts["train"]) <= 400
    assert min(counts["train"].values()) >= 18
    assert set(counts["test"]) | set(counts["dev"]) <= set(counts["train"])
    assert all(word.isascii() and word.isalpha() and word.islower() for word in counts["train"])
    assert {len(words) for part in PARTS for words in texts[part].values()} <= set(range(4, 10))


def test_voices_of_dev_and_test_are_not_heard_elsewhere(segments):
    voices = {part: {fields[0] for fields in segments[part].values()} for part in PARTS}
    assert len(voices["train"]) >= 16
    assert len(voices["test"]) == 2
    assert not voices["test"] & (voices["train"] | voices["dev"])
    assert not voices["dev"] & voices["train"]
    bases = {part: {voice.rstrip("0123456789") for voice in voices[part]} for part in PARTS}
    assert "pico_gb" in bases["test"] - bases["train"] - bases["dev"]
    assert "awb" in bases["dev"] - bases["train"] - bases["test"]


def test_amount(texts, segments, corpus):
    minutes = {part: sum(float(e) - float(b) for _, b, e in segments[part].values()) / 60 for part in PARTS}
    assert 55 <= minutes["train"] <= 65 and 2.5 <= minutes["dev"] <= 4 and 4 <= minutes["test"] <= 5
    assert len(texts["test"]) >= 100
    assert sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file()) <= 8e6


@pytest.mark.parametrize("part", PARTS)
def test_segments_cut_in_silence(corpus, texts, segments, part):
    """Bounds lie inside the audio and in order; what is between them is silent, what is within them is not."""
    assert set(texts[part]) == set(segments[part])
    voices = sorted({fields[0] for fields in segments[part].values()})
    assert voices == sorted(path.stem for path in (corpus / part).glob("*.opus"))
    for voice in voices if part != "train" else voices[::4]:
        wave, rate = soundfile.read(corpus / part / f"{voice}.opus")
        assert (rate, wave.ndim) == (SAMPLE_RATE, 1)
        own = [(key, fields) for key, fields in segments[part].items() if fields[0] == voice]
        spoken, end = np.zeros(len(wave), bool), 0
        for key, (_, first, last) in own:
            begin, previous, end = round(float(first) * SAMPLE_RATE), end, round(float(last) * SAMPLE_RATE)
            assert key.startswith(voice) and previous < begin < end <= len(wave)
            assert 0.03 < np.sqrt(np.mean(wave[begin:end] ** 2)) < 0.1
            spoken[begin:end] = True
        assert np.sqrt(np.mean(wave[~spoken] ** 2)) < 1e-3


def prepare(root: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "local/prepare.py", "--no_llm", *options]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=root / "egs/mini/asr1", env=environment, capture_output=True, text=True)


def test_prepare_writes_sorted_kaldi_directories(root, segments, tmp_path):
    assert prepare(root, "--out", str(tmp_path)).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PARTS)
    for part in PARTS:
        for name in ("wav.scp", "segments", "text", "utt2spk", "spk2utt"):
            lines = (tmp_path / part / name).read_bytes().splitlines()
            keys = [line.split()[0] for line in lines]
            assert lines == sorted(lines) and keys == sorted(set(keys))
        speakers = table(tmp_path / part / "utt2spk")
        assert set(speakers) == set(segments[part])
        assert list(speakers.values()) == sorted(speakers.values())
        inverse = {key: [speaker] for speaker, keys in table(tmp_path / part / "spk2utt").items() for key in keys}
        assert inverse == speakers
        assert all(Path(path).is_file() for (path,) in table(tmp_path / part / "wav.scp").values())


def test_prepare_again_touches_nothing(root, tmp_path):
    prepare(root, "--out", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    prepare(root, "--out", str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_prepare_without_corpus_says_so(root, tmp_path):
    result = prepare(root, "--out", str(tmp_path / "data"), "--corpus", str(tmp_path))
    assert result.returncode == 1
    assert "--corpus" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()
