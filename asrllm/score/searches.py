"""The table of a comparison of searches: a row for each, with what it costs beside what it gains.

It reads what `results.collect` found and writes Markdown.
"""

import re
from collections.abc import Mapping, Sequence

from asrllm.score.results import NONE, Decoding, Results, baseline, commands, markdown_table, tokens_of
from asrllm.score.scoring import RATE, Unit
from asrllm.score.significance import paired_bootstrap

CALLS = ("llm_calls", "lm_calls")  # of the speech LLM, of a language model over text
UNIT: Unit = "word"
LEGEND = (
    "In brackets 95 % intervals, bootstrap over utterances. Differences are points against the better row of CTC alone "
    "on the same utterances: below zero the search is better. RTF is by the clock, whatever else the machine did; "
    "processor seconds are the job's own. An LLM call is a pass in which the utterance took part."
)


def searches(results: Results, header: Mapping[str, str]) -> str:
    """A table for each experiment whose decodings were compared."""
    blocks = ["# Searches", "\n".join(f"- {key}: {value}" for key, value in header.items())]
    for experiment in dict.fromkeys(row.experiment for row in results.decodings):
        rows = [row for row in results.decodings if row.experiment == experiment and row.unit(UNIT)]
        blocks += [f"## {experiment}", search_table(rows)]
    return "\n\n".join([*blocks, LEGEND, *filter(None, commands(results.experiments))]) + "\n"


def search_table(decodings: Sequence[Decoding]) -> str:
    """Decodings of one experiment, a row for each search; sets in the order of their names."""
    sets = list(dict.fromkeys(row.set for row in decodings))
    names = sorted({row.name for row in decodings}, key=lambda name: _order(name, decodings))
    head = ["search"]
    for name in sets:
        head += [f"{RATE[UNIT]} % of {name}", f"against CTC, {name}"]
    head += ["RTF", "processor s per s of audio", "LLM calls per utterance"]
    rows = []
    for name in names:
        found = {row.set: row for row in decodings if row.name == name}
        cells = [cell for each in sets for cell in _errors(found.get(each), decodings)]
        rows.append([name.removeprefix("decode_"), *cells, *_costs(list(found.values()))])
    return markdown_table(head, rows)


def _order(name: str, decodings: Sequence[Decoding]) -> tuple[bool, list[str]]:
    """CTC alone above all others; numbers in a name by their value."""
    ctc = any(row.kind == "ctc" for row in decodings if row.name == name)
    return not ctc, [part.zfill(9) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _errors(row: Decoding | None, decodings: Sequence[Decoding]) -> list[str]:
    """Error rate, and the difference to CTC alone on the same utterances."""
    score = row.unit(UNIT) if row is not None else None
    if row is None or score is None or score.err_percent is None:
        return [NONE, NONE]
    rate = f"{score.err_percent:.2f}" + _interval(score.interval_percent, ".1f")
    other = baseline(row, decodings, UNIT)
    theirs = other.unit(UNIT) if other is not None else None
    if other is row or theirs is None or tokens_of(theirs) != tokens_of(score):
        return [rate, NONE]
    utt_ids = sorted(score.utterances)
    tokens = [tokens_of(score)[utt_id] for utt_id in utt_ids]
    found = paired_bootstrap(theirs.errors(utt_ids), score.errors(utt_ids), tokens)
    return [rate, NONE if found is None else f"{found.points:+.2f}" + _interval(found.interval, "+.1f")]


def _interval(ends: tuple[float, float] | None, form: str) -> str:
    return "" if ends is None else f" ({ends[0]:{form}} to {ends[1]:{form}})"


def _costs(rows: Sequence[Decoding]) -> list[str]:
    """What a search took: by the clock, of the processor, of the LLMs."""
    speeds = [speed for row in rows for speed in row.speeds]
    audio, wall, processor = (
        sum(speed.get(f"seconds_{what}", 0.0) for speed in speeds) for what in ("audio", "wall", "processor")
    )
    times = [f"{each / audio:.3f}" if audio and each else NONE for each in (wall, processor)]
    calls = sum(speed.get(name, 0) for speed in speeds for name in CALLS)
    utterances = sum(len(score.utterances) for row in rows if (score := row.unit(UNIT)))
    return [*times, f"{calls / utterances:.1f}" if calls and utterances else NONE]
