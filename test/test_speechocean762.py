"""egs/speechocean762's prepare.py: on three made-up utterances, on broken copies of them, and on the corpus itself."""

import subprocess
import sys
from pathlib import Path

import pytest

PARTS = ("train", "dev", "test")
TABLES = {
    "wav.scp": "100010002\tWAVE/b.opus\n000010011\tWAVE/a.opus\n000010035\tWAVE/c.opus\n",
    "text": "100010002\tIT'S A BEAR\n000010011\tWE CALL\n000010035\tZERO\n",
    "utt2spk": "100010002\t1000\n000010011\t0001\n000010035\t0001\n",
}


def prepare(root: Path, corpus: Path, out: Path) -> subprocess.CompletedProcess:
    program = root / "egs/speechocean762/asr1/local/prepare.py"
    command = [sys.executable, program, "--out", out, "--corpus", corpus, "--no_pretrained"]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "WAVE").mkdir(parents=True)
    for name in "abc":
        (folder / "WAVE" / f"{name}.opus").touch()
    for part in PARTS:
        (folder / part).mkdir()
        for name, content in TABLES.items():
            (folder / part / name).write_text(content)
    return folder


def test_tables(root: Path, corpus: Path, tmp_path: Path) -> None:
    assert prepare(root, corpus, tmp_path / "data").returncode == 0
    found = {path.name: path.read_text() for path in (tmp_path / "data" / "dev").iterdir()}
    assert found == {
        "wav.scp": f"0001-000010011 {corpus}/WAVE/a.opus\n0001-000010035 {corpus}/WAVE/c.opus\n"
        f"1000-100010002 {corpus}/WAVE/b.opus\n",
        "text": "0001-000010011 we call\n0001-000010035 zero\n1000-100010002 it's a bear\n",
        "utt2spk": "0001-000010011 0001\n0001-000010035 0001\n1000-100010002 1000\n",
        "spk2utt": "0001 0001-000010011 0001-000010035\n1000 1000-100010002\n",
    }


def test_a_second_run_touches_nothing(root: Path, corpus: Path, tmp_path: Path) -> None:
    prepare(root, corpus, tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    prepare(root, corpus, tmp_path / "data")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("train/text", None, "OpenSLR number 101"),
        ("dev/text", "000010011\tWE CALL\n", "2 utterances are not in all of"),
        ("test/text", "000010011\n", "line 1: found '000010011'"),
        ("WAVE/c.opus", None, "1 recordings of train are missing: WAVE/c.opus first"),
    ],
)
def test_mistakes_are_sentences(
    root: Path, corpus: Path, tmp_path: Path, file: str, content: str | None, sentence: str
) -> None:
    if content is None:
        (corpus / file).unlink()
    else:
        (corpus / file).write_text(content)
    result = prepare(root, corpus, tmp_path / "data")
    assert result.returncode == 1 and sentence in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_corpus_itself(root: Path, real_data: Path, tmp_path: Path) -> None:
    result = prepare(root, real_data / "speechocean762", tmp_path)
    assert result.returncode == 0, result.stderr
    speakers: set[str] = set()
    for part, utterances in zip(PARTS, (2260, 240, 1200), strict=True):  # the counts of the corpus' README
        lines = (tmp_path / part / "utt2spk").read_bytes().splitlines()
        assert len(lines) == utterances and lines == sorted(lines)
        own = {line.split()[1].decode() for line in lines}
        assert not own & speakers
        speakers |= own
    assert len(speakers) == 113 + 12 + 60
