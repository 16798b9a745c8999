"""Finished experiments as points of a comparison: what each cost, with all that it starts from, and how it scored.

The FLOPs of a run are those of its own ledger and of every experiment that its weights come from, each counted once; of
a pretraining of which only a snapshot was taken, the share that was done by then. It knows files; it fits nothing.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asrllm.analysis.ladder import LADDER_FILE
from asrllm.analysis.scaling import Point
from asrllm.console import UserError
from asrllm.experiment import Experiment
from asrllm.score.scoring import SetScore, Unit, read_score

log = logging.getLogger("asrllm")


@dataclass(frozen=True)
class Run:
    """One training run, scored."""

    schedule: str
    experiment: Path
    flops: float
    seed: int
    score: SetScore
    unit: Unit

    @property
    def point(self) -> Point:
        """What a law is fitted to."""
        percent = next((each.err_percent for each in self.score.units if each.unit == self.unit), None)
        if percent is None:
            raise UserError(
                f"{self.experiment}: its decoding was not scored in the unit {self.unit}: "
                "score it again with that unit in conf/score.yaml (stage 9)"
            )
        return Point(self.flops, percent, self.seed)


def read_runs(schedules: Mapping[str, Sequence[Path]], decoding: str, unit: Unit) -> list[Run]:
    """The runs of each schedule, by the score of one decoding, such as `decode_greedy/test`.

    Raises:
        UserError: not finished, not scored, a ledger without steps, or scores that cannot be compared.
    """
    runs = []
    for schedule, folders in schedules.items():
        for folder in folders:
            experiment = Experiment(folder)
            flops = sum(costs(folder).values())
            path = folder / decoding / "score.json"
            if not path.is_file():
                raise UserError(f"{path}: no such score: decode and score {folder} (stages 8 and 9)")
            runs.append(Run(schedule, folder, flops, experiment.config.train.seed, read_score(path), unit))
    for run in runs[1:]:
        _check_comparable(runs[0], run)
    return runs


def read_ladder(folder: Path, decoding: str) -> dict[str, list[Path]]:
    """The experiments of each schedule of a ladder, those that have ended and are scored; a warning tells of others.

    Raises:
        UserError: no ladder there, or none of its runs has ended.
    """
    path = folder / LADDER_FILE
    try:
        rungs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: no ladder was begun there: run asrllm.bin.ladder with --expdir {folder}") from None
    found: dict[str, list[Path]] = {}
    for rung in rungs:
        experiment = folder / rung["experiment"]
        if (experiment / "summary.json").is_file() and (experiment / decoding / "score.json").is_file():
            found.setdefault(rung["schedule"], []).append(experiment)
    if not found:
        raise UserError(
            f"{path}: none of its {len(rungs)} runs has ended with a score of {decoding}: run the ladder again"
        )
    if left := len(rungs) - sum(map(len, found.values())):
        log.warning("%s: %d of %d runs are not scored yet, left out", folder, left, len(rungs))
    return found


def costs(place: Path) -> dict[Path, float]:
    """Model FLOPs of an experiment, or of a snapshot of one, and of all that it starts from, by experiment.

    Raises:
        UserError: one of them has not ended or is not there, or a ledger counts no step.
    """
    experiment = Experiment.holding(place)
    summary, folder = experiment.summary, experiment.folder
    flops = (summary.get("flops") or {}).get("model", 0)
    if not (flops > 0 and summary.get("steps", 0) > 0):
        raise UserError(f"{folder / 'summary.json'}: its ledger counts no step: train the experiment again")
    share = 1.0
    if place.parent.name == "snapshots" and (place / "progress.json").is_file():
        share = json.loads((place / "progress.json").read_text())["share"]
    found = {folder.resolve(): share * flops}
    stage = experiment.config.stage
    swaps = [phase.encoder_swaps for phase in stage.phases if phase.encoder_swaps]
    for source in dict.fromkeys([*stage.init.values(), *(each.pretraining for each in swaps)]):
        for name, amount in costs(_found(source, folder)).items():
            found[name] = max(amount, found.get(name, 0.0))
    return found


def _found(source: str, folder: Path) -> Path:
    """The folder that a configuration names: paths in it are those of the recipe, somewhere above the experiment."""
    for above in folder.resolve().parents:
        if (above / source).is_dir():
            return above / source
    raise UserError(f"{folder / 'config.yaml'}: it starts from {source}, which is not there: its FLOPs are unknown")


def _check_comparable(one: Run, other: Run) -> None:
    first, second = one.score, other.score
    names = [f"{each.normalizer} ({each.normalizer_version})" for each in (first, second)]
    if names[0] != names[1] or first.match != second.match:
        raise UserError(
            f"{one.experiment} was scored under {names[0]}, {other.experiment} under {names[1]} or with other options: "
            "score both again with one conf/score.yaml"
        )
    if _references(first) != _references(second):
        raise UserError(
            f"{one.experiment} and {other.experiment} were scored on different references: "
            "decode both on one test set and score them again"
        )


def _references(score: SetScore) -> list[tuple[str, str, int]]:
    """Unit, utterance and how many tokens its reference has."""
    return sorted(
        (unit.unit, utt_id, sum(counts[:3])) for unit in score.units for utt_id, counts in unit.utterances.items()
    )
