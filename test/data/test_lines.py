"""Filters line by line; the expected lines were printed by Kaldi's programs of the same names."""

import pytest

from asrllm.console import UserError
from asrllm.data import lines

SCP = ["b x 1\n", "a y\n", "c x  z\n"]


def test_inverse_tables_keep_the_order_of_coming() -> None:
    assert list(lines.spk2utt(["b y\n", "a x\n", "c y\n"])) == ["y b c\n", "x a\n"]
    assert list(lines.utt2spk(["y b c\n", "x a\n"])) == ["b y\n", "c y\n", "a x\n"]


@pytest.mark.parametrize(
    ("ids", "field", "exclude", "kept"),
    [
        ({"b"}, 1, False, ["b x 1\n"]),
        ({"b"}, 1, True, ["a y\n", "c x  z\n"]),
        ({"x", "y"}, 2, False, SCP),
        ({"x"}, 2, True, ["a y\n"]),
        ({"nobody"}, 1, False, []),
    ],
)
def test_filter(ids: set[str], field: int, exclude: bool, kept: list[str]) -> None:
    assert list(lines.keep(SCP, ids, field, exclude)) == kept


def test_mistakes_name_the_line() -> None:
    with pytest.raises(UserError, match="utt2spk: line 2: found 3 fields, expected an utterance and a speaker"):
        list(lines.spk2utt(["a x\n", "b x y\n"]))
    with pytest.raises(UserError, match="spk2utt: line 1: found '', expected a speaker and its utterances"):
        list(lines.utt2spk(["\n"]))
    with pytest.raises(UserError, match=r"line 2: found 2 field\(s\), expected at least 3: 'a y'"):
        list(lines.keep(SCP, {"1"}, 3))
    with pytest.raises(UserError, match="list: line 2: found an empty line"):
        lines.first_fields(["a\n", " \n"], "list")
