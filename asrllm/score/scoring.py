"""Error rates of one decoded set: references and hypotheses in, a `SetScore` out.

It knows no search and no model. A missing hypothesis counts as deletions; a set in which crashed utterances are left
out would look better than it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import pydantic

from asrllm.config import Config
from asrllm.console import UserError, write_atomically
from asrllm.score.align import Counts, Pair, Unit, align, count, split
from asrllm.score.significance import bootstrap_interval
from asrllm.text.normalize import Normalizer, NormalizerName

UttCounts = tuple[int, int, int, int]  # correct, substitutions, deletions, insertions


class ScoreConfig(Config):
    """Keys of `conf/score.yaml`."""

    normalizer: NormalizerName = "basic"
    spelling_table: str | None = None  # normalizer.json of a Whisper checkpoint, for whisper_english
    units: Annotated[tuple[Unit, ...], pydantic.Field(min_length=1)] = ("word", "char")


class UnitScore(Config):
    """Figures of one set in one unit."""

    unit: Unit
    sentences: int
    tokens: int
    correct: int
    substitutions: int
    deletions: int
    insertions: int
    err_percent: float | None  # None where the references hold no token
    interval_percent: tuple[float, float] | None  # 95 % bootstrap over utterances
    sentence_errors: int
    utterances: dict[str, UttCounts]

    def errors(self, utt_ids: Sequence[str]) -> list[int]:
        """Errors per utterance, in the order of `utt_ids`."""
        return [sum(self.utterances[utt_id][1:]) for utt_id in utt_ids]


class SetScore(Config):
    """Content of `score.json`."""

    normalizer: str
    normalizer_version: str
    missing: tuple[str, ...]  # no hypothesis: counted as deletions
    extra: tuple[str, ...]  # no reference: not counted
    units: tuple[UnitScore, ...]


class Texts(Config):
    """References and hypotheses of one set after normalisation, over the same utterance ids in the same order."""

    refs: dict[str, str]
    hyps: dict[str, str]  # empty where missing
    missing: tuple[str, ...]
    extra: tuple[str, ...]


def join(refs: Mapping[str, str], hyps: Mapping[str, str], normalize: Normalizer) -> Texts:
    """Join by utterance id and normalise both sides.

    Raises:
        UserError: not one utterance in common.
    """
    if not refs.keys() & hyps.keys():
        raise UserError(
            f"no utterance in common: the {len(refs)} references begin with {min(refs, default='nothing')}, "
            f"the {len(hyps)} hypotheses with {min(hyps, default='nothing')}: give the --ref that was decoded"
        )
    return Texts(
        refs={utt_id: normalize(text) for utt_id, text in refs.items()},
        hyps={utt_id: normalize(hyps.get(utt_id, "")) for utt_id in refs},
        missing=tuple(utt_id for utt_id in refs if utt_id not in hyps),
        extra=tuple(sorted(utt_id for utt_id in hyps if utt_id not in refs)),
    )


def align_set(texts: Texts, unit: Unit, spaced: bool) -> dict[str, list[Pair]]:
    """Alignment of every utterance; `spaced` as in `asrllm.score.align.split`."""
    return {
        utt_id: align(split(text, unit, spaced), split(texts.hyps[utt_id], unit, spaced))
        for utt_id, text in texts.refs.items()
    }


def score_unit(unit: Unit, alignments: Mapping[str, Sequence[Pair]]) -> UnitScore:
    """Sum the alignments of a set."""
    counts = {utt_id: count(pairs) for utt_id, pairs in alignments.items()}
    total = sum(counts.values(), Counts())
    errors = [each.errors for each in counts.values()]
    return UnitScore(
        unit=unit,
        sentences=len(counts),
        tokens=total.tokens,
        correct=total.correct,
        substitutions=total.substitutions,
        deletions=total.deletions,
        insertions=total.insertions,
        err_percent=100 * total.errors / total.tokens if total.tokens else None,
        interval_percent=bootstrap_interval(errors, [each.tokens for each in counts.values()]),
        sentence_errors=sum(number > 0 for number in errors),
        utterances={
            utt_id: (each.correct, each.substitutions, each.deletions, each.insertions)
            for utt_id, each in counts.items()
        },
    )


def write_score(score: SetScore, path: Path) -> None:
    """Write `score.json`."""
    with write_atomically(path) as temporary:
        temporary.write_text(score.model_dump_json() + "\n", encoding="utf-8")


def read_score(path: Path) -> SetScore:
    """Read `score.json`.

    Raises:
        UserError: unreadable, or written by another release.
    """
    try:
        return SetScore.model_validate_json(path.read_bytes())
    except (OSError, pydantic.ValidationError):
        raise UserError(f"{path}: not a score of this release: delete it and score again (stage 9)") from None
