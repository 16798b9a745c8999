"""Weights of the components of n-best lists, found on the errors of the texts that they put first.

The errors of every hypothesis are counted once; a trial of weights is then a product of matrices. First a grid, of
which the point with the fewest errors is taken, with the fewest around it where several have (ours); then Powell's
coordinate search from there, kept if it finds fewer.

It reads lists and references; it knows no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pydantic
from scipy import ndimage, optimize

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.hypothesis import Hypothesis, NBest
from asrllm.score.align import count
from asrllm.score.scoring import MatchConfig, ScoreConfig, align_set
from asrllm.score.units import splitter
from asrllm.score.utterances import Joined, Utterance, join
from asrllm.text.normalize import Normalizer

MOST_POINTS = 1_000_000  # of a grid
DIGITS = 4  # of a weight that is written


class Range(Config):
    """Where a weight is looked for, both ends included."""

    low: float
    high: float
    points: int = pydantic.Field(default=21, ge=2)

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, expected less than high, {self.high}")
        return self

    @property
    def values(self) -> np.ndarray:
        """The points of the grid."""
        return np.linspace(self.low, self.high, self.points)


class TuneConfig(Config):
    """`weights`: component -> a number that stays, or the range of one that is tuned.

    Errors are those of scoring with `score`, in the first of its units.
    """

    weights: Annotated[dict[str, float | Range], pydantic.Field(min_length=1)]
    score: ScoreConfig = ScoreConfig()

    @pydantic.model_validator(mode="after")
    def _something_to_do(self) -> "TuneConfig":
        if not self.ranges:
            raise ValueError(
                "weights: every one is a number: give the range of at least one, such as {low: 0, high: 1}"
            )
        points = int(np.prod([each.points for each in self.ranges.values()]))
        if points > MOST_POINTS:
            raise ValueError(f"weights: the grid has {points} points, at most {MOST_POINTS}: take fewer points a range")
        return self

    @property
    def ranges(self) -> dict[str, Range]:
        """Those that are tuned."""
        return {name: each for name, each in self.weights.items() if isinstance(each, Range)}


@dataclass(frozen=True)
class Lists:
    """The n-best lists of a set, N hypotheses for each of U utterances, the shorter lists filled up."""

    names: Sequence[str]  # of the components
    components: np.ndarray  # (U, N, C), as the first hypothesis where there is none
    errors: np.ndarray  # (U, N)
    tokens: int  # of the references
    missing_errors: int  # deletions of utterances without a list

    def errors_at(self, weights: Sequence[float]) -> int:
        """Errors of the texts that these weights put first."""
        best = (self.components @ np.asarray(weights)).argmax(1)
        return int(np.take_along_axis(self.errors, best[:, None], 1).sum()) + self.missing_errors

    @property
    def errors_of_first(self) -> int:
        """Errors in the order of the lists."""
        return int(self.errors[:, 0].sum()) + self.missing_errors

    @property
    def fewest_errors(self) -> int:
        """Errors of the best text of each list: no weights do better."""
        return int(self.errors.min(1).sum()) + self.missing_errors


@dataclass(frozen=True)
class Tuned:
    """What was found."""

    weights: dict[str, float]
    errors: int
    curves: dict[str, list[tuple[float, int]]]  # tuned weight -> (value, errors), the others as found


def count_errors(
    lists: Mapping[str, NBest], refs: Mapping[str, str], config: TuneConfig, normalize: Normalizer
) -> Lists:
    """Errors of all hypotheses against the references, joined by utterance id.

    Raises:
        UserError: no utterance in common, a component that a hypothesis does not have.
    """
    first = join(refs, {utt_id: nbest.best.text for utt_id, nbest in lists.items()}, dict.fromkeys(refs, ""), normalize)
    first_errors, tokens = _errors(first.utterances, config, normalize)
    missing = sum(first_errors[place] for place, each in enumerate(first.utterances) if each.utt_id not in lists)
    joined = [each for each in first.utterances if each.utt_id in lists]
    longest = max(len(lists[each.utt_id].hypotheses) for each in joined)
    filled = [_filled(lists[each.utt_id], longest) for each in joined]
    flat = [
        replace(each, hyp=normalize(hypothesis.text))
        for each, hypotheses in zip(joined, filled, strict=True)
        for hypothesis in hypotheses
    ]
    errors = np.array(_errors(flat, config, normalize)[0]).reshape(-1, longest)
    for each, hypotheses in zip(joined, filled, strict=True):
        if absent := [name for name in config.weights if any(name not in one.scores for one in hypotheses)]:
            raise UserError(
                f"weights.{absent[0]}: utterance {each.utt_id} has no score of that name, only "
                f"{', '.join(sorted(hypotheses[0].scores))}: rescore the lists, decode with that weight "
                "(0 will do), or leave it out"
            )
    components = [[[one.scores[name] for name in config.weights] for one in hypotheses] for hypotheses in filled]
    return Lists(list(config.weights), np.array(components), errors, tokens, missing)


def _filled(nbest: NBest, size: int) -> list[Hypothesis]:
    return [*nbest.hypotheses, *nbest.hypotheses[:1] * (size - len(nbest.hypotheses))]


def _errors(utterances: Sequence[Utterance], config: TuneConfig, normalize: Normalizer) -> tuple[list[int], int]:
    """Errors of each utterance, and the tokens of all references."""
    settings, unit = config.score, config.score.units[0]
    match = MatchConfig(**{name: getattr(settings, name) for name in MatchConfig.model_fields})
    aligned = align_set(Joined(utterances), unit, match, splitter(unit, settings, normalize.spaced))
    counts = [count(each.edits) for each in aligned]
    return [each.errors for each in counts], sum(each.tokens for each in counts)


def tune(lists: Lists, config: TuneConfig) -> Tuned:
    """The weights with the fewest errors that the search finds."""
    ranges = config.ranges

    def whole(point: Sequence[float] | np.ndarray) -> list[float]:
        found = dict(zip(ranges, np.atleast_1d(point).tolist(), strict=True))
        return [found.get(name, each) for name, each in config.weights.items()]  # type: ignore[misc]

    def errors_at(point: Sequence[float] | np.ndarray) -> int:
        return lists.errors_at(whole(point))

    shape = [each.points for each in ranges.values()]
    axes = np.meshgrid(*(each.values for each in ranges.values()), indexing="ij")
    points = np.stack(axes, -1).reshape(-1, len(ranges))
    grid = np.array([errors_at(point) for point in points]).reshape(shape)
    around = ndimage.uniform_filter(grid.astype(float), 3, mode="nearest")
    best = points[np.lexsort((around.ravel(), grid.ravel()))[0]].round(DIGITS)
    bounds = [(each.low, each.high) for each in ranges.values()]
    powell = optimize.minimize(errors_at, best, method="Powell", bounds=bounds).x
    powell = np.atleast_1d(powell).round(DIGITS)
    if errors_at(powell) < errors_at(best):
        best = powell
    curves = {}
    for axis, (name, each) in enumerate(ranges.items()):
        line = np.repeat(best[None], each.points, 0)
        line[:, axis] = each.values
        curves[name] = [(float(value), errors_at(point)) for value, point in zip(each.values, line, strict=True)]
    return Tuned(dict(zip(lists.names, whole(best), strict=True)), errors_at(best), curves)
