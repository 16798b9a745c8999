"""The figures that lie under an exp/ folder, and the Markdown that RESULTS.md is made of.

It reads text files and writes text; it knows no model and starts nothing. A decoding lies in
`<exp>/<experiment>/decode_<how>/<set>`, a pretrained recogniser's in `<exp>/zero_shot/<model>/<set>`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrllm.console import UserError
from asrllm.score.hallucination import Share
from asrllm.score.scoring import RATE, TOKEN, SetScore, Unit, UnitScore, read_score
from asrllm.score.significance import matched_pairs, paired_bootstrap

ZERO_SHOT = "zero_shot"
TRAINING_ORDER = ("train_encoder", "train_align", "train_iasft", "train_joint")  # first words of experiment names
ALPHA = 0.05  # a smaller p value is called a difference
NAMED_AT_MOST = 5
NONE = "-"


@dataclass(frozen=True)
class Decoding:
    """One scored folder."""

    experiment: str
    name: str
    set: str
    score: SetScore
    speeds: Sequence[Mapping[str, Any]]  # a speed.*.json for each job

    @property
    def label(self) -> str:
        """Path of the folder below exp/."""
        return f"{self.experiment}/{self.name}/{self.set}"

    @property
    def kind(self) -> str:
        """`zero_shot`, `ctc` (the encoder alone, by the name decode_ctc...) or `llm`."""
        if self.experiment == ZERO_SHOT:
            return ZERO_SHOT
        return "ctc" if self.name.startswith("decode_ctc") and "llm" not in self.name else "llm"

    def unit(self, unit: Unit) -> UnitScore | None:
        """Figures in that unit, None where it was not scored."""
        return next((score for score in self.score.units if score.unit == unit), None)


@dataclass(frozen=True)
class Experiment:
    """One training: its summary.json (empty where there is none) and the picture of its curves."""

    name: str
    summary: Mapping[str, Any]
    curves: Path | None


@dataclass(frozen=True)
class Results:
    """Everything that a report shows, in its order."""

    decodings: Sequence[Decoding]
    experiments: Sequence[Experiment]


def collect(exp: Path) -> Results:
    """Read all scores, speeds and summaries below `exp`.

    Raises:
        UserError: no score at all; a file that is not valid.
    """
    paths = [*exp.glob("*/decode_*/*/score.json"), *exp.glob(f"{ZERO_SHOT}/*/*/score.json")]
    if not paths:
        raise UserError(f"{exp}: no score.json in any decoding: run the scoring (stage 9) first")
    decodings = [
        Decoding(
            experiment=path.parts[-4],
            name=path.parts[-3],
            set=path.parts[-2],
            score=read_score(path),
            speeds=[_read_object(each) for each in sorted(path.parent.glob("speed.*.json"))],
        )
        for path in paths
    ]
    names = {each.experiment for each in decodings} | {path.parent.name for path in exp.glob("*/summary.json")}
    experiments = []
    for name in sorted(names - {ZERO_SHOT}, key=_rank):
        summary, curves = exp / name / "summary.json", exp / name / "curves.png"
        found = _read_object(summary) if summary.is_file() else {}
        experiments.append(Experiment(name, found, curves if curves.is_file() else None))
    return Results(sorted(decodings, key=_place), experiments)


def _place(row: Decoding) -> tuple[Any, ...]:
    """By set; pretrained recognisers on top; in an experiment the encoder's own row above those of the LLM."""
    return row.set, row.kind != ZERO_SHOT, _rank(row.experiment), row.kind != "ctc", row.name


