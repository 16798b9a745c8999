"""Recipes of real corpora: prepare.py on excerpts in each corpus' own layout, and a quick run from end to end."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import soundfile
import torch

from asrllm.data import audio, kaldi
from asrllm.data.validate import check

CHAPTER = "LibriSpeech/train-clean-100/26/496/26-496"
ROOT = Path(__file__).resolve().parents[1]
# recipe: folder of the excerpt, more arguments, utterances and speakers of each set
EXCERPTS = {
    "yesno": ("yesno", [], {"train": (21, 1), "dev": (4, 1), "test": (26, 1)}),
    "fsdd": ("fsdd", [], {"train": (1800, 4), "dev": (200, 4), "test": (500, 1)}),
    "librispeech": (
        "librispeech_mini",
        ["--partial"],
        {"train_clean_100": (165, 102), "dev": (6, 3), "test_clean": (6, 3), "test_other": (81, 8)},
    ),
    "aishell": ("aishell_mini", [], {"train": (220, 1), "dev": (41, 2), "test": (62, 2)}),
    "an4": ("an4_pieces", [], {"train": (60, 23), "dev": (7, 6), "test": (8, 4)}),
}


def prepare(recipe: str, corpus: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    program = ROOT / "egs" / recipe / "asr1" / "local" / "prepare.py"
    line = [sys.executable, str(program), "--out", str(out), "--corpus", str(corpus), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.parametrize("recipe", EXCERPTS)
def test_sets_of_the_excerpt(recipe: str, real_data: Path, tmp_path: Path) -> None:
    folder, more, expected = EXCERPTS[recipe]
    done = prepare(recipe, real_data / folder, tmp_path, *more)
    assert done.returncode == 0, done.stderr
    found = {}
    for name in expected:
        report = check(tmp_path / name, jobs=2)
        assert report.problems == []
        found[name] = (report.utterances, report.speakers)
    assert found == expected
    texts = [set(kaldi.read_table(tmp_path / name / "text")) for name in expected]
    assert sum(map(len, texts)) == len(set.union(*texts))


@pytest.mark.parametrize("recipe", [*EXCERPTS, "commonvoice", "loquacious"])
def test_a_corpus_that_is_not_there(recipe: str, tmp_path: Path) -> None:
    done = prepare(recipe, tmp_path / "nowhere", tmp_path / "data")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "not there: name the corpus' folder with --corpus, or fetch http" in done.stderr
    assert "B) into " in done.stderr and "with --download" in done.stderr  # a size in GB or MB stands before it
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", EXCERPTS)
def test_a_quick_run_from_end_to_end(recipe: str, real_data: Path, tmp_path: Path) -> None:
    folder, more, expected = EXCERPTS[recipe]
    test_sets = [name for name in expected if name.startswith("test")]
    line = [str(ROOT / "egs" / recipe / "asr1" / "run.sh"), "--quick", "true", "--test_sets", " ".join(test_sets)]
    line += ["--prepare_args", " ".join(["--corpus", str(real_data / folder), *more])]
    for name in ("datadir", "dumpdir", "expdir"):
        line += [f"--{name}", str(tmp_path / name)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    results = (tmp_path / "expdir" / "RESULTS.md").read_text()
    for name in test_sets:
        count = expected[name][0]
        assert f"|train_encoder/decode_ctc/{name}|{count}|" in results


def test_the_whole_corpus_is_wanted_without_partial(real_data: Path, tmp_path: Path) -> None:
    done = prepare("librispeech", real_data / "librispeech_mini", tmp_path / "data", "--hours", "960")
    assert done.returncode == 1
    for words in ("dev-other: not there", "train-clean-360.tar.gz (23.0 GB)", "train-other-500.tar.gz (30.6 GB)"):
        assert words in done.stderr
    assert "train-clean-100.tar.gz" not in done.stderr


def test_960_hours_are_the_three_parts_together(real_data: Path, tmp_path: Path) -> None:
    more = ["--partial", "--hours", "960"]
    assert prepare("librispeech", real_data / "librispeech_mini", tmp_path, *more).returncode == 0
    assert len(kaldi.read(tmp_path / "train_960")) == 165


def test_mandarin_loses_its_spaces_and_spelling_keeps_them(real_data: Path, tmp_path: Path) -> None:
    assert prepare("aishell", real_data / "aishell_mini", tmp_path).returncode == 0
    texts = kaldi.read_table(tmp_path / "train" / "text")
    assert texts["BAC009S0150W0123"] == "这两个内因指标一个叫做居民部门利息保障倍数"
    assert {"T E C H W E B报道三月三十日消息", "苹果表配apple pay"} <= set(texts.values())
    assert "已经成为当前房地产市场的接盘侠" in texts.values()  # a byte order mark stands before it in the corpus


def speech(real_data: Path, folder: Path, count: int, suffix: str) -> list[Path]:
    """Short pieces of a real recording."""
    wave, rate = soundfile.read(real_data / "misc" / "jfk.flac")
    folder.mkdir(parents=True)
    for number in range(count):
        soundfile.write(folder / f"{number}.{suffix}", wave[number * rate // 2 :][: 2 * rate], rate)
    return sorted(folder.iterdir())


def test_common_voice(real_data: Path, tmp_path: Path) -> None:
    """A release in Common Voice's layout, with MP3, a quoted sentence and a contributor in both train and test."""
    language = tmp_path / "corpus" / "cv-corpus-1.0" / "de"
    clips = speech(real_data, language / "clips", 5, "mp3")
    head = "client_id\tpath\tsentence_id\tsentence\tup_votes\n"
    rows = [f"{'abcba'[n] * 128}\t{clip.name}\tx{n}\tEr sagte Satz {{n}}.\t2\n" for n, clip in enumerate(clips)]
    for name, chosen in (("train", rows), ("dev", rows[2:3]), ("test", rows[:1])):
        (language / f"{name}.tsv").write_text(head + "".join(chosen), encoding="utf-8")
    done = prepare("commonvoice", tmp_path / "corpus", tmp_path / "data", "--language", "de")
    assert done.returncode == 0, done.stderr
    train = kaldi.read(tmp_path / "data" / "train")  # without the speakers of dev and test
    assert [each.utt_id for each in train] == [f"{'b' * 16}-1", f"{'b' * 16}-3"]
    assert check(tmp_path / "data" / "train").problems == []
    done = prepare("commonvoice", tmp_path / "corpus", tmp_path / "data", "--language", "fr")
    assert done.returncode == 1 and "fr/train.tsv: not there" in done.stderr


