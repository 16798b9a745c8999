"""Data directories: tables joined by key, in byte order, strict UTF-8; what is written reads back equal."""

from pathlib import Path

import pytest

from asrllm.console import UserError
from asrllm.data.kaldi import Utterance, read, read_table, write


def _fill(folder: Path, **tables: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, lines in tables.items():
        (folder / name.replace("wav_scp", "wav.scp")).write_text(lines, encoding="utf-8")
    return folder


def test_tables_are_joined_by_key_with_spaces_or_tabs(tmp_path: Path) -> None:
    folder = _fill(
        tmp_path / "train",
        wav_scp="b  cat b.wav |\na\ta.wav\n",
        utt2spk="a\tone\nb two\n",
        text="b\tzwei \u3000 Wörter \na  one  word\n",
    )
    assert read(folder) == [
        Utterance("a", "one", "one  word", "a.wav"),
        Utterance("b", "two", "zwei \u3000 Wörter", "cat b.wav |"),
    ]


def test_order_is_that_of_bytes(tmp_path: Path) -> None:
    keys = ["ä", "a", "Z", "_", "\U00010000", "\uffee"]
    folder = _fill(
        tmp_path / "train",
        wav_scp="".join(f"{key} x.wav\n" for key in keys),
        utt2spk="".join(f"{key} one\n" for key in keys),
    )
    assert [each.utt_id for each in read(folder)] == ["Z", "_", "a", "ä", "\uffee", "\U00010000"]


def test_segments_channels_and_durations(tmp_path: Path) -> None:
    folder = _fill(
        tmp_path / "train",
        wav_scp="call call.wav\n",
        segments="u1 call 0.5 2.0\nu2 call 3 -1\n",
        utt2spk="u1 one\nu2 two\n",
        reco2file_and_channel="call call B\n",
    )
    assert read(folder) == [
        Utterance("u1", "one", "", "call.wav", 0.5, 2.0, 2, 1.5, "call"),
        Utterance("u2", "two", "", "call.wav", 3.0, None, 2, None, "call"),
    ]
    assert [each.channel for each in read(folder, channel=1)] == [1, 1]
    (folder / "utt2dur").write_text("u1 1.25\nu2 4\n")
    assert [each.seconds for each in read(folder)] == [1.25, 4.0]


def test_writing_reads_back_equal_and_replaces_whole(tmp_path: Path) -> None:
    utterances = [
        Utterance("u1", "one", "ein Wort", "call.wav", 0.5, 2.0, 2, 1.5, "call"),
        Utterance("u2", "two", "夏天", "call.wav", 3.0, None, 2, 4.25, "call"),
    ]
    folder = tmp_path / "deep" / "train"
    write(reversed(utterances), folder)
    assert read(folder) == utterances
    assert (folder / "spk2utt").read_text() == "one u1\ntwo u2\n"
    write([Utterance("u3", "one", "", "a.wav")], folder)
    assert sorted(path.name for path in folder.iterdir()) == ["spk2utt", "utt2spk", "wav.scp"]
    assert [path.name for path in folder.parent.iterdir()] == ["train"]


def test_write_interrupted_leaves_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    write([Utterance("u1", "one", "text", "a.wav")], folder)
    with pytest.raises(UnicodeEncodeError):
        write([Utterance("u2", "one", "lone \ud800", "a.wav")], folder)
    assert [each.utt_id for each in read(folder)] == ["u1"]
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize(
    ("utterances", "words"),
    [
        ([Utterance("u1", "one", "x", "a.wav"), Utterance("u1", "one", "y", "b.wav")], "two utterances with the id u1"),
        ([Utterance("u 1", "one", "x", "a.wav")], "found the key 'u 1'"),
        ([Utterance("u1", "one", "x\ny", "a.wav")], r"text: found the key 'u1' with 'x\\ny'"),
        (
            [Utterance("u1", "one", "x", "a.wav"), Utterance("u2", "one", "", "b.wav")],
            "text: found the key 'u2' with ''",
        ),
    ],
)
def test_what_would_not_read_back_is_not_written(tmp_path: Path, utterances: list[Utterance], words: str) -> None:
    with pytest.raises(UserError, match=words):
        write(utterances, tmp_path / "train")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"utt2spk": "a one\n"}, "wav.scp: found no readable file"),
        ({"wav_scp": "a a.wav\n"}, "utt2spk: found no readable file"),
        ({"wav_scp": "a a.wav\n", "utt2spk": "a one\n", "text": "b x\n"}, "text: a is not in it"),
        ({"wav_scp": "a a.wav\n", "utt2spk": "a one\n", "text": "a\n"}, "text: line 1: found only the key a, expected"),
        ({"wav_scp": "a a.wav\n", "utt2spk": "a one\na two\n"}, r"line 2: found the key a again \(first in line 1\)"),
        ({"wav_scp": "a a.wav\n\n", "utt2spk": "a one\n"}, "wav.scp: line 2: found an empty line"),
        ({"wav_scp": "a a.wav\n", "utt2spk": "a one\n", "segments": "a a 3 2\n"}, "the start 3 and the end 2"),
        ({"wav_scp": "a a.wav\n", "utt2spk": "a one\n", "segments": "a b 1 2\n"}, "wav.scp: b is not in it"),
        ({"wav_scp": "a a.wav\n", "utt2spk": "a one\n", "reco2file_and_channel": "a a left\n"}, "the channel left"),
    ],
)
def test_faults_are_one_sentence(tmp_path: Path, tables: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(_fill(tmp_path / "train", **tables))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"a fine\nb caf\xe9\n")
    with pytest.raises(UserError, match="text: line 2: found the byte 0xe9 at position 6, which is not UTF-8"):
        read_table(tmp_path / "text")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such data directory"):
        read(tmp_path / "nowhere")


def test_real_directory(real_data: Path) -> None:
    folder = real_data / "speechocean762" / "test"
    utterances = read(folder)
    assert len(utterances) == 1200 and len({each.speaker for each in utterances}) == 60
    assert utterances[0].utt_id == (folder / "text").read_text().split("\t", 1)[0]
