"""Data directories that break a rule, in the check and in a program that is run without it."""

import importlib
import os
from pathlib import Path

import pytest
import soundfile
from toy_corpus import decode_options, refused, rewrite, train_options


def resample(path: Path) -> None:
    soundfile.write(path, soundfile.read(path)[0], 8000)


def segments(line: str) -> None:
    """A directory with segments, one for each recording, the first of them as given."""
    utt_ids = [line.split()[0] for line in Path("data/dev/wav.scp").read_text().splitlines()]
    lines = [f"{utt_id} {utt_id} 0.1 0.4\n" for utt_id in utt_ids]
    Path("data/dev/segments").write_text("".join([line, *lines[1:]]))


WAV = Path("data/wav/s0-dev00.wav")
TABLES = {
    "missing audio": (WAV.unlink, "wav.scp: line 1: found data/wav/s0-dev00.wav: no such audio file"),
    "unreadable audio": (lambda: WAV.write_bytes(b"no audio"), "wav.scp: line 1: found data/wav/s0-dev00.wav: not"),
    "audio cut off": (lambda: os.truncate(WAV, 44), "wav.scp: line 1: found data/wav/s0-dev00.wav:"),
    "empty transcript": (
        lambda: rewrite("data/dev/text", lambda lines: ["s0-dev00\n", *lines[1:]]),
        "text: line 1: found only the key s0-dev00, expected its transcript",
    ),
    "transcript not UTF-8": (
        lambda: Path("data/dev/text").write_bytes(b"s0-dev00 caf\xe9\n"),
        "text: line 1: found the byte 0xe9 at position 13, which is not UTF-8",
    ),
    "key given twice": (
        lambda: rewrite("data/dev/text", lambda lines: [lines[0], *lines]),
        "text: line 2: found the key s0-dev00 again (first in line 1), expected each key once",
    ),
    "keys not sorted": (
        lambda: rewrite("data/dev/utt2spk", lambda lines: lines[::-1]),
        "utt2spk: line 2: found s1-dev01 after s1-dev03, expected keys in byte order",
    ),
    "segment past the end": (
        lambda: segments("s0-dev00 s0-dev00 0.1 99\n"),
        "segments: line 1: found a segment that ends at 99 s, expected at most",
    ),
    "wrong sample rate": (lambda: resample(WAV), "wav.scp: line 1: found 8000 Hz, expected 16000 Hz"),
}


@pytest.mark.parametrize("name", TABLES)
def test_data_directory(work: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    spoil, found = TABLES[name]
    spoil()
    options = ["data/dev", "--format", "dump/new", "--sample_rate_must_be", "16000"]
    error, report = refused(capsys, "check_data", options)
    assert "data/dev: " in error and "problem(s): --fix OUT writes a repaired copy" in error
    assert f"  data/dev/{found}" in report


@pytest.mark.parametrize("name", TABLES)
def test_data_directory_used_without_a_check(work: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Who leaves the check out still gets a sentence from the decoding, or a result where nothing hinders it."""
    spoil, _ = TABLES[name]
    spoil()
    options = [*decode_options("decode_ctc", "exp/train_encoder", "new"), "--data", "data/dev"]
    if name in ("keys not sorted", "wrong sample rate"):
        importlib.import_module("asrllm.bin.decode").main(options)
        assert len(Path("new/hyp.1of1.jsonl").read_text().splitlines()) == 4
        return
    error, _ = refused(capsys, "decode", options)
    assert "dev00" in error or "data/dev/text: line 1" in error


def test_what_is_left_out_is_listed_once_all_data_are_found(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = "stage.phases=[{steps: 3, train: {ctc: 0.1}, losses: {ctc: 1.0}}]"
    limit = "data.batch.max_seconds_utterance"
    options = [*train_options("train_encoder", "exp/new"), "--set", steps, "--set"]
    assert "dump/none" in refused(capsys, "train", [*options, f"{limit}=1.2", "--valid_data", "dump/none"])[0]
    error, _ = refused(capsys, "train", [*options, f"{limit}=0.5"])
    assert "dump/train: all 48 utterances are left out, the first, s0-train00: 1.45 s, " in error
    assert not Path("exp/new").exists()
    importlib.import_module("asrllm.bin.train").main([*options, f"{limit}=1.2"])
    lines = Path("exp/new/skipped.train.txt").read_text().splitlines()
    texts = [line.split() for line in Path("dump/train/text").read_text().splitlines()]
    of_four_words = [utt_id for utt_id, *words in texts if len(words) == 4]  # 1.45 s
    assert [line.split("\t")[0] for line in lines] == of_four_words != []
    assert all("more than max_seconds_utterance 1.2" in line for line in lines)
