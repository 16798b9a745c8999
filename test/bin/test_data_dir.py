"""Kaldi's command lines as they are typed, on directories with real audio behind them."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrllm.bin import data_dir
from asrllm.console import UserError
from asrllm.data import audio, kaldi
from asrllm.data.kaldi import Utterance
from asrllm.data.validate import check

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/train: two speakers of three utterances each, 0.1 to 0.6 s of a tone."""
    monkeypatch.chdir(tmp_path)
    utterances = []
    for number in range(6):
        utt_id = f"{'ab'[number // 3]}-{number}"
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * np.sin(np.arange(1600 * (6 - number)) / 5), 16000)
        utterances.append(Utterance(utt_id, utt_id[0], f"words {number}", str(path)))
    kaldi.write(utterances, tmp_path / "data" / "train")
    return Path("data/train")


def run(line: str) -> None:
    data_dir.main(line.split())


def kept(folder: str) -> str:
    """The utterances of a directory that obeys every rule, audio included."""
    assert check(Path(folder)).problems == []
    return " ".join(each.utt_id for each in kaldi.read(Path(folder)))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--first data/train 2 data/new", "a-0 a-1"),
        ("--last data/train 2 data/new", "b-4 b-5"),
        ("--shortest data/train 3 data/new", "b-3 b-4 b-5"),
        ("--speakers data/train 2 data/new", "a-0 a-1 a-2"),
        ("--per-spk data/train 1 data/new", "a-0 b-3"),
        ("--per_spk data/train 2 data/new", "a-0 a-1 b-3 b-4"),
        ("data/train 2 data/new", "a-2 b-5"),
        ("--utt-list list data/train data/new", "a-1 b-4"),
        ("--spk-list list data/train data/new", "b-3 b-4 b-5"),
    ],
)
def test_subset(train: Path, line: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("list").write_text("b-4 more words\na-1\nnobody\n" if "utt-list" in line else "b\n")
    run(f"subset_data_dir {line}")
    assert kept("data/new") == expected
    assert f"reducing #utt from 6 to {len(expected.split())}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--first data/train 7 data/new", "cannot subset to 7 utterances: data/train has 6"),
        ("--first data/train data/new", "expected SRC NUMBER DEST, found data/train data/new"),
        ("data/train many data/new", "found 'many' for the number"),
        ("data/train 2 data/train", "would replace data/train, which it is made of"),
        ("data/train 2 data", "data: the new directory would replace data/train"),
        ("data/none 2 data/new", "data/none: no such data directory"),
        ("--utt-list none data/train data/new", "none: cannot be read"),
        ("--utt-list list data/train data/new", "no utterance is left"),
    ],
)
def test_subset_refuses(train: Path, line: str, words: str) -> None:
    Path("list").write_text("nobody\n")
    with pytest.raises(UserError, match=words):
        run(f"subset_data_dir {line}")
    assert [path.name for path in Path("data").iterdir()] == ["train"]


def test_copy_takes_values_that_begin_with_a_hyphen(train: Path) -> None:
    run("copy_data_dir --spk-prefix=new- --utt_prefix new- --utt-suffix -x data/train data/copy")
    assert kept("data/copy") == "new-a-0-x new-a-1-x new-a-2-x new-b-3-x new-b-4-x new-b-5-x"
    assert (Path("data/copy") / "utt2uniq").read_text().splitlines()[0] == "new-a-0-x a-0"
    assert {each.speaker for each in kaldi.read(Path("data/copy"))} == {"new-a", "new-b"}


def test_combine_is_the_whole_again(train: Path) -> None:
    run("subset_data_dir --first data/train 2 data/one")
    run("subset_data_dir --last data/train 4 data/two")
    (train / "utt2mood").write_text("".join(f"{each.utt_id} calm\n" for each in kaldi.read(train)))
    for name in ("one", "two"):
        shutil.copy(train / "utt2mood", f"data/{name}")
    run("combine_data --skip-fix true --extra-files utt2mood data/all data/one data/two")
    assert kaldi.read(Path("data/all")) == kaldi.read(train)
    assert (Path("data/all") / "utt2mood").read_bytes() == (train / "utt2mood").read_bytes()


