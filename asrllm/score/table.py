"""sclite's summary by speaker: percentages (`sys`) and counts (`raw`), byte for byte."""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from asrllm.score.align import Counts
from asrllm.score.scoring import TOKEN, Unit

PAGE = 80  # columns of the screen that the table is centred on
HEADS = ("Corr", " Sub", " Del", " Ins", " Err", "S.Err")
Groups = Mapping[str, Sequence[Counts]]  # speaker -> counts of the utterances
_FOOTNOTE = """
* No Reference words for this/these speaker(s).  Word counts supplied
  rather than percents.
# No Reference words for this/these speaker(s).  NCE not computable.
+ Speaker(s) with no reference data is ignored
"""


def rounded(value: float, places: int) -> float:
    """The value rounded half away from zero, in single precision, as sclite's reports do."""
    scale = 10.0**places
    return float(np.float32(math.trunc(value * scale + (0.5 if value > 0 else -0.5)))) / scale


def percent(part: float, whole: float) -> float:
    """Percentage; 0 of nothing."""
    return part / whole * 100.0 if whole else 0.0


def summary(groups: Groups, unit: Unit, title: str, raw: bool = False, entropies: Sequence[float] | None = None) -> str:
    """The table of `sclite -o sum`, or with `raw` of `-o rsum`.

    Args:
        groups: counts by speaker, in the order of the report.
        unit: names the tokens.
        title: stands at the top of the table.
        raw: counts instead of percentages.
        entropies: normalised cross entropy of each speaker and of all (see `asrllm.score.confidence`).
    """
    figures = {speaker: _figures(group, raw) for speaker, group in groups.items()}
    known = [row for row, group in zip(figures.values(), groups.values(), strict=True) if _tokens(group)]
    starred = not raw and len(known) < len(figures)
    body = [_speaker_row(name, row, raw or _tokens(groups[name]) > 0, raw) for name, row in figures.items()]
    everything = _figures([counts for group in groups.values() for counts in group], raw)
    total = [" Sum" if raw else " Sum/Avg", *_cells(everything, 0 if raw else 1)]
    columns = list(zip(*figures.values(), strict=True))
    counted = [*columns[:2], *(list(zip(*known, strict=True))[2:7] if known else [()] * 5), columns[7]]
    tail = [
        [name, *_tail_cells([measure(column) for column in counted], starred)]
        for name, measure in ((" Mean ", _mean), (" S.D. ", _deviation), ("Median", _median))
    ]
    head = [" SPKR", " # Snt", f"# {TOKEN[unit]}", *HEADS]
    rows = [head, *body, total, *tail]
    if entropies is not None:
        spread = [measure(entropies[:-1]) for measure in (_mean, _deviation, _median)]
        for row, cell in zip(
            rows, ["NCE", *(f"{rounded(each, 3):7.3f} " for each in (*entropies, *spread))], strict=True
        ):
            row.append(cell)
    title_line = "SYSTEM SUMMARY PERCENTAGES by SPEAKER"
    heading = "\n\n\n" + _centred(title_line, PAGE) + "\n\n"
    return heading + _frame(title, rows, len(body), 2, entropies is not None) + (_FOOTNOTE if starred else "")


def _tokens(group: Sequence[Counts]) -> int:
    return sum(counts.tokens for counts in group)


def _figures(group: Sequence[Counts], raw: bool) -> list[float]:
    """Sentences, tokens, then C S D I E and wrong sentences; percentages unless raw or without a token."""
    kinds = [
        sum(column)
        for column in zip(
            *((c.correct, c.substitutions, c.deletions, c.insertions, c.errors) for c in group), strict=True
        )
    ]
    tokens = sum(kinds[:3])
    wrong = sum(counts.errors > 0 for counts in group)
    if not raw and tokens:
        kinds = [percent(kind, tokens) for kind in kinds]
    return [len(group), tokens, *kinds, wrong if raw else percent(wrong, len(group))]


def _cells(figures: Sequence[float], places: int) -> list[str]:
    return [f"{int(each):5d}" for each in figures[:2]] + [
        f"{rounded(each, places):5.{places}f} " for each in figures[2:]
    ]


def _speaker_row(name: str, figures: Sequence[float], known: bool, raw: bool) -> list[str]:
    cells = _cells(figures, 0 if raw else 1)
    if not known:
        cells[2:7] = [f"{rounded(each, 0):5.0f}*" for each in figures[2:7]]
    return [f" {name} ", *cells]


def _tail_cells(values: Sequence[float], starred: bool) -> list[str]:
    marks = [" ", " ", *(["+" if starred else " "] * 5), " "]
    return [f"{rounded(value, 1):5.1f}{mark}" for value, mark in zip(values, marks, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def _centred(text: str, width: int) -> str:
    left = (width - len(text.encode())) // 2
    return " " * left + text + " " * (width - len(text.encode()) - left)


def _fill(text: str, width: int) -> str:
    return text + " " * (width - len(text.encode()))


def _frame(title: str, rows: list[list[str]], speakers: int, rules_at: int, entropy: bool) -> str:
    """Rows in a frame; widths are of bytes, as sclite counts them."""
    widths = [max(len(row[column].encode()) for row in rows) for column in range(len(rows[0]))]
    marks = ["|", " ", "|", *" " * 5, "|" if entropy else " "][: len(widths) - 1]
    inner = sum(widths) + len(widths) - 1
    spare = max(0, len(title.encode()) - inner)
    inner += spare
    adds, given = [], 0
    for column in range(len(widths)):
        add = (
            spare - given if column == len(widths) - 1 else int(rounded(spare / len(widths) * (column + 1), 0)) - given
        )
        adds.append(add)
        given += add

    def draw(row: list[str], left: bool) -> str:
        cells = []
        for column, (text, width, add) in enumerate(zip(row, widths, adds, strict=True)):
            cell = _fill(text, width) if left and column == 0 else _centred(text, width)
            cells.append(" " * (add // 2) + cell + " " * (add - add // 2))
        return "|" + "".join(cell + mark for cell, mark in zip(cells, [*marks, ""], strict=True)) + "|"

    def rule(letter: str, crossed: bool) -> str:
        parts = [letter * (width + add) for width, add in zip(widths, adds, strict=True)]
        joints = ["+" if crossed and mark == "|" else letter for mark in marks]
        return "|" + "".join(part + joint for part, joint in zip(parts, [*joints, ""], strict=True)) + "|"

    lines = ["," + "-" * inner + ".", "|" + _centred(title, inner) + "|", rule("-", False), draw(rows[0], True)]
    for row in rows[1 : 1 + speakers]:
        lines += [rule("-", True), draw(row, True)]
    lines += [rule("=", False), draw(rows[1 + speakers], True), rule("=", False)]
    lines += [draw(row, False) for row in rows[2 + speakers :]]
    lines.append("`" + "-" * inner + "'")
    margin = " " * ((PAGE - inner - 2) // 2) if inner + 2 < PAGE else ""
    return "".join(margin + line + "\n" for line in lines)
