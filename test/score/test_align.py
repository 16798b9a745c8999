"""Alignment against a plain table of costs, jiwer and kaldialign; against sclite itself in test_sclite.py."""

import random
from pathlib import Path

import jiwer
import kaldialign
import pytest

from asrllm.console import UserError
from asrllm.score.align import Counts, Edit, align, align_all, count
from asrllm.score.scoring import ScoreConfig
from asrllm.score.units import splitter
from asrllm.text import tokenizer_training as training


def plain_align(ref: list[str], hyp: list[str]) -> list[Edit]:
    """The rule as it is told: a table of costs, traced from the end, diagonal before insertion before deletion."""
    cost = [[3 * (i + j) for j in range(len(hyp) + 1)] for i in range(len(ref) + 1)]
    for i in range(1, len(ref) + 1):
        for j in range(1, len(hyp) + 1):
            step = 0 if ref[i - 1] == hyp[j - 1] else 4
            cost[i][j] = min(cost[i - 1][j - 1] + step, cost[i][j - 1] + 3, cost[i - 1][j] + 3)
    edits: list[Edit] = []
    i, j = len(ref), len(hyp)
    while i or j:
        step = 0 if i and j and ref[i - 1] == hyp[j - 1] else 4
        if i and j and cost[i][j] == cost[i - 1][j - 1] + step:
            i, j = i - 1, j - 1
            edits.append(("S" if step else "C", ref[i], hyp[j]))
        elif j and cost[i][j] == cost[i][j - 1] + 3:
            j -= 1
            edits.append(("I", "", hyp[j]))
        else:
            i -= 1
            edits.append(("D", ref[i], ""))
    return edits[::-1]


@pytest.mark.parametrize("vocabulary", ["ab", "abcdefghijklmnop"])
def test_cost_and_totals_agree_with_libraries(vocabulary: str) -> None:
    generator = random.Random(0)
    for _ in range(500):
        ref = generator.choices(vocabulary, k=generator.randint(1, 15))
        hyp = generator.choices(vocabulary, k=generator.randint(0, 15))
        edits = align(ref, hyp)
        assert [token for kind, token, _ in edits if kind != "I"] == ref
        assert [token for kind, _, token in edits if kind != "D"] == hyp
        counts = count(edits)
        theirs = count(
            ("I" if a is None else "D" if b is None else "C" if a == b else "S", a or "", b or "")
            for a, b in ((a or None, b or None) for a, b in kaldialign.align(ref, hyp, "", sclite_mode=True))
        )  # another path perhaps, but of the same cost
        assert (
            3 * (counts.insertions + counts.deletions) + 4 * counts.substitutions
            == 3 * (theirs.insertions + theirs.deletions) + 4 * theirs.substitutions
        )
        levenshtein = jiwer.process_words(" ".join(ref), " ".join(hyp))
        smallest = levenshtein.substitutions + levenshtein.deletions + levenshtein.insertions
        assert counts.errors >= smallest
        assert counts.insertions - counts.deletions == levenshtein.insertions - levenshtein.deletions


@pytest.mark.parametrize("vocabulary", ["ab", "abcdefgh"])
def test_many_at_once_are_the_table_traced_one_by_one(vocabulary: str) -> None:
    generator = random.Random(3)
    texts = [generator.choices(vocabulary, k=generator.randint(0, 30)) for _ in range(600)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    pairs.append((["x"] * 3000, ["y", *["x"] * 2500]))  # beyond 16 bits of cost
    assert align_all(pairs[:-1]) == [plain_align(ref, hyp) for ref, hyp in pairs[:-1]]
    assert count(align(*pairs[-1])) == Counts(2500, 1, 499, 0)
    assert align_all([]) == []


def test_totals_equal_jiwer_where_errors_are_sparse() -> None:
    generator = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for _ in range(200):
        ref = generator.sample(letters, 12)
        hyp = list(ref)
        hyp[generator.randrange(12)] = "?"
        del hyp[generator.randrange(12)]
        counts = count(align(ref, hyp))
        theirs = jiwer.process_words(" ".join(ref), " ".join(hyp))
        ours = (counts.substitutions, counts.deletions, counts.insertions)
        assert ours == (theirs.substitutions, theirs.deletions, theirs.insertions)


def test_characters_equal_jiwer() -> None:
    split = splitter("char", ScoreConfig(), spaced=True)
    ref, hyp = "the cat sat", "the cats at"
    counts = count(align(split(ref), split(hyp)))
    assert counts.errors == round(jiwer.cer(ref, hyp) * len(ref)) == 2
    assert split("a b") == ["a", "<space>", "b"]


def test_units_of_a_writing_without_spaces() -> None:
    plain, bare = ScoreConfig(), ScoreConfig(delete_hyphens=True)
    assert splitter("char", plain, spaced=False)("我 爱 ab") == ["我", "爱", "a", "b"]
    assert splitter("mixed", plain, spaced=False)("我爱ab 3去") == ["我", "爱", "ab", "3", "去"]
    assert splitter("mixed", bare, spaced=False)("我a-b") == ["我", "ab"]


def test_equal_cost_falls_as_in_sclite() -> None:
    assert count(align(list("abc"), list("cde"))) == Counts(0, 3, 0, 0)  # not 1 correct, 2 deletions, 2 insertions
    assert align(["a"], []) == [("D", "a", "")]
    assert align([], ["a"]) == [("I", "", "a")]
    assert align([], []) == []


def test_phones_are_folded_by_a_map(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("ao aa\nq\n")
    split = splitter("phone", ScoreConfig(phone_map=str(tmp_path / "map")), spaced=True)
    assert split("ao q k aa") == ["aa", "k", "aa"]
    assert splitter("phone", ScoreConfig(), spaced=True)("ao q") == ["ao", "q"]
    (tmp_path / "map").write_text("ao aa b\n")
    with pytest.raises(UserError, match="map: line 1: expected a phone and what it counts as"):
        splitter("phone", ScoreConfig(phone_map=str(tmp_path / "map")), spaced=True)


def test_tokens_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    training.train(training.CharacterConfig(type="character"), ["ab ba"], tmp_path)
    split = splitter("token", ScoreConfig(tokenizer=str(tmp_path)), spaced=True)
    assert [piece.partition("#")[0] for piece in split("a b")][-3:] == ["a", "_", "b"]
    with pytest.raises(UserError, match="needs the key tokenizer"):
        splitter("token", ScoreConfig(), spaced=True)
