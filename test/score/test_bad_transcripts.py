"""Broken trn, ctm, stm, text and sgml: one sentence with file and line each, whatever the bytes."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asrllm.bin import score
from asrllm.console import UserError
from asrllm.score.markup import MarkupError, change_runs, mark, parse
from asrllm.score.network import align_networks, network
from asrllm.score.sources import read_joined
from asrllm.score.timed import join_timed, read_ctm, read_stm
from asrllm.score.transcripts import read_text, read_trn, read_utt2spk

GOOD = b"good words (s-0)\n"
BOM = b"\xef\xbb\xbf"

TRN = [
    (b"", "no utterance in it"),
    (b"\n\n \n", "no utterance in it"),
    (b";; only a comment\n** another\n", "no utterance in it"),
    (BOM, "no utterance in it"),
    (b"words without an id\n", "line 1: no utterance id"),
    (GOOD + b"words without an id\n", "line 2: no utterance id"),
    (b"words s-1)\n", "line 1: no utterance id"),
    (b"words (s-1\n", "line 1: no utterance id"),
    (b"words )s-1(\n", "line 1: no utterance id"),
    (b"words ()\n", "line 1: the utterance id .. is empty"),
    (b"words ( )\n", "line 1: the utterance id . . is empty or holds a space"),
    (b"words (s-1 two)\n", "holds a space"),
    (b"words (s\t1)\n", "holds a space"),
    ("words (s-\u30001)\n".encode(), "holds a space"),
    (b"words (s-1) more\n", "found 'more' behind the utterance id"),
    (b"words (s-1))\n", "found '\\)' behind the utterance id"),
    (b"words (speaker)\n", "no speaker in the utterance id"),
    (GOOD + b"other (s-0)\n", "line 2: utterance s-0 is given twice, first in line 1"),
    (GOOD + b"good words (S-0)\n", "line 2: utterance s-0 is given twice"),
    (GOOD + b";; x\n\n" + GOOD, "line 4: utterance s-0 is given twice"),
    (b"a { b / c (s-1)\n", "line 1: the alternatives .* are not closed"),
    (GOOD + b"{ a / { b } (s-1)\n", "line 2: the alternatives .* are not closed"),
    (b"{ (s-1)\n", "are not closed"),
    (b"a } b (s-1)\n", "a brace closes nothing"),
    (b"} (s-1)\n", "a brace closes nothing"),
    (b"{ a / b } } (s-1)\n", "a brace closes nothing"),
    (b"wo{rd (s-1)\n", "a brace opens inside 'wo{rd'"),
    (b"wo}rd (s-1)\n", "a brace closes nothing in 'wo}rd'"),
    (b"a{b/c} (s-1)\n", "a brace opens inside"),
    (b"{ a / b }} (s-1)\n", "a brace closes nothing"),
    (b"{} (s-1)\n", "an alternative is empty"),
    (b"{ } (s-1)\n", "an alternative is empty: write @"),
    (b"{ a / } (s-1)\n", "an alternative is empty"),
    (b"{ / a } (s-1)\n", "an alternative is empty"),
    (b"{ a // b } (s-1)\n", "an alternative is empty"),
    (b"{ a / { } } (s-1)\n", "an alternative is empty"),
    (b"{ a / b{c } } (s-1)\n", "a brace opens inside"),
    (GOOD + b"caf\xe9 (s-1)\n", "line 2: not UTF-8"),
    ("café (s-1)\n".encode() + "café (s-2)\n".encode("latin-1"), "line 2: not UTF-8"),
    (GOOD + "你 (s-1)\n".encode("gb18030"), "line 2: not UTF-8"),
    ("good (s-0)\n".encode("utf-16"), "line 1: not UTF-8"),
    ("good (s-0)\n".encode("utf-16-le"), "line 1: a zero byte"),
    (GOOD + b"zero \x00 (s-1)\n", "line 2: a zero byte"),
    (b"\xff\xfe\x00", "line 1: not UTF-8"),
    (b"\x80", "line 1: not UTF-8"),
]
STM = [
    (b"", "no segment in it"),
    (b";; comment\n", "no segment in it"),
    (b"f A s 0\n", "line 1: found 4 fields"),
    (b"f\n", "line 1: found 1 fields"),
    (b"f A s 0 1 a\nf A s 1\n", "line 2: found 4 fields"),
    (b"f A s zero 1 a\n", "line 1: found 'zero', expected a number"),
    (b"f A s 0 one a\n", "line 1: found 'one', expected a number"),
    (b"f A s 0 nan a\n", "found 'nan', expected a number"),
    (b"f A s inf 1 a\n", "found 'inf', expected a number"),
    (b"f A s 0,5 1 a\n", "found '0,5', expected a number"),
    (b"f A s 2 1 a\n", "line 1: the segment ends at 1 before it starts at 2"),
    (b"f A s 1 2 a\nf A s 0 1 b\n", "line 2: the segment starts at 0, before the one above it"),
    (b"f A s 0 1 { a / b\n", "line 1: the alternatives .* are not closed"),
    (b"f A s 0 1 <o> a } b\n", "line 1: a brace closes nothing"),
    (b"f A s 0 1 { a / }\n", "an alternative is empty"),
    (b"f A s 0 1 caf\xe9\n", "line 1: not UTF-8"),
    ("f A s 0 1 a\n".encode("utf-16"), "line 1: not UTF-8"),
    (b"f A s 0 1 \x00\n", "line 1: a zero byte"),
]
CTM = [
    (b"", "no word in it"),
    (b";; comment\n\n", "no word in it"),
    (b"f A 0 1\n", "line 1: found 4 fields"),
    (b"f A 0 1 a\nf\n", "line 2: found 1 fields"),
    (b"f A x 1 a\n", "line 1: found 'x', expected a number"),
    (b"f A 0 y a\n", "line 1: found 'y', expected a number"),
    (b"f A 0 1 a high\n", "line 1: found 'high', expected a number"),
    (b"f A 0 inf a\n", "found 'inf', expected a number"),
    (b"f A 0 -1 a\n", "line 1: found the time 0 and the duration -1"),
    (b"f A -2 1 a\n", "line 1: found the time -2"),
    (b"f A 2 1 a\nf A 1 1 b\n", "line 2: starts at 1, before the word above it"),
    (b"f A 0 1 a\nf A 1 1 b\nf A 0.5 1 b\n", "line 3: starts at 0.5"),
    (b"f A * * <ALT_BEGIN>\nf A 0 1 a\n", "line 1: alternatives are not closed"),
    (b"f A * * <ALT_BEGIN>\nf A * * <ALT_BEGIN>\n", "line 2: <ALT_BEGIN> inside alternatives"),
    (b"f A * * <ALT>\n", "line 1: <alt> without <ALT_BEGIN>"),
    (b"f A * * <ALT_END>\n", "line 1: <alt_end> without <ALT_BEGIN>"),
    (b"f A * * word\n", "line 1: found '\\*', expected a number"),
    (b"f A 0 1 caf\xe9\n", "line 1: not UTF-8"),
    (b"f A 0 1 a\x00\n", "line 1: a zero byte"),
    ("f A 0 1 a\n".encode("utf-16"), "line 1: not UTF-8"),
]
TEXT = [
    (b"", "the file is empty"),
    (BOM, "line 1: found an empty line"),
    (b"\n", "line 1: found an empty line"),
    (b"u-1 a\n\nu-2 b\n", "line 2: found an empty line"),
    (b"u-1 a\n   \n", "line 2: found an empty line"),
    (b"u-1 a\nu-1 b\n", "line 2: utterance u-1 is given twice"),
    (b"u-1 a\r\nu-1 b\r\n", "line 2: utterance u-1 is given twice"),
    (b"u-1\ta\nu-1 b\n", "line 2: utterance u-1 is given twice"),
    (b"u-1 caf\xe9\n", "line 1: not UTF-8"),
    (b"u-1 a\x00b\n", "line 1: a zero byte"),
    ("u-1 a\n".encode("utf-16"), "line 1: not UTF-8"),
    (b"u-1 a\n" + "u-2 一\n".encode("big5"), "line 2: not UTF-8"),
]
SPEAKERS = [
    (b"u-1\n", "line 1: expected one speaker for utterance u-1, found ''"),
    (b"u-1 s two\n", "line 1: expected one speaker"),
    (b"u-1 s\nu-2\n", "line 2: expected one speaker"),
    (b"u-1 s\nu-1 s\n", "line 2: utterance u-1 is given twice"),
]
CASES = [
    (read, data, message)
    for read, cases in (
        (read_trn, TRN),
        (read_stm, STM),
        (read_ctm, CTM),
        (read_text, TEXT),
        (read_utt2spk, SPEAKERS),
    )
    for data, message in cases
]


@pytest.mark.parametrize(("read", "data", "message"), CASES)
def test_what_is_broken_is_named_with_file_and_line(tmp_path: Path, read, data: bytes, message: str) -> None:
    path = tmp_path / "broken.file"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_trn, read_stm, read_ctm, read_text])
def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path, read) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("begin", [b"", BOM])
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path, begin: bytes, end: bytes) -> None:
    files = {
        "x.trn": [b"a b (s-1)", b"", b"{ a / @ } (s-2)"],
        "x.stm": [b"f A s 0 1 <o> a b", b"f A s 1 2"],
        "x.ctm": [b"f A 0 1 a 0.5", b"f A 1 1 b NA"],
        "text": [b"u-1 a b", b"u-2"],
    }
    for name, lines in files.items():
        (tmp_path / name).write_bytes(begin + end.join(lines) + end)
    trn = read_trn(tmp_path / "x.trn")
    assert [line.transcript for line in trn.values()] == ["a b", parse("{ a / @ }")]
    stm, ctm = read_stm(tmp_path / "x.stm"), read_ctm(tmp_path / "x.ctm")
    joined = join_timed(stm, ctm, None)
    assert [[word.text for word in each.hyp] for each in joined.utterances] == [["a"], ["b"]]
    assert read_text(tmp_path / "text") == {"u-1": "a b", "u-2": ""}


@pytest.mark.parametrize(
    ("ref", "hyp", "message"),
    [
        ("r.stm", "h.trn", "expected two .trn files, or .stm and .ctm"),
        ("r.trn", "h.ctm", "expected two .trn files, or .stm and .ctm"),
        ("text", "h.ctm", "expected two .trn files, or .stm and .ctm"),
        ("r.stm", "text", "expected two .trn files, or .stm and .ctm"),
        ("r.trn", "text", "expected two .trn files, or .stm and .ctm"),
        ("text", "h.trn", "expected two .trn files, or .stm and .ctm"),
        ("r.ctm", "other.ctm", "no channel in common: one ctm begins with f a"),
        ("r.trn", "other.trn", "no utterance in common: the 1 references begin with s-1, the 1 hypotheses with s-9"),
        ("r.stm", "other.ctm", "no channel in common: the stm begins with f a, the ctm with g a"),
        ("text", "other", "no utterance in common"),
    ],
)
def test_files_that_do_not_go_together(tmp_path: Path, ref: str, hyp: str, message: str) -> None:
    contents = {
        "r.trn": "a (s-1)\n",
        "h.trn": "a (s-1)\n",
        "other.trn": "a (s-9)\n",
        "r.stm": "f A s 0 1 a\n",
        "h.ctm": "f A 0 1 a\n",
        "r.ctm": "f A 0 1 a\n",
        "other.ctm": "g A 0 1 a\n",
        "text": "s-1 a\n",
        "other": "s-9 a\n",
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_joined(tmp_path / ref, tmp_path / hyp, None, "spu_id", False, None)


def test_missing_and_extra_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.trn").write_text("a (s-1)\nb (s-2)\n")
    (tmp_path / "h.trn").write_text("a (S-1)\nc (t-3)\n")
    joined = read_joined(tmp_path / "r.trn", tmp_path / "h.trn", None, "spu_id", False, None)
    assert (joined.missing, joined.extra) == (("s-2",), ("t-3",))
    assert [each.hyp for each in joined.utterances] == ["a", ""]
    with pytest.raises(UserError, match="no utterance in common"):
        read_joined(tmp_path / "r.trn", tmp_path / "h.trn", None, "spu_id", True, None)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\ntr a-z A-Z\n", "must write each utterance it reads once"),
        ("#!/bin/sh\nhead -n 1\n", "lost or added 1 utterance"),
        ("#!/bin/sh\necho no good >&2; exit 3\n", "failed with status 3: no good"),
        (None, "cannot be run"),
    ],
)
def test_broken_filters(tmp_path: Path, script: str | None, message: str) -> None:
    (tmp_path / "text").write_text("s-1 a\ns-2 b\n")
    program = tmp_path / "wer_output_filter"
    program.write_text(script or "")
    program.chmod(0o755 if script else 0o644)
    with pytest.raises(UserError, match=message):
        read_joined(tmp_path / "text", tmp_path / "text", None, "spu_id", False, program)


def test_a_filter_changes_both_sides(tmp_path: Path) -> None:
    (tmp_path / "ref").write_text("s-1 a <noise> b\n")
    (tmp_path / "hyp").write_text("s-1 a b <unk>\n")
    program = tmp_path / "wer_output_filter"
    program.write_text("#!/bin/sh\nsed -e 's/<[a-z]*>//g'\n")
    program.chmod(0o755)
    joined = read_joined(tmp_path / "ref", tmp_path / "hyp", None, "spu_id", False, program)
    assert [(each.ref, each.hyp) for each in joined.utterances] == [("a b", "a b")]


def test_a_speaker_named_like_a_path_stays_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "r.trn").write_text("a (../../x-1)\nb (..-2)\nc (/etc/y-3)\nd (.._.._x-4)\n")
    (tmp_path / "score.yaml").write_text("units: [word]\nreports: [spk]\n")
    files = [
        "--ref",
        str(tmp_path / "r.trn"),
        "--hyp",
        str(tmp_path / "r.trn"),
        "--out",
        str(tmp_path / "out" / "deep"),
    ]
    score.main(["--config", str(tmp_path / "score.yaml"), *files])
    written = sorted(path.name for path in (tmp_path / "out" / "deep" / "score_wer").iterdir())
    assert written == [
        "hyp.trn",
        "hyp.trn.spk...",
        "hyp.trn.spk..._.._x",
        "hyp.trn.spk..._.._x.2",
        "hyp.trn.spk._etc_y",
        "ref.trn",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "r.trn", "score.yaml"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80), name=st.sampled_from(["trn", "stm", "ctm", "text"]))
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / f"any.{name}"
    path.write_bytes(data)
    try:
        {"trn": read_trn, "stm": read_stm, "ctm": read_ctm, "text": read_text}[name](path)
    except UserError as fault:
        assert str(fault).startswith(str(path))


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="ab {}/@;\\*()-\t我", max_size=30), st.booleans(), st.booleans())
def test_any_markup_is_aligned_or_refused(text: str, optional_words: bool, fragments: bool) -> None:
    try:
        items = mark(parse(text), optional_words, fragments)
    except MarkupError as fault:
        assert "brace" in str(fault) or "closed" in str(fault) or "empty" in str(fault)
        return
    net = network(items)
    steps = align_networks(net, net)
    assert all(kind == "C" for kind, _, _ in steps)  # a transcript is never wrong against itself
    change_runs(items, str.upper)


def test_scoring_loads_no_torch() -> None:
    code = (
        "import pkgutil, importlib, sys, asrllm.score\n"
        "for each in pkgutil.iter_modules(asrllm.score.__path__, 'asrllm.score.'): importlib.import_module(each.name)\n"
        "import asrllm.bin.score, asrllm.bin.compare, asrllm.bin.report; print('torch' in sys.modules)"
    )
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout == "False\n", done.stderr
