"""The scores of a set as one HTML file that needs no network: tables, a picture, coloured alignments with a search.

The program behind the page stands in `page.html`, what other pages share with it in `page.css` and `page.js`; this
module gathers its data.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from asrllm.score.align import Counts
from asrllm.score.listing import Tally
from asrllm.score.scoring import RATE, SetScore, UnitScore
from asrllm.score.utterances import Aligned

AT_MOST = 20_000  # utterances in the page; of a larger set those with most errors
ROWS = 200  # of each table of confusions
BINS = 12


def page(title: str, score: SetScore, alignments: Sequence[Aligned], audio: Mapping[str, str]) -> str:
    """The whole file.

    Args:
        title: of the page.
        score: figures in all units.
        alignments: in the first unit.
        audio: utterance id -> address of its recording, for those that have one.
    """
    tally = Tally().add(alignments)
    speakers: dict[str, list[Counts]] = {}
    for each, counts in zip(alignments, tally.counts, strict=True):
        speakers.setdefault(each.utterance.speaker, []).append(counts)
    kept: Iterable[int] = range(len(alignments))
    if len(alignments) > AT_MOST:
        worst = sorted(kept, key=lambda place: -tally.counts[place].errors)[:AT_MOST]
        kept = sorted(worst)
    data = {
        "title": title,
        "about": _about(score),
        "summary": [_summary(unit) for unit in score.units],
        "speakers": [_speaker(name, group) for name, group in speakers.items()],
        "confusions": [[ref, hyp, number] for (ref, hyp), number in tally.confusions.most_common(ROWS)],
        "insertions": tally.insertions.most_common(ROWS),
        "deletions": tally.deletions.most_common(ROWS),
        "lengths": _lengths(tally.counts),
        "total": len(alignments),
        "utterances": [_utterance(alignments[place], audio) for place in kept],
    }
    return fill(Path(__file__).with_suffix(".html"), data)


def fill(template: Path, data: Mapping[str, object]) -> str:
    """A template with its data, and the style and functions that all pages share."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = template.read_text(encoding="utf-8")
    for mark, suffix in (("@STYLE@", ".css"), ("@SHARED@", ".js")):
        page = page.replace(mark, Path(__file__).with_suffix(suffix).read_text(encoding="utf-8").rstrip())
    return page.replace("@DATA@", text)


def _about(score: SetScore) -> str:
    parts = [f"Normaliser: {score.normalizer} ({score.normalizer_version})."]
    parts += [f"{name.replace('_', ' ')}: yes." for name, value in score.match if value]
    for what, names in (("without a hypothesis, counted as deletions", score.missing), ("ignored", score.ignored)):
        parts += [f"{len(names)} {what}."] * bool(names)
    return " ".join(parts)


def _summary(score: UnitScore) -> list[str | int | float]:
    def interval(bounds: tuple[float, float] | None) -> str:
        return "-" if bounds is None else f"{bounds[0]:.2f} to {bounds[1]:.2f}"

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    counts = [score.sentences, score.tokens, score.correct, score.substitutions, score.deletions, score.insertions]
    intervals = [interval(score.interval_percent), interval(score.speaker_interval_percent)]
    lost = [share(score.match_err_percent), share(score.information_lost_percent)]
    return [RATE[score.unit], *counts, share(score.err_percent), *intervals, *lost, score.sentence_errors]


def _speaker(name: str, group: Sequence[Counts]) -> list[str | int | float]:
    total = sum(group, Counts())
    rate = 100 * total.errors / total.tokens if total.tokens else 0.0
    kinds = [total.substitutions, total.deletions, total.insertions]
    return [name, len(group), total.tokens, *kinds, rate, sum(each.errors > 0 for each in group)]


def _lengths(counts: Sequence[Counts]) -> list[dict[str, str | int | float | None]]:
    """Error rate by reference length, in bins of equal width in tokens."""
    width = max(1, -(-(max((each.tokens for each in counts), default=0) + 1) // BINS))
    bins: dict[int, list[Counts]] = {}
    for each in counts:
        bins.setdefault(each.tokens // width, []).append(each)
    rows: list[dict[str, str | int | float | None]] = []
    for place, group in sorted(bins.items()):
        total = sum(group, Counts())
        first, last = place * width, (place + 1) * width - 1
        label = str(first) if first == last else f"{first}-{last}"
        rate = 100 * total.errors / total.tokens if total.tokens else None
        rows.append({"label": label, "count": len(group), "rate": rate})
    return rows


def _utterance(each: Aligned, audio: Mapping[str, str]) -> dict[str, object]:
    row: dict[str, object] = {"name": each.utterance.name, "speaker": each.utterance.speaker, "edits": edits_of(each)}
    link = audio.get(each.utterance.utt_id)
    return row | ({"audio": link} if link else {})


def edits_of(each: Aligned) -> list[list[str]]:
    """Kind, reference and hypothesis of each edit; the reference alone where both are the same."""
    return [[kind, ref] if kind == "C" and ref == hyp else [kind, ref, hyp] for kind, ref, hyp in each.edits]
