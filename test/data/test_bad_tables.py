"""Tables that are broken in every way we know: one sentence with file and line, and a repair that loses nothing
else."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrllm.console import UserError
from asrllm.data import kaldi, shards, tables
from asrllm.data.kaldi import Problem
from asrllm.data.repair import mend
from asrllm.data.shards import Sample
from asrllm.data.validate import Demands, check, open_directory
from asrllm.data.walk import walk

NO_AUDIO = Demands(audio=False)
TABLES = {
    "wav.scp": "r1 a.wav\nr2 cat b.wav |\n",
    "segments": "a-1 r1 0 0.5\na-2 r1 0.5 1.0\nb-1 r2 0.25 -1\n",
    "text": "a-1 one word\na-2 zwei W\u00f6rter\nb-1 \u4e09\n",
    "utt2spk": "a-1 a\na-2 a\nb-1 b\n",
    "spk2utt": "a a-1 a-2\nb b-1\n",
    "spk2gender": "a f\nb m\n",
    "utt2dur": "a-1 0.5\na-2 0.5\nb-1 0.75\n",
    "reco2file_and_channel": "r1 mono A\nr2 call B\n",
}


def second(data: bytes, change: bytes) -> bytes:
    """The table with something before its second line."""
    first, rest = data.split(b"\n", 1)
    return first + b"\n" + change + rest


def key_of(data: bytes, line: int) -> bytes:
    return data.split(b"\n")[line].split()[0]


FAULTS = {
    # name: how the file is spoilt, line of the problem (0: none), what is found
    "byte order mark": (lambda data: b"\xef\xbb\xbf" + data, 1, "a byte order mark before the key"),
    "byte order mark inside": (lambda data: second(data, b"\xef\xbb\xbf"), 2, "a byte order mark before the key"),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), 1, "UTF-16 text"),
    "UTF-16 big endian": (lambda data: b"\xfe\xff" + data.decode().encode("utf-16-be"), 1, "UTF-16 text"),
    "Latin-1": (lambda data: second(data, key_of(data, 1) + b" caf\xe9\n"), 2, "the byte 0xe9 at position"),
    "GB 18030": (lambda data: second(data, "\u5317\u4eac x\n".encode("gb18030")), 2, "which is not UTF-8"),
    "cut off in a letter": (lambda data: data[:-1] + "\u00e9".encode()[:1], -1, "which is not UTF-8"),
    "NUL": (lambda data: second(data, b"\0\0\0\n"), 2, "a NUL byte"),
    "zeros at the end": (lambda data: data + bytes(4096), -2, "a NUL byte"),
    "empty": (lambda data: b"", 0, "an empty file"),
    "empty line": (lambda data: second(data, b"\n"), 2, "an empty line"),
    "blanks alone": (lambda data: second(data, b" \t \n"), 2, "an empty line"),
    "key alone": (lambda data: second(data, b"a-11\n"), 2, "only the key a-11"),
    "key twice": (lambda data: second(data, data.split(b"\n")[0] + b"\n"), 2, "again (first in line 1)"),
    "not sorted": (lambda data: second(data, b"A x\n"), 2, "A after"),
}


def write(folder: Path) -> Path:
    folder.mkdir()
    for name, text in TABLES.items():
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write(tmp_path / "train")


def test_the_directory_is_sound(sound: Path) -> None:
    assert check(sound, demands=NO_AUDIO).problems == []


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_table(sound: Path, table: str, fault: str) -> None:
    spoil, line, words = FAULTS[fault]
    before = {name: (sound / name).read_bytes() for name in TABLES}
    (sound / table).write_bytes(spoil(before[table]))
    problems = check(sound, demands=NO_AUDIO).problems
    lines = len((sound / table).read_bytes().split(b"\n"))
    place = {-1: lines, -2: lines}.get(line, line)
    where = f"{sound}/{table}: line {place}: found " if place else f"{sound}/{table}: found "
    assert any(str(each).startswith(where) and words in str(each) for each in problems), problems
    assert all("\n" not in str(each) for each in problems)

    try:
        mended, dropped = mend(open_directory(sound, open_audio=False)[0])
    except UserError as error:
        assert "no utterance is left" in str(error) or "nothing can be repaired" in str(error)
        return
    assert {name: (sound / name).read_bytes() for name in TABLES if name != table} == {
        name: data for name, data in before.items() if name != table
    }
    gone = {each.utt_id for each in dropped}
    for utt_id in ("a-1", "a-2", "b-1"):  # whoever is not listed with a reason is there with all its lines
        assert (utt_id in gone) != (utt_id in mended["utt2spk"])
    for name, text in TABLES.items():
        for key, value in mended.get(name, {}).items():
            assert name in (table, "spk2utt") or f"{key} {value}\n" in text


@pytest.mark.parametrize("table", TABLES)
def test_windows_line_ends_lose_nothing(sound: Path, table: str) -> None:
    (sound / table).write_bytes(TABLES[table].replace("\n", "\r\n").encode())
    assert check(sound, demands=NO_AUDIO).problems == []
    assert mend(open_directory(sound, open_audio=False)[0])[0].keys() == TABLES.keys()
    assert kaldi.read(sound) == kaldi.read(write(sound.parent / "plain"))


@pytest.mark.parametrize(
    ("table", "old", "new", "words"),
    [
        (
            "utt2spk",
            "a-2 a",
            "a-2 a b",
            "line 2: found the utterance a-2 with the speaker 'a b', expected one word each",
        ),
        ("utt2spk", "b-1 b", "b 1 b", "line 3: found the utterance b with the speaker '1 b'"),
        ("text", "b-1", "b 1", "line 3: found the key b, expected only keys that utt2spk has too"),
        ("segments", "r1 0 0.5", "r 1 0 0.5", "line 1: found 4 fields after the key"),
        ("segments", "0.5 1.0", "0,5 1,0", "line 2: found the times 0,5 and 1,0"),
        ("segments", "0.5 1.0", "0.5 inf", "line 2: found the start 0.5 and the end inf"),
        ("segments", "0.25 -1", "-0.25 1", "line 3: found the start -0.25 and the end 1"),
        ("segments", "r1 0.5 1.0", "r1", "line 2: found 1 fields"),
        ("utt2dur", "0.75", "0", "line 3: found 0, expected seconds"),
        ("utt2dur", "0.75", "1e999", "line 3: found 1e999"),
        ("reco2file_and_channel", "call B", "call stereo", "line 2: found the channel stereo"),
        ("reco2file_and_channel", "call B", "call 0", "line 2: found the channel 0"),
        ("spk2utt", "b b-1", "b b-1 b-2", "line 2: found other utterances of b"),
        ("spk2gender", "b m", "c m", "line 2: found the key c"),
    ],
)
def test_a_broken_value(sound: Path, table: str, old: str, new: str, words: str) -> None:
    path = sound / table
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    said = [str(each) for each in check(sound, demands=NO_AUDIO).problems]
    assert any(each.startswith(f"{path}: {words}") for each in said), said


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/abs/olute", "a/b", "..", "-rf", "C:\\x", "con", "s\u00e9/\u4e09", "$(x)"]
)
def test_speakers_and_ids_named_like_paths(tmp_path: Path, name: str) -> None:
    made = {"utt2spk": {f"{name}-1": name}, "wav.scp": {f"{name}-1": "a.wav"}, "text": {f"{name}-1": "x"}}
    tables.write(made, tmp_path / "in" / "train")
    for step, again in enumerate((tables.rename(tables.read(tmp_path / "in" / "train"), str, str), made)):
        tables.write(again, tmp_path / "in" / f"copy{step}")
    wave = (Path(__file__).parents[2] / "egs/mini/asr1/corpus/dev/awb0.opus").read_bytes()
    shards.write(lambda done: [Sample(f"{name}-1", name, "x", wave, "opus")][done:], tmp_path / "in" / "shards")
    assert [each.speaker for each in shards.utterances(tmp_path / "in" / "shards")] == [name]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert kaldi.read(tmp_path / "in" / "copy0") == kaldi.read(tmp_path / "in" / "train")


def test_two_gigabytes_of_nothing(sound: Path) -> None:
    """A sparse file, as a crash leaves it, takes neither time nor memory."""
    with (sound / "text").open("ab") as stream:
        stream.truncate(2 << 30)
    if os.stat(sound / "text").st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no sparse files")
    found = [str(each) for each in check(sound, demands=NO_AUDIO).problems]
    assert any("text: line 4: found a NUL byte" in each for each in found)
    problems: list[Problem] = []
    assert [each.utt_id for each in walk(sound, problems.append)] == ["a-1", "a-2", "b-1"]
    assert len(problems) == 1


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_problems(data: bytes) -> None:
    path = Path(f"/tmp/.bad_table_{os.getpid()}")
    try:
        path.write_bytes(data)
        rows, problems = kaldi.scan(path)
    finally:
        path.unlink()
    assert rows or problems
    assert len({row.key for row in rows}) == len(rows)
    assert all("\n" not in str(each) for each in problems)
    for row in rows:
        assert f"{row.key}".encode() in data and row.value.encode() in data and row.key and row.value


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "file").write_text("x")
    for name in ("loop", "one", "gone"):
        with pytest.raises(UserError, match=f"{name}: a link that leads to no directory or back to itself"):
            check(tmp_path / name)
    for name in ("file", "absent", "file/below"):
        with pytest.raises(UserError, match=f"{name}: no such data directory"):
            check(tmp_path / name)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "text").symlink_to("text")
    (tmp_path / "inside" / "utt2spk").mkdir()
    said = [str(each) for each in check(tmp_path / "inside", demands=NO_AUDIO).problems]
    assert any("utt2spk: found no readable file (Is a directory)" in each for each in said)