@pytest.mark.parametrize(
    ("option", "folder", "parts"),
    [("", "split2", ["a-0 a-1 a-2", "b-3 b-4 b-5"]), ("--per-utt ", "split4utt", ["a-0 a-1", "a-2", "b-3 b-4", "b-5"])],
)
def test_split(train: Path, option: str, folder: str, parts: list[str]) -> None:
    run(f"split_data {option}data/train {len(parts)}")
    assert [kept(f"data/train/{folder}/{number}") for number in range(1, len(parts) + 1)] == parts
    with pytest.raises(UserError, match=r"2 group\(s\) cannot be split into 3 parts"):
        run("split_data data/train 3")


def test_split_by_recording(train: Path) -> None:
    path = str(Path("0.wav").resolve())
    pieces = [Utterance(f"u{n}", "a", "x", path, n / 10, n / 10 + 0.1, recording=f"r{n // 2}") for n in range(4)]
    kaldi.write(pieces, Path("data/cut"))
    run("split_data --per-reco data/cut 2")
    assert [kept(f"data/cut/split2reco/{number}") for number in (1, 2)] == ["u0 u1", "u2 u3"]


def test_measure(train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("get_utt2dur --nj 2 --cmd run.pl data/train")
    run("get_utt2num_samples data/train")
    assert (train / "utt2dur").read_text().splitlines()[::5] == ["a-0 0.600000", "b-5 0.100000"]
    assert (train / "utt2num_samples").read_text().splitlines()[::5] == ["a-0 9600", "b-5 1600"]
    (train / "utt2dur").write_text((train / "utt2dur").read_text().replace("0.600000", "7"))
    run("get_utt2dur data/train")
    assert "a-0 7\n" in (train / "utt2dur").read_text()
    assert "already exists with the expected length" in capsys.readouterr().out


def test_measured_samples_are_those_decoded(train: Path) -> None:
    path = str(Path("0.wav").resolve())
    cut = [Utterance("u", "a", "x", path, 0.10003, 0.25006, recording="r"), Utterance("v", "a", "x", path, 0.3, None)]
    kaldi.write([cut[0], Utterance("v", "a", "x", path, 0.3, None, recording="r")], Path("data/cut"))
    run("get_utt2num_samples data/cut")
    expected = [len(audio.load(each, 16000)) for each in cut]
    assert [int(line.split()[1]) for line in Path("data/cut/utt2num_samples").read_text().splitlines()] == expected


def test_perturbed_speed(train: Path, tmp_path: Path) -> None:
    if not shutil.which("sox"):
        pytest.skip("sox is not installed: the pipes of a perturbed directory call it")
    run("get_utt2dur data/train")
    run("perturb_data_dir_speed 0.9 data/train data/slow")
    assert kept("data/slow").split()[0] == "sp0.9-a-0"
    for before, after in zip(kaldi.read(train), kaldi.read(Path("data/slow")), strict=True):
        assert after.seconds == pytest.approx(before.seconds / 0.9, abs=1e-5)
        assert len(audio.load(after, 16000)) == pytest.approx(len(audio.load(before, 16000)) / 0.9, abs=16)
    run("perturb_data_dir_speed 1.1 data/slow data/again")
    line = (Path("data/again") / "wav.scp").read_text().splitlines()[0]
    assert line == f"sp1.1-sp0.9-a-0 sox {tmp_path}/0.wav -t wav - speed 0.9 | sox -t wav - -t wav - speed 1.1 |"
    assert (Path("data/again") / "utt2uniq").read_text().splitlines()[0] == "sp1.1-sp0.9-a-0 a-0"


def test_perturbed_tables_without_sox_at_hand(train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "nowhere")
    with pytest.raises(UserError, match="sox is not on the PATH"):
        run("perturb_data_dir_speed 0.9 data/train data/slow")
    Path("sox").write_text("")
    Path("sox").chmod(0o755)
    monkeypatch.setenv("PATH", str(Path.cwd()))
    pieces = [
        Utterance("u", "s", "x", "a b.wav", 1.8, None, recording="r"),
        Utterance("v", "s", "x", "c.wav", 0.9, 3.6),
    ]
    kaldi.write(pieces, Path("data/cut"))
    run("perturb_data_dir_speed 0.9 data/cut data/slow")
    assert (Path("data/slow") / "segments").read_text() == (
        "sp0.9-u sp0.9-r 2.000000 -1\nsp0.9-v sp0.9-v 1.000000 4.000000\n"
    )
    assert "sp0.9-r sox 'a b.wav' -t wav - speed 0.9 |\n" in (Path("data/slow") / "wav.scp").read_text()
    for factor in ("0", "fast", "-1"):
        with pytest.raises(UserError, match="expected a number from 0.1 to 10"):
            run(f"perturb_data_dir_speed -- {factor} data/cut data/slow")
    kaldi.write([Utterance("u", "s", "x", "a.ark:7")], Path("data/ark"))
    with pytest.raises(UserError, match="sox cannot read an archive"):
        run("perturb_data_dir_speed 0.9 data/ark data/slow")


def test_validate_and_fix(train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("validate_data_dir --no-feats data/train")
    run("fix_data_dir data/train")
    assert "nothing to mend, 6 utterances" in capsys.readouterr().out
    (train / "text").write_text((train / "text").read_text().replace("a-1 words 1\n", ""))
    (train / "utt2spk").write_text("\r\n".join(reversed((train / "utt2spk").read_text().splitlines())) + "\r\n")
    with pytest.raises(UserError, match="problem"):
        run("validate_data_dir data/train")
    before = {path.name: path.read_bytes() for path in train.iterdir()}
    run("fix_data_dir data/train")
    said = capsys.readouterr().out
    assert "dropped a-1: text has no sound line for it" in said and "kept 5 utterances, dropped 1" in said
    assert {path.name: path.read_bytes() for path in (train / ".backup").iterdir()} == before
    assert kept("data/train") == "a-0 a-2 b-3 b-4 b-5"
    assert b"\r" not in (train / "utt2spk").read_bytes()
    Path("0.wav").unlink()
    run("validate_data_dir data/train")
    with pytest.raises(UserError, match=r"1 problem\(s\)"):
        run("validate_data_dir --audio data/train")
    run("fix_data_dir --audio data/train")
    assert kept("data/train") == "a-2 b-3 b-4 b-5" and (train / ".backup.1").is_dir()


def test_waived_rules(train: Path) -> None:
    (train / "text").unlink()
    (train / "utt2spk").write_text((train / "utt2spk").read_text().replace("a-0 a", "a-0 z"))
    (train / "spk2utt").write_text("a a-1 a-2\nb b-3 b-4 b-5\nz a-0\n")
    for options in ("", "--no-text", "--no-spk-sort"):
        with pytest.raises(UserError):
            run(f"validate_data_dir {options} data/train")
    run("validate_data_dir --no-text --no-spk-sort --non-print data/train")
    (train / "wav.scp").unlink()
    run("validate_data_dir --no-text --no-spk-sort --no-wav data/train")


@pytest.mark.parametrize(
    ("program", "words", "given", "printed"),
    [
        ("utils/utt2spk_to_spk2utt", ["data/train/utt2spk"], "", "a a-0 a-1 a-2\nb b-3 b-4 b-5\n"),
        ("utils/spk2utt_to_utt2spk.pl", [], "x caf\xe9 b\n", "caf\xe9 x\nb x\n"),
        ("utils/filter_scp", ["--exclude", "-f", "2", "ids"], "1 a x\n2 b y\n3 \xe9\n", "2 b y\n3 \xe9\n"),
        ("utils/data/subset_data_dir.sh", ["--first", "data/train", "2", "data/n"], "", None),
        ("utils/get_utt2dur.sh", ["data/train"], "", "get_utt2dur.sh: computed data/train/utt2dur\n"),
    ],
)
def test_the_shell_names(train: Path, program: str, words: list[str], given: str, printed: str | None) -> None:
    Path("ids").write_text("a first field\n")
    done = subprocess.run([ROOT / program, *words], input=given.encode("latin-1"), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert printed is None or done.stdout.decode("latin-1") == printed


def test_every_name_of_kaldi_is_a_tool() -> None:
    links = [path for path in (ROOT / "utils").rglob("*") if path.is_symlink() and path.resolve().stem == "data_dir"]
    tools = data_dir.parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert {path.name.split(".")[0] for path in links} == set(tools)
    assert {path.name for path in links if path.suffix == ".pl"} == {
        "filter_scp.pl",
        "spk2utt_to_utt2spk.pl",
        "utt2spk_to_spk2utt.pl",
    }
