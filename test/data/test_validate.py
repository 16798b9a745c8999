"""Every rule has a directory that breaks it and nothing else; the repaired copy breaks none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrllm.console import UserError
from asrllm.data.repair import fix
from asrllm.data.validate import Demands, check

Break = Callable[[Path], None]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A directory that obeys every rule: three utterances of two speakers in two recordings, one of two channels."""
    folder = tmp_path / "train"
    folder.mkdir()
    soundfile.write(tmp_path / "mono.wav", np.full(16000, 0.1), 16000)
    soundfile.write(tmp_path / "call.flac", np.full((8000, 2), 0.1), 8000)
    tables = {
        "wav.scp": f"r1 {tmp_path}/mono.wav\nr2 cat {tmp_path}/call.flac |\n",
        "segments": "a-1 r1 0 0.5\na-2 r1 0.5 1.005\nb-1 r2 0.25 -1\n",
        "text": "a-1 one word\na-2 zwei Wörter\nb-1 三\n",
        "utt2spk": "a-1 a\na-2 a\nb-1 b\n",
        "spk2utt": "a a-1 a-2\nb b-1\n",
        "spk2gender": "a f\nb m\n",
        "reco2file_and_channel": "r1 mono A\nr2 call B\n",
    }
    for name, lines in tables.items():
        (folder / name).write_text(lines, encoding="utf-8")
    return folder


def _replace(name: str, old: str, new: str) -> Break:
    def act(folder: Path) -> None:
        lines = (folder / name).read_bytes()
        assert old.encode() in lines
        (folder / name).write_bytes(lines.replace(old.encode(), new.encode("latin-1" if "é" in new else "utf-8"), 1))

    return act


