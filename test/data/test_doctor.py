"""The data doctor: each oddity in a directory made for it, and what memory it takes."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrllm.bin import check_data
from asrllm.console import UserError
from asrllm.data import doctor, kaldi, walk
from asrllm.data.doctor import Examined, compare, examine
from asrllm.data.kaldi import Problem, Utterance
from asrllm.data.listening import Sound, measure

RATE = 8000
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "again", "today", "now"]


def tone(seconds: float, level: float = 0.3, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return level * np.sin(np.arange(round(seconds * RATE)) / 3) + 0.001 * draw.standard_normal(round(seconds * RATE))


def make(folder: Path, count: int = 60) -> list[Utterance]:
    """A directory without oddities: a different sentence of some 20 characters and two seconds each."""
    (folder.parent / "wav").mkdir(exist_ok=True)
    utterances = []
    for number in range(count):
        path = folder.parent / "wav" / f"{folder.name}{number}.wav"
        soundfile.write(path, tone(2 + number % 3 / 10, seed=hash((folder.name, number)) % 2**32), RATE)
        text = f"{WORDS[number % 11]} {WORDS[number // 11]} {WORDS[(number + 5) % 11]} {folder.name}"
        speaker = f"{folder.name}{number // 20}"
        utterances.append(Utterance(f"{speaker}-{number:02}", speaker, text, str(path)))
    kaldi.write(utterances, folder)
    return utterances


@pytest.fixture
def train(tmp_path: Path) -> Path:
    make(tmp_path / "train")
    return tmp_path / "train"


def kinds(result: Examined) -> dict[str, int]:
    return {kind: found.count for kind, found in result.findings.items()}


def test_nothing_odd(train: Path) -> None:
    result = examine(train, decode=True, jobs=2)
    assert kinds(result) == {}
    assert len(result.seconds) == 60 and sum(result.seconds) == pytest.approx(20 * (2 + 2.1 + 2.2), abs=1e-6)
    assert result.sample_rates == {RATE: 60} and len(result.speakers) == 3
    assert result.characters["x"] == sum(each.text.count("x") for each in kaldi.read(train))


def rewrite(folder: Path, change: Callable[[Utterance], Utterance]) -> None:
    kaldi.write([change(each) for each in kaldi.read(folder)], folder)


def give(wave: np.ndarray, rate: int = RATE) -> Callable[[Path], None]:
    return lambda folder: soundfile.write(kaldi.read(folder)[7].source, wave, rate)


def say(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        rewrite(folder, lambda each: Utterance(each.utt_id, each.speaker, text if "-07" in each.utt_id else each.text,
                                               each.source))  # fmt: skip

    return change


def cut(path: Path) -> None:
    source = Path(kaldi.read(path)[7].source)
    source.write_bytes(source.read_bytes()[:30])


def copy_audio(folder: Path) -> None:
    first, other = (kaldi.read(folder)[index].source for index in (3, 7))
    wave, rate = soundfile.read(first)
    soundfile.write(other, wave, rate)


CLIPPED = np.clip(5 * tone(2), -1, 1)
ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "clipping": (give(CLIPPED), "train0-07: "),
    "silence": (give(np.append(tone(0.1), np.zeros(2 * RATE))), "train0-07: 9"),
    "faint": (give(tone(2, level=0.003)), "train0-07: peak -4"),
    "mixed_sample_rates": (give(tone(2), 16000), "59 at 8000 Hz, 1 at 16000 Hz"),
    "unusable_audio": (cut, "train0-07: "),
    "too_short_for_ctc": (give(tone(0.5)), "train0-07: 20 frames needed in 0.50 s"),
    "odd_speaking_rate": (say("the fox jumps " * 30), "train0-07: 157.1 characters a second"),
    "duplicate_audio": (copy_audio, "train0-03 train0-07 (2 times)"),
    "duplicate_text": (say("The  dog over brown train"), "(2 times)"),
    "invisible_characters": (say("jumps over\u200b a lazy dog"), "train0-07: U+200B"),
    "wrong_duration": (
        lambda folder: (folder / "utt2dur").write_text(
            "".join(f"{each.utt_id} {9 if '-07' in each.utt_id else 2.1}\n" for each in kaldi.read(folder))
        ),
        "train0-07: 9.00 s by its table",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_each_oddity_is_found_where_it_is(train: Path, kind: str) -> None:
    change, example = ODD[kind]
    if kind == "duplicate_text":
        assert kaldi.read(train)[16].text != "the dog over brown train"
        say(kaldi.read(train)[16].text.upper())(train)
    else:
        change(train)
    result = examine(train, decode=True)
    found = result.findings.pop(kind)
    assert any(example in each for each in found.examples), found
    by_the_way = {"too_short_for_ctc": {"odd_speaking_rate"}, "odd_speaking_rate": {"too_short_for_ctc"}}
    by_the_way["wrong_duration"] = set()
    assert kinds(result).keys() <= by_the_way.get(kind, set())
    assert found.count == (2 if "duplicate" in kind else 1) or kind == "wrong_duration"


def test_headers_alone_know_nothing_of_samples(train: Path) -> None:
    give(CLIPPED)(train)
    assert kinds(examine(train)) == {}


def test_what_a_test_set_shares(tmp_path: Path, train: Path) -> None:
    utterances = make(tmp_path / "test", 20)
    mine = kaldi.read(train)
    utterances[0] = Utterance("test0-00", "test0", mine[5].text.capitalize(), utterances[0].source)
    utterances[1] = Utterance("test0-01", "test0", "a new sentence: \u00e9t\u00e9", mine[9].source)
    utterances[2] = Utterance("train1-99", "train1", "yet another one", utterances[2].source)
    kaldi.write(utterances, tmp_path / "test")
    shared = compare(examine(train, decode=True), examine(tmp_path / "test", decode=True))
    unseen = shared.pop("unseen_characters")
    assert {kind: (found.count, found.examples) for kind, found in shared.items()} == {
        "speakers_in_training": (1, ["train1: 1"]),
        "sentences_in_training": (1, ["test0-00"]),
        "audio_in_training": (1, ["test0-01"]),
    }
    assert unseen.examples[0] == "'\u00e9' 2 times, first in test0-01"


def test_the_program_writes_three_reports(train: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "test", 20)
    give(CLIPPED)(train)
    out = tmp_path / "out"
    check_data.main([str(train), "--doctor", str(out), "--against", str(tmp_path / "test"), "--listen", "--nj", "2"])
    said = capsys.readouterr().out
    assert said == (out / "report.txt").read_text()
    assert "  1 utterances that are clipped (clipping)\n    train0-07: " in said
    first, second = json.loads((out / "report.json").read_text())
    assert first["findings"]["clipping"]["count"] == 1 and first["utterances"] == 60
    assert "clipping" not in second["findings"] and second["folder"].endswith("test")
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    (train / "text").write_text((train / "text").read_text().replace("train0-07 ", "train0-07x "))
    with pytest.raises(UserError, match=r"2 broken rule\(s\), see"):
        check_data.main([str(train), "--doctor", str(out)])


def test_measures_of_known_waves() -> None:
    wave = np.concatenate([np.zeros(800), 0.5 * np.ones(800)]).astype(np.float32)
    sound = measure(wave, RATE)
    assert (sound.seconds, sound.silent_share, sound.clipped_share) == (0.2, 0.5, 0.0)
    assert sound.peak_db == pytest.approx(-6.02, abs=0.01)
    wave[[3, 100, 101, 102]] = [1, 1, 1, -1]  # a lone full sample is no clipping
    assert measure(wave, RATE).clipped_share == pytest.approx(3 / 1600)
    assert measure(wave, RATE).fingerprint != sound.fingerprint


def test_frames_that_ctc_needs() -> None:
    assert [doctor.ctc_frames(text) for text in ("", "ab", "aa", "too  oo")] == [0, 2, 3, 8]


# --- the walk


def walked(folder: Path) -> tuple[list[Utterance], list[str]]:
    problems: list[Problem] = []
    return list(walk.walk(folder, problems.append)), [str(each) for each in problems]


def test_a_walk_sees_what_reading_sees(real_data: Path, tmp_path: Path) -> None:
    for part in ("train", "dev", "test"):
        folder = real_data / "speechocean762" / part
        assert walked(folder) == (kaldi.read(folder), [])
    pieces = [Utterance(f"u{n}", "s", "x", f"{n // 2}.wav", n / 2, n / 2 + 0.5, 2, 0.5, f"r{n // 2}") for n in range(6)]
    kaldi.write(pieces, tmp_path / "cut")
    assert walked(tmp_path / "cut") == (kaldi.read(tmp_path / "cut"), [])
    (tmp_path / "cut" / "utt2dur").unlink()
    assert walked(tmp_path / "cut") == (kaldi.read(tmp_path / "cut"), [])


@pytest.mark.parametrize(
    ("table", "old", "new", "left", "words"),
    [
        ("text", "b two\n", "", "ac", "text: found no line for b, expected one, because utt2spk has it"),
        ("text", "b two\n", "b two\nbb x\n", "abc", "text: line 3: found the key bb, expected only keys that utt2spk"),
        ("text", "b two\n", "b two\nb x\n", "abc", "text: line 3: found the key b again (first in line 2)"),
        ("text", "b two\n", "\nb two\n", "abc", "text: line 2: found an empty line"),
        ("wav.scp", "b b.wav\n", "", "ac", "wav.scp: found no line for b"),
        ("utt2spk", "c s\n", "Z s\nc s\n", "ab", "utt2spk: line 3: found Z after b, expected keys in byte order"),
    ],
)
def test_a_walk_tells_what_is_broken(tmp_path: Path, table: str, old: str, new: str, left: str, words: str) -> None:
    texts = {"a": "one", "b": "two", "c": "three"}
    kaldi.write([Utterance(key, "s", text, f"{key}.wav") for key, text in texts.items()], tmp_path / "d")
    path = tmp_path / "d" / table
    path.write_text(path.read_text().replace(old, new))
    utterances, problems = walked(tmp_path / "d")
    assert "".join(each.utt_id for each in utterances) == left
    assert len(problems) == 1 and words in problems[0]


def test_memory_hardly_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under 200 bytes an utterance at the highest point; the tables alone have more than that."""
    monkeypatch.setattr(doctor, "listen", lambda utterance, decode: Sound(8.0, 16000))
    peaks = []
    for count in (5000, 25000):
        folder = tmp_path / str(count)
        folder.mkdir()
        with (
            (folder / "text").open("w") as text,
            (folder / "utt2spk").open("w") as spk,
            (folder / "wav.scp").open("w") as scp,
        ):
            for number in range(count):
                text.write(
                    f"s-{number:07} sentence number {number:07} of this directory, which is as long as others are\n"
                )
                spk.write(f"s-{number:07} s\n")
                scp.write(f"s-{number:07} /some/where/on/a/disk/with/a/long/path/s-{number:07}.flac\n")
        tracemalloc.start()
        result = examine(folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(result.seconds) == count and kinds(result) == {}
    assert (peaks[1] - peaks[0]) / 20000 < 200
