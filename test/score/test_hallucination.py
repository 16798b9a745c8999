"""Made-up text by hand, loops against their definition, intervals against the beta distribution."""

import random

import pytest
from scipy import stats

from asrllm.score.align import align
from asrllm.score.hallucination import hallucination, has_loop
from asrllm.score.utterances import Aligned, Utterance


def found(pairs: dict[str, tuple[str, str]], seconds: dict[str, float] | None = None):
    """Shares of a set of references and hypotheses."""
    alignments = [
        Aligned(Utterance(name, name, "s", ref, hyp), align(ref.split(), hyp.split()))
        for name, (ref, hyp) in pairs.items()
    ]
    return hallucination(alignments, seconds or {})


def test_each_part_by_hand() -> None:
    result = found(
        {
            "right": ("a b c d", "a b c d"),
            "unrelated": ("a b", "thank you for watching this"),
            "longer but related": ("a b", "a b a b c"),
            "five more": ("a b", "a v w x y z b"),
            "four more": ("a b c d e", "a w x y z b c d e"),
            "loop": ("a b c", "a b b b b c"),
            "loop said so": ("no no no no", "no no no no no"),
            "cut": ("a b c d", "a b"),
            "lost": ("a b c", ""),
            "silence": ("", ""),
            "noise": ("", "thank you"),
        },
        {"silence": 30.0, "noise": 30.0},
    )
    assert result.unrelated.examples == ("unrelated",)
    assert result.inserted.examples == ("five more",)
    assert result.looping.examples == ("loop",)
    assert result.truncated.examples == ("cut", "lost")
    assert (result.unrelated.cases, result.unrelated.total) == (1, 9)
    assert (result.non_speech.cases, result.non_speech.total) == (1, 2)
    assert result.non_speech_letters_per_minute == pytest.approx(8.0)


def test_intervals_are_exact() -> None:
    result = found({str(number): ("a b", "a b" if number else "v w x y z") for number in range(40)})
    low, high = result.unrelated.interval_percent or (0.0, 0.0)
    assert low == pytest.approx(100 * stats.beta.ppf(0.025, 1, 40))
    assert high == pytest.approx(100 * stats.beta.ppf(0.975, 2, 39))
    assert result.inserted.cases == 0 and result.inserted.interval_percent is not None
    assert result.inserted.interval_percent[1] == pytest.approx(100 * (1 - 0.025 ** (1 / 40)))
    assert result.non_speech.percent is None and result.non_speech_letters_per_minute is None


def test_loops_are_those_of_the_definition() -> None:
    generator = random.Random(0)
    for _ in range(2000):
        tokens = generator.choices("ab", k=generator.randint(0, 20))
        expected = any(
            tokens[start : start + size] * 4 == tokens[start : start + 4 * size] and len(tokens[start:]) >= 4 * size
            for size in range(1, 9)
            for start in range(len(tokens))
        )
        assert has_loop(tokens) == expected, tokens