def _rank(experiment: str) -> tuple[int, str]:
    places = [place for place, stage in enumerate(TRAINING_ORDER) if experiment.startswith(stage)]
    return (places[0] if places else len(TRAINING_ORDER)), experiment


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise UserError(f"{path}: not valid JSON: {fault}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def render(results: Results, header: Mapping[str, str], pictures: Mapping[str, str]) -> str:
    """The whole RESULTS.md.

    Args:
        results: what `collect` found.
        header: lines that tell where and how the figures were made.
        pictures: experiment -> link of its curves.
    """
    blocks = ["# Results", "\n".join(f"- {key}: {value}" for key, value in header.items())]
    units: dict[Unit, None] = {score.unit: None for row in results.decodings for score in row.score.units}
    for unit in units:
        blocks += [f"## {RATE[unit]}", _error_rates(results.decodings, unit), *_verdicts(results.decodings, unit)]
    blocks += [
        *_remarks(results.decodings),
        "## Made-up text",
        made_up(results.decodings),
        "## Speed",
        _speeds(results.decodings),
    ]
    if results.experiments:
        blocks += ["## Models", _models(results.experiments), *commands(results.experiments)]
    blocks += [f"![loss curves of {name}]({link})" for name, link in pictures.items()]
    return "\n\n".join(block for block in blocks if block) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("|" + "|".join(cells) + "|" for cells in (head, rule, *rows))


def _error_rates(decodings: Sequence[Decoding], unit: Unit) -> str:
    """ESPnet's table with the 95 % bootstrap interval of Err beside it."""
    rows = []
    for row in decodings:
        score = row.unit(unit)
        if score is None:
            continue
        kinds = (score.correct, score.substitutions, score.deletions, score.insertions)
        rates = [f"{100 * kind / score.tokens:.1f}" if score.tokens else NONE for kind in kinds]
        err = NONE if score.err_percent is None else f"{score.err_percent:.1f}"
        wrong = f"{100 * score.sentence_errors / score.sentences:.1f}" if score.sentences else NONE
        interval = "{:.1f} to {:.1f}".format(*score.interval_percent) if score.interval_percent else NONE
        rows.append([row.label, str(score.sentences), str(score.tokens), *rates, err, wrong, interval])
    return markdown_table(
        ["dataset", "Snt", TOKEN[unit], "Corr", "Sub", "Del", "Ins", "Err", "S.Err", "Err, 95 % interval"], rows
    )


def _verdicts(decodings: Sequence[Decoding], unit: Unit) -> list[str]:
    blocks = []
    scored = [row for row in decodings if row.unit(unit) is not None]
    llm = [verdict(row, baseline(row, decodings, unit), unit) for row in scored if row.kind == "llm"]
    if llm:
        blocks += ["Does the LLM help?", "\n".join(llm)]
    trained = [(row, _pretrained(row, decodings, unit)) for row in scored if row.kind != ZERO_SHOT]
    beaten = [verdict(row, base, unit, "training") for row, base in trained if base is not None]
    if beaten:
        blocks += ["Does training here help over the recogniser as it came?", "\n".join(beaten)]
    return blocks


def baseline(row: Decoding, decodings: Sequence[Decoding], unit: Unit) -> Decoding | None:
    """The encoder's own row: of the same experiment, else the best on the same set (which is the hardest to beat)."""
    rows = [each for each in decodings if each.kind == "ctc" and each.set == row.set and each.unit(unit)]
    return min(rows, key=lambda each: (each.experiment != row.experiment, *_by_error(each, unit)), default=None)


def _pretrained(row: Decoding, decodings: Sequence[Decoding], unit: Unit) -> Decoding | None:
    """The best of the pretrained recognisers on the same set."""
    rows = [each for each in decodings if each.kind == ZERO_SHOT and each.set == row.set and each.unit(unit)]
    return min(rows, key=lambda each: _by_error(each, unit), default=None)


def _by_error(row: Decoding, unit: Unit) -> tuple[float, str]:
    score = row.unit(unit)
    percent = None if score is None else score.err_percent
    return float("inf") if percent is None else percent, row.label


def verdict(row: Decoding, base: Decoding | None, unit: Unit, cause: str = "the LLM") -> str:
    """A line of a list: what `cause` is shown to do, by a row against the row without it on the same utterances."""
    return f"- `{row.label}`: {_verdict(row, base, unit, cause)}"


def _verdict(row: Decoding, base: Decoding | None, unit: Unit, cause: str) -> str:
    if base is None:
        return "there is no CTC row of this set to compare with."
    ours, theirs = row.unit(unit), base.unit(unit)
    if ours is None or theirs is None:
        return f"not scored in {RATE[unit]}."
    if (row.score.normalizer, row.score.normalizer_version) != (base.score.normalizer, base.score.normalizer_version):
        return f"not comparable with `{base.label}`, which was scored under another normaliser: score both again."
    if tokens_of(ours) != tokens_of(theirs):
        return f"not comparable with `{base.label}`, which was scored on other references: score both again."
    utt_ids = sorted(ours.utterances)
    errors, base_errors = ours.errors(utt_ids), theirs.errors(utt_ids)
    found = paired_bootstrap(base_errors, errors, [tokens_of(ours)[utt_id] for utt_id in utt_ids])
    pairs = matched_pairs(base_errors, errors)
    if found is None or pairs is None:
        return "too few utterances to tell."
    rates = f"{RATE[unit]} {ours.err_percent:.2f} % against {theirs.err_percent:.2f} % of `{base.label}`"
    low, high = found.interval
    figures = (
        f"{found.points:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}; "
        f"paired bootstrap {_p(found.p_value)}, matched pairs {_p(pairs)}"
    )
    if found.p_value >= ALPHA:
        return f"{cause} is not shown to help or to harm: {rates} ({figures})."
    return f"{cause} {'helps' if found.points < 0 else 'harms'}: {rates} ({figures})."


def tokens_of(score: UnitScore) -> dict[str, int]:
    """Reference tokens of each utterance."""
    return {utt_id: sum(counts[:3]) for utt_id, counts in score.utterances.items()}


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _remarks(decodings: Sequence[Decoding]) -> list[str]:
    """How texts were compared, and what was missing or left over."""
    names = sorted({f"{row.score.normalizer} ({row.score.normalizer_version})" for row in decodings})
    lines = []
    for row in decodings:
        for what, utt_ids in (
            ("without a hypothesis, counted as deletions", row.score.missing),
            ("without a reference, not counted", row.score.extra),
        ):
            if utt_ids:
                more = ", ..." if len(utt_ids) > NAMED_AT_MOST else ""
                lines.append(f"- `{row.label}`: {len(utt_ids)} {what}: {', '.join(utt_ids[:NAMED_AT_MOST])}{more}")
    return [
        f"Texts were normalised by {' and by '.join(names)}. Intervals: bootstrap over utterances.",
        "\n".join(lines),
    ]


def tables(results: Results, header: Mapping[str, str]) -> str:
    """The tables that ESPnet users paste: one for each experiment and unit, without intervals."""
    blocks = ["# RESULTS", "## Environments", "\n".join(f"- {key}: {value}" for key, value in header.items())]
    for experiment in dict.fromkeys(row.experiment for row in results.decodings):
        blocks.append(f"## {experiment}")
        rows = [row for row in results.decodings if row.experiment == experiment]
        for unit in dict.fromkeys(score.unit for row in rows for score in row.score.units):
            lines = _error_rates(rows, unit).splitlines()
            short = [line.removeprefix(f"|{experiment}/").removeprefix("|") for line in lines]
            cells = [line.split("|")[:9] for line in short]
            cells[1] = ["---"] * 9
            blocks += [f"### {RATE[unit]}", "\n".join("|" + "|".join(row) + "|" for row in cells)]
    return "\n\n".join(blocks) + "\n"


def made_up(decodings: Sequence[Decoding]) -> str:
    """Shares of `asrllm.score.hallucination`; sets named ..._snr10 or ..._silence2 make a curve, row by row."""

    def shown(share: Share) -> str:
        if share.percent is None or share.interval_percent is None:
            return NONE
        return "{:.2f} ({:.2f} to {:.2f})".format(share.percent, *share.interval_percent)

    rows = []
    for row in sorted(decodings, key=lambda row: (row.experiment, row.name, *condition(row.set))):
        found = row.score.hallucination
        shares = [found.unrelated, found.inserted, found.looping, found.truncated, found.non_speech]
        letters = found.non_speech_letters_per_minute
        rows.append([row.label, *map(shown, shares), _number(letters, ".1f")])
    head = [
        "%, exact 95 % interval",
        "unrelated",
        "5 insertions in a row",
        "loops",
        "truncated",
        "output on non-speech",
    ]
    return markdown_table([*head, "letters a minute of non-speech"], rows)


def condition(name: str) -> tuple[str, str, float]:
    """Set, kind of condition (snr, silence, or none), and falling signal-to-noise ratio or rising silence."""
    match = re.fullmatch(r"(.*)_(snr|silence)(-?[0-9.]+)", name)
    if match is None:
        return name, "", 0.0
    return match[1], match[2], float(match[3]) * (-1 if match[2] == "snr" else 1)


def _speeds(decodings: Sequence[Decoding]) -> str:
    """Real-time factors: seconds that the jobs took, summed, per second of audio."""
    rows = []
    for row in decodings:
        audio = sum(each.get("seconds_audio", 0) for each in row.speeds)
        wall = sum(each.get("seconds_wall", 0) for each in row.speeds)
        known = [f"{audio:.0f}", f"{wall:.0f}", f"{wall / audio:.3f}"] if audio and wall else [NONE] * 3
        jobs = str(len(row.speeds)) if row.speeds else NONE
        rows.append([row.label, *known, jobs, _joined(row.speeds, "device"), _joined(row.speeds, "threads")])
    return markdown_table(["decoding", "audio s", "job s", "RTF", "jobs", "device", "threads"], rows)


def _joined(objects: Sequence[Mapping[str, Any]], key: str) -> str:
    return ", ".join(sorted({str(each[key]) for each in objects if key in each})) or NONE


def _models(experiments: Sequence[Experiment]) -> str:
    rows = []
    for each in experiments:
        trained = each.summary.get("trained") or {}
        valid = each.summary.get("valid") or {}
        rows.append(
            [
                each.name,
                _millions(each.summary.get("parameters")),
                _millions(trained) + (f" ({', '.join(trained)})" if trained else ""),
                _number(each.summary.get("wall_hours"), ".2f"),
                _number(each.summary.get("audio_hours"), ".2f"),
                _number(each.summary.get("steps"), "d"),
                _number((each.summary.get("flops") or {}).get("model"), ".2e"),
                ", ".join(f"{name} {_number(value, '.4g')}" for name, value in valid.items()) or NONE,
            ]
        )
    head = [
        "experiment",
        "parameters",
        "trained",
        "wall hours",
        "audio hours",
        "steps",
        "model FLOPs",
        "best validation",
    ]
    return markdown_table(head, rows)


def _millions(parts: Mapping[str, int] | None) -> str:
    return f"{sum(parts.values()) / 1e6:.2f} M" if parts else NONE


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def commands(experiments: Sequence[Experiment]) -> list[str]:
    """How each of them was trained, and from which commit."""
    lines = [
        f"- {each.name}: `{each.summary['command']}` (commit {each.summary.get('commit') or NONE})"
        for each in experiments
        if each.summary.get("command")
    ]
    return ["\n".join(lines)]