def _remove(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def _audio(name: str, samples: int) -> Break:
    return lambda folder: soundfile.write(folder.parent / name, np.zeros((samples, 1)), 16000)


BROKEN: dict[str, tuple[Break, list[str], str]] = {
    # rule: how it is broken, words of each problem, utterances that the repaired copy lacks
    "no text": (_remove("text"), ["text: found no such file"], ""),
    "no spk2utt": (_remove("spk2utt"), ["spk2utt: found no such file"], ""),
    "empty file": (
        lambda folder: (folder / "spk2gender").write_text(""),
        ["spk2gender: found an empty file", "no line for a,", "no line for b,"],
        "",
    ),
    "empty line": (_replace("text", "a-2 zwei", "\na-2 zwei"), ["text: line 2: found an empty line"], ""),
    "not UTF-8": (
        _replace("text", "zwei", "caf\u00e9"),
        ["text: line 2: found the byte 0xe9 at position 8", "text: found no line for a-2"],
        "a-2",
    ),
    "empty transcript": (
        _replace("text", "b-1 三", "b-1"),
        ["text: line 3: found only the key b-1, expected its transcript", "text: found no line for b-1"],
        "b-1",
    ),
    "duplicate key": (
        _replace("text", "b-1", "a-2 again\nb-1"),
        ["text: line 3: found the key a-2 again (first in line 2)"],
        "",
    ),
    "unsorted key": (
        _replace("text", "a-1 one word\na-2 zwei Wörter\n", "a-2 x\na-1 y\n"),
        ["text: line 2: found a-1 after a-2, expected keys in byte order"],
        "",
    ),
    "key too many": (
        _replace("text", "b-1", "a-3 more\nb-1"),
        ["text: line 3: found the key a-3, expected only keys that utt2spk has too"],
        "a-3",
    ),
    "key too few": (_replace("text", "a-2 zwei Wörter\n", ""), ["text: found no line for a-2"], "a-2"),
    "recording not used": (
        _replace("wav.scp", "r2", "r11 true |\nr2"),
        ["the key r11, expected only keys that segments", "no line for r11", "found true |: the command ended"],
        "",
    ),
    "recording missing": (
        _replace("segments", "b-1 r2", "b-1 r9"),
        ["wav.scp: line 2: found the key r2", "wav.scp: found no line for r9"],
        "b-1",
    ),
    "order by speaker": (
        lambda folder: (
            _replace("utt2spk", "a-1 a\na-2 a", "a-1 c\na-2 c")(folder),
            _replace("spk2utt", "a a-1 a-2\nb b-1", "b b-1\nc a-1 a-2")(folder),
            _remove("spk2gender")(folder),
        ),
        ["utt2spk: line 3: found speaker b after c where utterances are sorted"],
        "stays",
    ),
    "not the inverse": (
        _replace("spk2utt", "a-1 a-2", "a-1"),
        ["spk2utt: line 1: found other utterances of a, expected those of utt2spk: a-1 a-2"],
        "",
    ),
    "start after end": (
        _replace("segments", "r1 0 0.5", "r1 0.7 0.5"),
        ["segments: line 1: found the start 0.7 and the end 0.5"],
        "a-1",
    ),
    "no number": (_replace("segments", "r1 0 0.5", "r1 0 nan"), ["found the start 0 and the end nan"], "a-1"),
    "too many fields": (_replace("segments", "0 0.5", "0 0.5 1"), ["segments: line 1: found 4 fields"], "a-1"),
    "segment past the end": (
        _replace("segments", "1.005", "1.02"),
        ["segments: line 2: found a segment that ends at 1.02 s, expected at most the 1.000 s that recording r1 has"],
        "a-2",
    ),
    "segment behind the end": (
        _replace("segments", "0.25 -1", "1 -1"),
        ["segments: line 3: found a segment that starts at 1 s"],
        "b-1",
    ),
    "audio missing": (
        _replace("wav.scp", "mono.wav", "nowhere.wav"),
        ["wav.scp: line 1: found ", "nowhere.wav: no such audio file"],
        "a-1 a-2",
    ),
    "audio unreadable": (
        lambda folder: (folder.parent / "mono.wav").write_text("words"),
        ["mono.wav: not readable as audio"],
        "a-1 a-2",
    ),
    "audio empty": (_audio("mono.wav", 0), ["mono.wav: it has no samples"], "a-1 a-2"),
    "channel out of range": (
        _replace("reco2file_and_channel", "call B", "call C"),
        ["wav.scp: line 2: found 2 channels in r2, expected at least 3, because channel 3 is chosen"],
        "b-1",
    ),
    "channel not chosen": (
        _remove("reco2file_and_channel"),
        ["wav.scp: line 2: found 2 channels in r2, expected one, or a choice by reco2file_and_channel or --channel"],
        "b-1",
    ),
    "channel without a name": (
        _replace("reco2file_and_channel", "mono A", "mono left"),
        ["reco2file_and_channel: line 1: found the channel left"],
        "",
    ),
    "duration": (
        lambda folder: (folder / "utt2dur").write_text("a-1 0.5\na-2 -1\nb-1 x\n"),
        ["utt2dur: line 2: found -1, expected seconds", "utt2dur: line 3: found x"],
        "",
    ),
}


def test_a_sound_directory_has_no_problem(sound: Path) -> None:
    report = check(sound, jobs=2)
    assert report.problems == []
    assert (report.utterances, report.speakers, report.sample_rates) == (3, 2, [8000, 16000])
    assert report.seconds == pytest.approx(0.5 + 0.5 + 0.75)


@pytest.mark.parametrize("rule", BROKEN)
def test_rule(sound: Path, tmp_path: Path, rule: str) -> None:
    act, words, lost = BROKEN[rule]
    act(sound)
    said = [str(problem) for problem in check(sound).problems]
    assert all("\n" not in sentence and sentence.startswith(str(sound)) for sentence in said)
    for expected in words:
        assert any(expected in sentence for sentence in said), said
    assert len(said) <= len(words)

    before = {path.name: path.read_bytes() for path in sound.iterdir()}
    dropped = fix(sound, tmp_path / "fixed")
    assert {path.name: path.read_bytes() for path in sound.iterdir()} == before
    left = check(tmp_path / "fixed", demands=Demands(text=rule != "no text")).problems
    if lost == "stays":
        assert len(left) == 1
        return
    assert left == []
    assert " ".join(each.utt_id for each in dropped) == lost
    listed = (tmp_path / "fixed" / "dropped.txt").read_text(encoding="utf-8")
    assert listed == "".join(f"{each.utt_id}\t{each.why}\n" for each in dropped)


def test_sample_rate_only_where_asked_for(sound: Path) -> None:
    said = [str(problem) for problem in check(sound, sample_rate=16000).problems]
    assert said == [f"{sound}/wav.scp: line 2: found 8000 Hz, expected 16000 Hz"]


def test_an_explicit_channel_goes_first(sound: Path) -> None:
    _replace("reco2file_and_channel", "call B", "call C")(sound)
    assert check(sound, channel=2).problems == []
    assert len(check(sound, channel=3).problems) == 1


@pytest.mark.parametrize("name", ["wav.scp", "utt2spk"])
def test_without_a_needed_table_there_is_no_repair(sound: Path, tmp_path: Path, name: str) -> None:
    (sound / name).unlink()
    assert f"{sound}/{name}: found no such file" in str(check(sound).problems[0])
    with pytest.raises(UserError, match="without it nothing can be repaired"):
        fix(sound, tmp_path / "fixed")
    assert not (tmp_path / "fixed").exists()


def test_repair_refuses_to_write_nothing_or_in_place(sound: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the directory itself"):
        fix(sound, sound)
    (sound / "wav.scp").write_text("r1 nowhere.wav\nr2 nowhere.wav\n")
    with pytest.raises(UserError, match="no utterance is left"):
        fix(sound, tmp_path / "fixed")
    assert not (tmp_path / "fixed").exists()


def test_real_directory(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(real_data / "speechocean762")
    report = check(Path("dev"), jobs=2)
    assert report.problems == []
    assert report.utterances == 240 and report.seconds / 3600 == pytest.approx(0.287, abs=0.001)
