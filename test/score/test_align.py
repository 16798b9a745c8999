"""Alignment against the real sclite, jiwer and kaldialign."""

import random
import re
import subprocess
from pathlib import Path

import jiwer
import kaldialign
import pytest

from asrllm.score import table
from asrllm.score.align import Counts, align, count, split
from asrllm.score.scoring import score_unit

SCLITE = Path("/usr/lib/sctk/bin/sclite")
GOLDEN = Path(__file__).parent / "sclite"


def read_trn(path: Path) -> dict[str, list[str]]:
    lines = [re.fullmatch(r"(.*?) ?\((.*)\)", line) for line in path.read_text().splitlines()]
    return {match[2]: match[1].split() for match in lines if match}


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """References and hypotheses that sclite has seen."""
    return read_trn(GOLDEN / "ref.trn"), read_trn(GOLDEN / "hyp.trn")


def test_alignments_are_those_of_sclite(golden) -> None:
    refs, hyps = golden
    frozen = re.findall(r"id: \(.*\)\nScores: .*\n(?:REF: .*\nHYP: .*\nEval:.*\n)?", (GOLDEN / "pra.txt").read_text())
    assert len(frozen) == len(refs) == 200
    ours = {utt_id: table.alignment(utt_id, align(refs[utt_id], hyps[utt_id])) for utt_id in refs}
    for block in frozen:
        utt_id = block[block.index("(") + 1 : block.index(")")]
        assert ours[utt_id] == block


def test_summary_is_that_of_sclite(golden) -> None:
    refs, hyps = golden
    score = score_unit("word", {utt_id: align(refs[utt_id], hyps[utt_id]) for utt_id in refs})
    ours = table.summary(score, {utt_id: utt_id.split("-")[0] for utt_id in refs}, "system")

    def figures(text: str) -> list[list[str]]:
        rows = [re.sub(r"[|]", " ", line).split() for line in text.splitlines() if line.strip().startswith("| ")]
        return [row for row in rows if row[-1][0].isdigit()]

    assert figures(ours) == figures((GOLDEN / "sum.txt").read_text())
    assert len(figures(ours)) == 8 + 4


@pytest.mark.skipif(not SCLITE.exists(), reason="sclite (Debian package sctk) is not installed")
def test_frozen_output_is_what_sclite_says_today() -> None:
    for report in ("sum", "pra"):
        command = f"{SCLITE} -r ref.trn trn -h hyp.trn trn -i rm -e utf-8 -o {report} stdout".split()
        output = subprocess.run(command, cwd=GOLDEN, capture_output=True, text=True, check=True).stdout
        assert output.split() == (GOLDEN / f"{report}.txt").read_text().split()


@pytest.mark.parametrize("vocabulary", ["ab", "abcdefghijklmnop"])
def test_cost_and_totals_agree_with_libraries(vocabulary: str) -> None:
    generator = random.Random(0)
    for _ in range(500):
        ref = generator.choices(vocabulary, k=generator.randint(1, 15))
        hyp = generator.choices(vocabulary, k=generator.randint(0, 15))
        pairs = align(ref, hyp)
        assert [token for token, _ in pairs if token is not None] == ref
        assert [token for _, token in pairs if token is not None] == hyp
        counts = count(pairs)
        theirs = count(
            (a or None, b or None) for a, b in kaldialign.align(ref, hyp, "", sclite_mode=True)
        )  # another path perhaps, but of the same cost
        assert (
            3 * (counts.insertions + counts.deletions) + 4 * counts.substitutions
            == 3 * (theirs.insertions + theirs.deletions) + 4 * theirs.substitutions
        )
        levenshtein = jiwer.process_words(" ".join(ref), " ".join(hyp))
        smallest = levenshtein.substitutions + levenshtein.deletions + levenshtein.insertions
        assert counts.errors >= smallest
        assert counts.insertions - counts.deletions == levenshtein.insertions - levenshtein.deletions


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
    ref, hyp = "the cat sat", "the cats at"
    counts = count(align(split(ref, "char"), split(hyp, "char")))
    assert counts.errors == round(jiwer.cer(ref, hyp) * len(ref)) == 2
    assert split("a b", "char") == ["a", "<space>", "b"]
    assert split("我 爱 ab", "char", spaced=False) == ["我", "爱", "a", "b"]


def test_equal_cost_falls_as_in_sclite() -> None:
    assert count(align(list("abc"), list("cde"))) == Counts(0, 3, 0, 0)  # not 1 correct, 2 deletions, 2 insertions
    assert align(["a"], []) == [("a", None)]
    assert align([], ["a"]) == [(None, "a")]
    assert align([], []) == []