def test_loquacious_in_shards(real_data: Path, tmp_path: Path) -> None:
    """A dataset of Hugging Face with that one's columns, on disk, goes into tar shards that training reads."""
    datasets = pytest.importorskip("datasets")
    clips = speech(real_data, tmp_path / "clips", 6, "wav")
    rows = {
        "ID": [f"id/{n}" for n in range(6)],
        "wav": [{"bytes": clip.read_bytes(), "path": clip.name} for clip in clips],
        "spk_id": ["a", None, "b", "b", "b", "c"],
        "text": [f"words {n}" for n in range(6)],
    }
    table = datasets.Dataset.from_dict(rows).cast_column("wav", datasets.Audio(decode=False))
    splits = {"train": table.select(range(4)), "dev": table.select([4]), "test": table.select([5])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "hub")
    more = ["--source", str(tmp_path / "hub"), "--subset", "small", "--download", "--shard_mb", "1"]
    for _ in range(2):
        done = prepare("loquacious", tmp_path / "corpus", tmp_path / "data", *more)
        assert done.returncode == 0, done.stderr
    train = kaldi.read(tmp_path / "data" / "train")
    assert [(each.utt_id, each.speaker, each.text) for each in train] == [
        ("a-id/0", "a", "words 0"),
        ("b-id/2", "b", "words 2"),
        ("b-id/3", "b", "words 3"),
        ("unknown-id/1", "unknown", "words 1"),
    ]
    assert check(tmp_path / "data" / "train").problems == []
    expected = torch.from_numpy(soundfile.read(clips[2], dtype="float32")[0])
    assert torch.equal(audio.load(train[1], 16000), expected)


