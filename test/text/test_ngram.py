"""The n-gram LM against its definition counted anew, nltk, sums over all labels, and ARPA files written by hand."""

import itertools
import math
import random
from pathlib import Path

import pytest

from asrllm.bin import estimate_ngram
from asrllm.console import UserError
from asrllm.text import tokenizer as tokenizers
from asrllm.text.ngram import BEGIN, END, Ngrams, read_arpa, symbols, witten_bell, write_arpa
from asrllm.text.tokenizer import CharacterTokenizer
from asrllm.text.tokenizer_training import TokenizerFile, train

SIZE = 6  # the blank, four labels that are used, one that never is
TRANSCRIPTS = [[random.Random(i).randrange(1, 5) for _ in range(i % 7)] for i in range(30)]
UNITS = CharacterTokenizer([" ", "a", "b"])
HEAD = "\\data\\\nngram 1=6\nngram 2=1\n\n\\1-grams:\n"
BY_HAND = (
    "made by hand\n\n"
    + HEAD
    + "-99\t<s>\t-0.5\n-1\t</s>\n-2 <unk>\n-0.7\t\u2581 -0.25\n-0.5\ta\t-0.125\n-0.25\tb\n"
    + "\n\\2-grams:\n-0.1\t<s> a\n\n\\end\\\n"
)


def by_definition(label: int, context: tuple[int, ...]) -> float:
    """The recursion, counting in the transcripts each time."""
    wholes = [(BEGIN, *each, END) for each in TRANSCRIPTS]
    size = len(context)
    after = [whole[i + size] for whole in wholes for i in range(len(whole) - size) if whole[i : i + size] == context]
    after = [each for each in after if each != BEGIN]
    lower = by_definition(label, context[1:]) if context else 1 / SIZE
    kinds = len(set(after))
    return (after.count(label) + kinds * lower) / (len(after) + kinds) if after else lower


def contexts(order: int) -> list[tuple[int, ...]]:
    """Those of a transcript's labels, however many: some at its begin, some that never occurred."""
    return [each for size in range(order) for each in itertools.product(range(1, SIZE), repeat=size)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_is_its_definition_and_sums_to_one(order: int) -> None:
    ngrams = witten_bell(TRANSCRIPTS, order, SIZE)
    for labels in contexts(order + 1):
        context = ngrams.context(labels)
        assert context == ((BEGIN, *labels)[-(order - 1) :] if order > 1 else ())
        probs = [math.exp(ngrams.log_prob(label, context)) for label in (*range(1, SIZE), END)]
        assert sum(probs) == pytest.approx(1.0, abs=1e-12)
        assert probs == pytest.approx([by_definition(label, context) for label in (*range(1, SIZE), END)])


def test_is_nltks_above_the_unigram() -> None:
    """nltk does not interpolate the lowest order: it is given ours."""
    lms = pytest.importorskip("nltk.lm")
    ours = witten_bell(TRANSCRIPTS, 3, SIZE)
    theirs = lms.WittenBellInterpolated(3)
    wholes = [[str(each) for each in (BEGIN, *labels, END)] for labels in TRANSCRIPTS]
    ngrams = [[tuple(each[i : i + n]) for n in (1, 2, 3) for i in range(len(each) - n + 1)] for each in wholes]
    theirs.fit(ngrams, [str(label) for label in (END, BEGIN, *range(1, SIZE))])
    theirs.estimator.unigram_score = lambda word: math.exp(ours.log_prob(int(word), ()))
    for labels in contexts(4):
        context = ours.context(labels)
        for label in (*range(1, SIZE), END):
            expected = theirs.score(str(label), [str(each) for each in context])
            assert math.exp(ours.log_prob(label, context)) == pytest.approx(expected)


def test_arpa_by_hand(tmp_path: Path) -> None:
    """Found, backed off with a weight, backed off without one; in base 10 before and natural after."""
    (tmp_path / "by_hand.arpa").write_text(BY_HAND, encoding="utf-8")
    read = read_arpa(tmp_path / "by_hand.arpa", UNITS)
    space, a, b = (UNITS.encode(each)[0] for each in " ab")
    expected = {(a, ()): -0.1, (b, ()): -0.75, (b, (a,)): -0.375, (space, (b,)): -0.7, (a, (b, space)): -0.75}
    found = {(label, seen): read.log_prob(label, read.context(seen)) / math.log(10) for label, seen in expected}
    assert read.order == 2 and found == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 3])
