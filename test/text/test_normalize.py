"""Normalisers against answers worked out by hand, and against PyPI's whisper-normalizer where it is installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asrllm.console import UserError
from asrllm.text.normalize import normalizer


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none", "  Hello,\t World! ", "Hello, World!"),
        ("basic", "Hello,   World!", "hello world"),
        ("basic", "Don\u2019t stop \u2018now\u2019, rock 'n' roll", "don't stop now rock n roll"),
        ("basic", "well-known \u2014 50% of $3.50", "well known 50 of 3 50"),
        ("basic", "Ünïcode ÉCOLE", "ünïcode école"),
        ("basic", "E\u0301cole", "\u00e9cole"),
        ("basic", "...", ""),
        ("basic", "", ""),
        ("mandarin", "我爱ＡＢＣ，你好！", "我 爱 abc 你 好"),
        ("mandarin", "用Python 3写 code", "用 python 3 写 code"),
        ("mandarin", "〇\U00020000x", "〇 \U00020000 x"),
        ("kaldi_upper", "the <unk> Cat's [noise] !SIL mat", "THE CAT'S MAT"),
        ("kaldi_lower", "The <UNK> CAT, sat", "the cat, sat"),
        ("whisper_basic", "Ünïcode (laughs), C'est <i>", "ünïcode c est"),
        ("open_asr", "The U.S. and the B.B.C... well, Mr. Smith", "the us and the bbc well mister smith"),
        ("open_asr", "wait... no ...", "wait no"),
        ("whisper_english", "Mr. Smith won't pay TWENTY-FIVE dollars, um!", "mister smith will not pay $25"),
        ("whisper_english", "two thousand and one [noise]", "2001"),
    ],
)
def test_answers_by_hand(name: str, text: str, expected: str) -> None:
    normalize = normalizer(name)
    assert normalize(text) == expected
    assert normalize(expected) == expected  # nothing is left to do
    assert normalize.name == name and normalize.version


def test_only_mandarin_has_no_spaces() -> None:
    assert [normalizer(name).spaced for name in ("none", "basic", "whisper_english", "mandarin")] == [True] * 3 + [
        False
    ]


def test_spelling_table(tmp_path: Path) -> None:
    table = tmp_path / "normalizer.json"
    table.write_text(json.dumps({"colour": "color"}))
    assert normalizer("whisper_english", table)("the colour") == "the color"
    assert normalizer("whisper_english")("the colour") == "the colour"
    assert normalizer("whisper_english", table).version != normalizer("whisper_english").version


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave it out"):
        normalizer("basic", tmp_path / "x.json")
    with pytest.raises(UserError, match="not a readable spelling table"):
        normalizer("whisper_english", tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match="found list"):
        normalizer("whisper_english", tmp_path / "x.json")
    with pytest.raises(UserError, match="choose one of none, kaldi_upper"):
        normalizer("lower")  # type: ignore[arg-type]


def test_whisper_english_loads_no_torch() -> None:
    code = (
        "import sys; from asrllm.text.normalize import normalizer; "
        "normalizer('whisper_english'); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_whisper_english_is_the_original() -> None:
    english = pytest.importorskip("whisper_normalizer.english", reason="PyPI's whisper-normalizer is not installed")
    table = Path(english.__file__).parent / "normalizers" / "english.json"
    ours, theirs = normalizer("whisper_english", table), english.EnglishTextNormalizer()
    for text in ("The colour of Mr. Brown's CAR isn't grey.", "twenty one point five percent", "I've got £3.20, hmm"):
        assert ours(text) == theirs(text)
