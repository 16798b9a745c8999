"""Weights of n-best lists against a plain count of the errors of what they put first."""

import numpy as np
import pytest

from asrllm.console import UserError
from asrllm.hypothesis import Hypothesis, NBest
from asrllm.score.tuning import Lists, TuneConfig, count_errors, tune
from asrllm.text.normalize import normalizer

REFS = {"a": "one two three", "b": "four five", "c": "six", "d": "seven eight"}
TEXTS = {
    "a": [("one too three", -1.0, -9.0), ("ONE two, three", -2.0, -4.0)],
    "b": [("four five", -1.0, -6.0), ("for", -3.0, -2.0), ("", -5.0, -1.0)],
    "c": [("six six", -1.0, -3.0)],
}
LISTS = {
    utt_id: NBest(utt_id, 1.0, [Hypothesis(text, ctc, {"ctc": ctc, "lm": lm}) for text, ctc, lm in group])
    for utt_id, group in TEXTS.items()
}


def config(**weights: object) -> TuneConfig:
    return TuneConfig.model_validate({"weights": weights or {"ctc": 1.0, "lm": {"low": 0.0, "high": 2.0}}})


def test_errors_of_every_hypothesis_are_counted_as_in_scoring() -> None:
    lists = count_errors(LISTS, REFS, config(), normalizer("basic"))
    assert lists.errors.tolist() == [[1, 0, 1], [0, 2, 2], [1, 1, 1]]  # filled up with the first one
    assert (lists.tokens, lists.missing_errors) == (8, 2)
    assert (lists.errors_of_first, lists.fewest_errors) == (4, 3)
    assert [lists.errors_at([1.0, weight]) for weight in (0.0, 0.3, 1.0)] == [4, 3, 5]


def test_the_middle_of_what_is_best_is_found() -> None:
    """`a` turns right above 0.2, `b` turns wrong above 0.5."""
    settings = config(ctc=1.0, lm={"low": 0.0, "high": 2.0, "points": 41})
    found = tune(count_errors(LISTS, REFS, settings, normalizer("basic")), settings)
    assert (found.errors, found.weights["ctc"]) == (3, 1.0)
    assert 0.25 <= found.weights["lm"] <= 0.45
    assert dict(found.curves["lm"])[1.0] == 5 and len(found.curves["lm"]) == 41


@pytest.mark.parametrize("seed", range(5))
def test_no_point_of_the_grid_is_better(seed: int) -> None:
    draw = np.random.default_rng(seed)
    names = ["ctc", "lm", "length"]
    lists = Lists(names, draw.normal(size=(40, 6, 3)), draw.integers(0, 5, (40, 6)), 200, 3)
    axis = {"low": -1.0, "high": 1.0, "points": 9}
    settings = config(ctc=1.0, lm=axis, length=axis)
    found = tune(lists, settings)

    def errors(weights: tuple[float, ...]) -> int:
        total = 3
        for components, wrong in zip(lists.components, lists.errors, strict=True):
            sums = [sum(w * c for w, c in zip(weights, each, strict=True)) for each in components]
            total += wrong[sums.index(max(sums))]
        return total

    values = np.linspace(-1, 1, 9)
    assert found.errors == errors(tuple(found.weights[name] for name in names))
    assert found.errors <= min(errors((1.0, one, two)) for one in values for two in values)
    for value, count in found.curves["length"]:
        assert count == errors((1.0, found.weights["lm"], value))


def test_says_what_is_wrong() -> None:
    basic = normalizer("basic")
    with pytest.raises(UserError, match="weights.prior: utterance a has no score of that name, only ctc, lm: rescore"):
        count_errors(LISTS, REFS, config(ctc=1.0, prior={"low": -1.0, "high": 0.0}), basic)
    with pytest.raises(UserError, match="no utterance in common"):
        count_errors(LISTS, {"x": "one"}, config(), basic)
    for sentence, weights in {
        "every one is a number": {"ctc": 1.0},
        "low is 2.0, expected less than high, 1.0": {"lm": {"low": 2.0, "high": 1.0}},
        "the grid has 4004001 points": {name: {"low": 0.0, "high": 1.0, "points": 2001} for name in ("lm", "ctc")},
    }.items():
        with pytest.raises(ValueError, match=sentence):
            config(**weights)