def test_the_template(real_data: Path, tmp_path: Path) -> None:
    clips = speech(real_data, tmp_path / "corpus" / "clips", 3, "flac")
    for name, clip in zip(("train", "dev", "test"), clips, strict=True):
        line = f"audio\ttext\tspeaker\nclips/{clip.name}\tAsk not  what\tj f k\n"
        (tmp_path / "corpus" / f"{name}.tsv").write_text(line)
    assert prepare("TEMPLATE", tmp_path / "corpus", tmp_path / "data").returncode == 0
    (only,) = kaldi.read(tmp_path / "data" / "test")
    assert (only.utt_id, only.speaker, only.text) == ("j_f_k-2", "j_f_k", "Ask not what")


def test_names_of_the_digits(real_data: Path, tmp_path: Path) -> None:
    assert prepare("fsdd", real_data / "fsdd", tmp_path, "--test_speaker", "theo").returncode == 0
    assert kaldi.read_table(tmp_path / "test" / "text")["theo-7-03"] == "seven"
    done = prepare("fsdd", real_data / "fsdd", tmp_path, "--test_speaker", "nobody")
    assert done.returncode == 1 and "has george, jackson, nicolas, theo, yweweler" in done.stderr


def test_an4_as_espnet_ships_it(real_data: Path, tmp_path: Path) -> None:
    """SPHERE files and transcripts between <s> and </s>."""
    with tarfile.open(real_data / "mini_an4" / "downloads.tar.gz") as tar:
        tar.extractall(tmp_path)
    assert prepare("an4", tmp_path / "downloads", tmp_path / "data").returncode == 0
    assert check(tmp_path / "data" / "train").problems == []
    texts = {**kaldi.read_table(tmp_path / "data/train/text"), **kaldi.read_table(tmp_path / "data/dev/text")}
    assert texts["fash-an251"] == "yes" and texts["fbbh-cen8"] == "march third nineteen twenty eight"


@pytest.mark.parametrize(
    ("recipe", "folder", "file", "text", "words"),
    [
        ("an4", "an4_pieces", "an4/etc/an4_test.transcription", "GO\n", "line 1: found 'GO', expected words and an"),
        ("an4", "an4_pieces", "an4/etc/an4_test.fileids", "x/no-body-b\n", "line 1: no transcript for no-body-b"),
        ("yesno", "yesno", "waves_yesno/0_2_1.wav", "", "0_2_1.wav: expected a name of digits 0 and 1"),
        ("librispeech", "librispeech_mini", f"{CHAPTER}-0099.flac", "", "26-496-0099 and 0 more are not both listed"),
        (
            "librispeech",
            "librispeech_mini",
            f"{CHAPTER}.trans.txt",
            "26-496-0000\n",
            "line 1: found '26-496-0000', exp",
        ),
        ("aishell", "aishell_mini", "data_aishell/transcript/aishell_transcript_v0.8.txt", "x\n", "line 1: found 'x'"),
        ("fsdd", "fsdd", "recordings/ten_george_1.wav", "", "expected a name such as 7_george_12.wav"),
    ],
)
def test_a_spoilt_corpus(
    real_data: Path, tmp_path: Path, recipe: str, folder: str, file: str, text: str, words: str
) -> None:
    shutil.copytree(real_data / folder, tmp_path / folder, copy_function=os.symlink)
    for path in [tmp_path / folder, *(tmp_path / folder).rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    (tmp_path / folder / file).unlink(missing_ok=True)
    (tmp_path / folder / file).write_text(text)
    more = ["--partial"] if recipe == "librispeech" else []
    done = prepare(recipe, tmp_path / folder, tmp_path / "data", *more)
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1