def test_arpa_round_trip(order: int, tmp_path: Path) -> None:
    units = CharacterTokenizer([" ", "a", "b", "\u2581"])  # the mark of a space itself, too
    ngrams = witten_bell([units.encode(text) for text in ("a b", "bab", "\u2581 aab", "a\u3000")], order, units.size)
    write_arpa(ngrams, units, tmp_path / "lm.arpa")
    read = read_arpa(tmp_path / "lm.arpa", units)
    assert read.order == ngrams.order
    assert read.log_probs == pytest.approx(ngrams.log_probs, abs=1e-7)
    assert read.log_backoffs == pytest.approx(ngrams.log_backoffs, abs=1e-7)


def test_the_program_writes_what_the_search_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TokenizerFile.model_validate({"tokenizer": {"type": "sentencepiece", "size": 14}}).tokenizer
    texts = ["a cat sat", "the cat", "that hat", "he sat at the cat"]
    train(config, texts, tmp_path / "units")
    (tmp_path / "text").write_text("".join(f"u{i} {text}\n" for i, text in enumerate(texts)))
    arguments = ["--tokenizer", str(tmp_path / "units"), "--text", str(tmp_path / "text")]
    estimate_ngram.main([*arguments, "--order", "2", "--out", str(tmp_path / "lm.arpa")])
    units = tokenizers.load(tmp_path / "units")
    names = [name for label, name in symbols(units).items() if label >= END]
    assert len(set(names)) == len(names) and all(name.split() == [name] for name in names)
    read, expected = read_arpa(tmp_path / "lm.arpa", units), witten_bell(map(units.encode, texts), 2, units.size)
    assert read.log_probs == pytest.approx(expected.log_probs, abs=1e-7)
    with pytest.raises(SystemExit, match="2"):
        estimate_ngram.main([*arguments, "--order", "0", "--out", str(tmp_path / "none.arpa")])
    assert "argument --order: expected a whole number from 1, found '0'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "instead", "sentence"),
    [
        ("\tb\n", "\tc\n", "line 13: 'c' is no CTC unit of this model: run asrllm.bin.estimate_ngram"),
        ("-0.1\t<s> a", "-0.1\t<s>", "line 16: found .* expected log10 p, 2 units and at most a back-off weight"),
        ("-0.25\tb", "-0.25x\tb", "line 13: found '-0.25x.tb'"),
        ("-0.25\tb", "0.25\tb", "line 13: found '0.25.tb'"),
        ("-0.125", "nan", "line 12: found '-0.5.ta.tnan'"),
        ("ngram 2=1", "ngram 2", "line 5: found 'ngram 2', expected 'ngram N=COUNT' or a section"),
        ("ngram 2=1", "ngram 2=2", "n-grams by size: found {1: 6, 2: 1}, its head says {1: 6, 2: 2}"),
        ("\\end\\\n", "", r"no line \\end\\, so it is cut off or no ARPA file"),
        ("-0.7\t\u2581 -0.25\n", "", "n-grams by size: found {1: 5, 2: 1}"),
        ("<unk>", "<s>", "n-grams by size: found {1: 5, 2: 1}"),
    ],
)
def test_refuses_in_one_sentence(found: str, instead: str, sentence: str, tmp_path: Path) -> None:
    assert found in BY_HAND
    (tmp_path / "bad.arpa").write_text(BY_HAND.replace(found, instead), encoding="utf-8")
    with pytest.raises(UserError, match=f"^{tmp_path}/bad.arpa: .*{sentence}") as refusal:
        read_arpa(tmp_path / "bad.arpa", UNITS)
    assert "\n" not in str(refusal.value)


def test_refuses_other_units_and_no_file(tmp_path: Path) -> None:
    write_arpa(Ngrams(1, {(label,): -1.0 for label in (BEGIN, END, 1, 2)}, {}), UNITS, tmp_path / "few.arpa")
    with pytest.raises(UserError, match="no 1-gram for 2 of the CTC units, such as 'a': run"):
        read_arpa(tmp_path / "few.arpa", UNITS)
    with pytest.raises(UserError, match="none.arpa: no readable ARPA file .*: run asrllm.bin.estimate_ngram"):
        read_arpa(tmp_path / "none.arpa", UNITS)
    (tmp_path / "bytes.arpa").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="bytes.arpa: not UTF-8"):
        read_arpa(tmp_path / "bytes.arpa", UNITS)
