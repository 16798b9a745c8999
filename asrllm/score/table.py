"""sclite's looks in plain text: the summary by speaker (`sum`) and the alignments (`pra`)."""

import statistics
import unicodedata
from collections.abc import Mapping, Sequence

from asrllm.score.align import Counts, Pair, count, operation
from asrllm.score.scoring import UnitScore

HEADS = ("Corr", "Sub", "Del", "Ins", "Err", "S.Err")


def summary(score: UnitScore, speakers: Mapping[str, str], title: str) -> str:
    """Percentages by speaker, their sum, mean, sample standard deviation and median, as `sclite -o sum`.

    Args:
        score: the set.
        speakers: speaker of every utterance.
        title: stands at the top of the table.
    """
    groups: dict[str, list[Counts]] = {}
    for utt_id, counts in score.utterances.items():
        groups.setdefault(speakers[utt_id], []).append(Counts(*counts))
    values = [_values(group) for group in groups.values()]
    everything = _values([counts for group in groups.values() for counts in group])
    rows = [_row(name, value, "d") for name, value in zip(groups, values, strict=True)]
    total = _row("Sum/Avg", everything, "d")
    columns = [list(column) for column in zip(*values, strict=True)]
    tail = [
        _row(" Mean ", [statistics.mean(column) for column in columns], ".1f"),
        _row(" S.D. ", [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns], ".1f"),
        _row("Median", [statistics.median(column) for column in columns], ".1f"),
    ]
    token = "Wrd" if score.unit == "word" else "Chr"
    return _frame(title, ["SPKR", "# Snt", f"# {token}", *HEADS], rows, total, tail)


def _values(group: Sequence[Counts]) -> list[float]:
    """Sentences, tokens, then percentages in the order of HEADS; per token, S.Err per sentence; 0 where none is."""
    total = sum(group, Counts())
    kinds = (total.correct, total.substitutions, total.deletions, total.insertions, total.errors)
    wrong = sum(counts.errors > 0 for counts in group)
    return [
        len(group),
        total.tokens,
        *(100 * kind / total.tokens if total.tokens else 0.0 for kind in kinds),
        100 * wrong / len(group),
    ]


def _row(name: str, values: Sequence[float], form: str) -> list[str]:
    return [name, *(format(value, form) for value in values[:2]), *(format(value, ".1f") for value in values[2:])]


def _frame(title: str, head: list[str], rows: list[list[str]], total: list[str], tail: list[list[str]]) -> str:
    lines = [head, *rows, total, *tail]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def draw(line: list[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        return f"| {line[0].ljust(widths[0])} | {' '.join(cells[1:3])} | {'  '.join(cells[3:])} |"

    inner = len(draw(head)) - 2
    parts = [len(part) for part in draw(head)[1:-1].split("|")]
    thin = "|" + "+".join("-" * part for part in parts) + "|"
    plain, thick = f"|{'-' * inner}|", f"|{'=' * inner}|"
    title = title if len(title) <= inner - 2 else "..." + title[5 - inner :]
    body = [line for row in rows for line in (thin, draw(row))]
    top = [f",{'-' * inner}.", f"|{title.center(inner)}|", plain, draw(head)]
    return "\n".join([*top, *body, thick, draw(total), thick, *map(draw, tail), f"`{'-' * inner}'"]) + "\n"


def alignment(utt_id: str, pairs: Sequence[Pair]) -> str:
    """One utterance as `sclite -o pra`: errors in capitals, stars for nothing, a letter under each error."""
    counts = count(pairs)
    rows = [_cells(pair) for pair in pairs]
    ref, hyp, marks = (" ".join(cells) for cells in zip(*rows, strict=True)) if rows else ("", "", "")
    figures = f"{counts.correct} {counts.substitutions} {counts.deletions} {counts.insertions}"
    return (
        f"id: ({utt_id})\nScores: (#C #S #D #I) {figures}\nREF:  {ref}".rstrip()
        + f"\nHYP:  {hyp}".rstrip()
        + f"\nEval: {marks}".rstrip()
        + "\n"
    )


def _cells(pair: Pair) -> tuple[str, str, str]:
    """Reference, hypothesis and mark, filled to the same width on the screen."""
    mark = operation(pair)
    ref, hyp = pair
    if mark != "C" and (ref or "").upper() != (hyp or "").upper():  # capitals must not hide what differs
        ref, hyp = ref and ref.upper(), hyp and hyp.upper()
    size = max(_width(ref or ""), _width(hyp or ""))
    first, second = ("*" * size if word is None else word + " " * (size - _width(word)) for word in (ref, hyp))
    return first, second, (" " if mark == "C" else mark).ljust(size)


def _width(word: str) -> int:
    """Columns on a terminal: two for a wide character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF") for letter in word
    )
