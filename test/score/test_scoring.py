"""Figures of a set against jiwer, and normalisers in front of markup."""

import random

import jiwer
import pytest

from asrllm.score.align import Edit
from asrllm.score.markup import change_runs, parse
from asrllm.score.network import align_networks, as_edits, network
from asrllm.score.scoring import MatchConfig, align_set, score_unit
from asrllm.score.utterances import Joined, Utterance
from asrllm.text.normalize import normalizer


def test_match_error_and_lost_information_are_those_of_jiwer() -> None:
    generator = random.Random(0)
    letters = [f"w{number}" for number in range(400)]
    refs, hyps = [], []
    for _ in range(60):
        ref = generator.sample(letters, 12)
        hyp = [word if generator.random() > 0.1 else f"{word}x" for word in ref if generator.random() > 0.05]
        refs.append(" ".join(ref))
        hyps.append(" ".join(hyp))
    pairs = enumerate(zip(refs, hyps, strict=True))
    utterances = [Utterance(str(place), str(place), "s", ref, hyp) for place, (ref, hyp) in pairs]
    score = score_unit("word", align_set(Joined(utterances), "word", MatchConfig(), str.split))
    theirs = jiwer.process_words(refs, hyps)
    assert score.err_percent == pytest.approx(100 * theirs.wer)
    assert score.match_err_percent == pytest.approx(100 * theirs.mer)
    assert score.information_lost_percent == pytest.approx(100 * theirs.wil)


def test_a_set_without_words_has_no_rates() -> None:
    score = score_unit("word", align_set(Joined([Utterance("u", "u", "s", "", "")]), "word", MatchConfig(), str.split))
    assert (score.err_percent, score.match_err_percent, score.information_lost_percent) == (None, None, None)


def test_normalisers_see_the_words_between_the_markup() -> None:
    basic = normalizer("basic")
    items = change_runs(parse("The Cat, { COLOUR! / Color / @ } (Uh) th- - sat."), basic)
    assert items == parse("the cat { colour / color / @ } (uh) th- sat")
    assert change_runs(parse("{ ! / a }"), basic) == parse("{ @ / a }")  # nothing is left of the first


def best(ref: str, hyp: str) -> list[Edit]:
    """Alignment of two transcripts with markup."""
    return as_edits(align_networks(network(parse(ref)), network(parse(hyp))))


def test_the_alternative_that_was_said_is_chosen() -> None:
    assert best("{ i am / i'm } here", "i'm here") == [("C", "i'm", "i'm"), ("C", "here", "here")]
    assert best("a { uh / @ } b", "a b") == [("C", "a", "a"), ("C", "b", "b")]
    assert best("a { uh / @ } b", "a uh b") == [("C", "a", "a"), ("C", "uh", "uh"), ("C", "b", "b")]
    assert best("{ a { b / c } / d }", "a c") == [("C", "a", "a"), ("C", "c", "c")]
    assert best("{ @ / @ }", "") == []
