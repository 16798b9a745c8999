"""Recipes of real corpora: prepare.py on excerpts in each corpus' own layout, and a quick run from end to end."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from asrllm.data import kaldi
from asrllm.data.validate import check

ROOT = Path(__file__).resolve().parents[1]
# recipe: folder of the excerpt, more arguments, utterances and speakers of each set
EXCERPTS = {
    "yesno": ("yesno", [], {"train": (21, 1), "dev": (4, 1), "test": (26, 1)}),
    "fsdd": ("fsdd", [], {"train": (1800, 4), "dev": (200, 4), "test": (500, 1)}),
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


@pytest.mark.parametrize("recipe", EXCERPTS)
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


def test_names_of_the_digits(real_data: Path, tmp_path: Path) -> None:
    assert prepare("fsdd", real_data / "fsdd", tmp_path, "--test_speaker", "theo").returncode == 0
    assert kaldi.read_table(tmp_path / "test" / "text")["theo-7-03"] == "seven"
    done = prepare("fsdd", real_data / "fsdd", tmp_path, "--test_speaker", "nobody")
    assert done.returncode == 1 and "has george, jackson, nicolas, theo, yweweler" in done.stderr


def test_an4_as_espnet_ships_it(real_data: Path, tmp_path: Path) -> None:
    """SPHERE files and transcripts between <s> and </s>."""
    with tarfile.open(real_data / "mini_an4" / "downloads.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
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
    done = prepare(recipe, tmp_path / folder, tmp_path / "data")
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1
