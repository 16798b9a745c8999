"""Tables of a directory: what cutting, renaming, joining and splitting keep and what they refuse."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrllm.console import UserError
from asrllm.data import kaldi, tables
from asrllm.data.tables import Tables

IDS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=6)


@st.composite
def directories(draw: st.DrawFn) -> Tables:
    """A sound directory, with or without segments."""
    utt_ids = draw(st.lists(IDS, min_size=1, max_size=12, unique=True))
    speakers = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    utt2spk = {utt_id: draw(st.sampled_from(speakers)) for utt_id in utt_ids}
    made: Tables = {"utt2spk": utt2spk, "text": {utt_id: f"words of {utt_id}" for utt_id in utt_ids}}
    made["spk2gender"] = dict.fromkeys(set(utt2spk.values()), "f")
    held = utt_ids
    if draw(st.booleans()):
        held = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
        made["segments"] = {each: f"{draw(st.sampled_from(held))} {n}.0 {n + 1}.0" for n, each in enumerate(utt_ids)}
        held = sorted(tables.recordings(made, utt_ids))
    made["wav.scp"] = {name: f"/data/{name}.flac" for name in held}
    return {**made, "spk2utt": kaldi.invert(utt2spk)}


@settings(max_examples=60, deadline=None)
@given(directories(), st.data())
def test_parts_joined_are_the_whole(whole: Tables, data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([[[utt_id] for utt_id in sorted(whole["utt2spk"])], tables.by_recording(whole)]))
    count = data.draw(st.integers(1, len(groups)))
    parts = tables.split(groups, count)
    assert len(parts) == count and all(parts)
    assert [utt_id for part in parts for utt_id in part] == [utt_id for group in groups for utt_id in group]
    cut = [tables.keep(whole, part) for part in parts]
    assert tables.join(cut, [str(number) for number in range(count)]) == whole
    for part, kept in zip(parts, cut, strict=True):
        assert set(kept["text"]) == set(part)
        assert set(kept["wav.scp"]) == tables.recordings(whole, part)
        assert set(kept["spk2gender"]) == {whole["utt2spk"][utt_id] for utt_id in part}


@settings(max_examples=60, deadline=None)
@given(directories())
def test_renaming_there_and_back(whole: Tables) -> None:
    there = tables.rename(whole, lambda name: f"p-{name}", lambda name: f"{name}-s")
    assert there["utt2uniq"] == {f"p-{utt_id}": utt_id for utt_id in whole["utt2spk"]}
    back = tables.rename(there, lambda name: name.removeprefix("p-"), lambda name: name.removesuffix("-s"))
    assert {name: table for name, table in back.items() if name != "utt2uniq"} == whole


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([1] * 10, 3, [3, 4, 3]),
        ([1] * 4, 4, [1, 1, 1, 1]),
        ([5, 1, 1, 1], 2, [5, 3]),
        ([1, 1, 1, 5], 2, [3, 5]),
        ([1, 9, 1, 9], 3, [10, 1, 9]),
        ([9, 1, 1], 3, [9, 1, 1]),
        ([1, 1, 9], 3, [1, 1, 9]),
    ],
)
def test_split_is_even_as_far_as_groups_allow(sizes: list[int], count: int, expected: list[int]) -> None:
    groups = [[f"{number}-{each}" for each in range(size)] for number, size in enumerate(sizes)]
    assert [len(part) for part in tables.split(groups, count)] == expected


def test_more_parts_than_groups_are_refused() -> None:
    with pytest.raises(UserError, match=r"2 group\(s\) cannot be split into 3 parts"):
        tables.split([["a"], ["b"]], 3)


ONE: Tables = {"utt2spk": {"a": "x"}, "wav.scp": {"a": "a.wav"}, "text": {"a": "one"}}
TWO: Tables = {"utt2spk": {"b": "x"}, "wav.scp": {"r": "r.wav"}, "segments": {"b": "r 0 2"}}


def test_join_makes_segments_where_one_directory_has_none(caplog: pytest.LogCaptureFixture) -> None:
    joined = tables.join([ONE, {**TWO, "reco2file_and_channel": {"r": "r B"}}], ["one", "two"])
    assert joined["segments"] == {"a": "a 0 -1", "b": "r 0 2"}
    assert joined["reco2file_and_channel"] == {"a": "a A", "r": "r B"}
    assert joined["spk2utt"] == {"x": "a b"}
    assert "text" not in joined and "text: not in two, so it is left out" in caplog.text


def test_join_refuses_an_id_with_two_meanings() -> None:
    with pytest.raises(UserError, match="two/wav.scp: found a with 'b.wav', but 'a.wav' in a directory before it"):
        tables.join([ONE, {**ONE, "wav.scp": {"a": "b.wav"}}], ["one", "two"])


def test_writing_spares_what_it_does_not_know(tmp_path: Path) -> None:
    tables.write(ONE, tmp_path / "train")
    (tmp_path / "train" / "split4").mkdir()
    tables.write(ONE, tmp_path / "train")
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["text", "utt2spk", "wav.scp"]
    (tmp_path / "train" / "wav").mkdir()
    with pytest.raises(UserError, match="holds wav, which would be lost with it"):
        tables.write(ONE, tmp_path / "train")


def test_a_link_to_a_larger_disk_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "train").symlink_to(tmp_path / "disk")
    tables.write(ONE, tmp_path / "train")
    assert (tmp_path / "train").is_symlink() and tables.read(tmp_path / "disk")["text"] == {"a": "one"}


def test_a_link_to_itself_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to("train")
    with pytest.raises(UserError, match="train: a link that leads to no directory or back to itself"):
        tables.read(tmp_path / "train")


def test_reading_wants_whole_tables(tmp_path: Path) -> None:
    tables.write({**ONE, "utt2spk": {"a": "x", "b": "x"}}, tmp_path / "train")
    with pytest.raises(
        UserError, match=r"text: 1 utterance\(s\) are not in both it and utt2spk, b first: run utils/fix"
    ):
        tables.read(tmp_path / "train")


def test_replacing_keeps_every_older_state(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    tables.write(ONE, folder)
    (folder / "notes").write_text("mine")
    first = tables.replace({**ONE, "text": {"a": "two"}}, folder)
    second = tables.replace({name: table for name, table in ONE.items() if name != "text"}, folder)
    assert [(first / "text").read_text(), (second / "text").read_text()] == ["a one\n", "a two\n"]
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["notes", "utt2spk", "wav.scp"]
    assert (folder / "notes").read_text() == "mine"
