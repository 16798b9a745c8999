"""The files that a scored set leaves behind, under sclite's names: `hyp.trn.sys`, `hyp.trn.pra`, `hyp.trn.spk.NAME`."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from asrllm.console import write_atomically
from asrllm.score import table
from asrllm.score.align import count
from asrllm.score.dump import Writer
from asrllm.score.listing import Tally, of_speaker, overall
from asrllm.score.scoring import MatchConfig, Report, Unit
from asrllm.score.transcripts import write_trn
from asrllm.score.utterances import Aligned

ROOT = "hyp.trn"  # sclite names its reports by the file of the hypotheses


def write_reports(
    folder: Path,
    alignments: Sequence[Aligned],
    unit: Unit,
    match: MatchConfig,
    reports: Sequence[Report],
    title: str,
    date: str,
) -> str:
    """Write the text reports of one unit into `folder`, and ref.trn and hyp.trn; returns the table by speaker.

    The trn files hold the tokens that were aligned, one by one, so that sclite can be run on them. `date` is that of
    the hypotheses, so that scoring again writes the same files.
    """
    characters = unit in ("char", "mixed") and not any(
        isinstance(side, str) for each in alignments[:1] for side in (each.utterance.ref, each.utterance.hyp)
    )
    writer = Writer(alignments, match, characters, title)
    by_speaker = {speaker: [alignments[place] for place in places] for speaker, places in writer.speakers.items()}
    groups = {speaker: [count(each.edits) for each in members] for speaker, members in by_speaker.items()}
    sure = writer.entropies()
    summary = table.summary(groups, unit, title, entropies=sure)
    names = "ref.trn", ROOT
    _write_texts(folder, alignments)
    pieces: dict[Report, Iterable[str]] = {
        "sys": [summary],
        "raw": [table.summary(groups, unit, title, raw=True, entropies=sure)] if "raw" in reports else [],
        "pra": writer.pra(),
        "prf": writer.prf(*names, date),
        "sgml": writer.sgml(*names, date),
    }
    for report in [name for name in pieces if name in reports]:
        _write(folder / f"{ROOT}.{report}", pieces[report])
    if {"dtl", "spk"} & set(reports):
        _write_listings(folder, by_speaker, reports, title)
    return summary


def _write_texts(folder: Path, alignments: Sequence[Aligned]) -> None:
    for place, name in ((1, "ref.trn"), (2, ROOT)):
        texts = {
            each.utterance.name: " ".join(edit[place] for edit in each.edits if edit[place]) for each in alignments
        }
        write_trn(texts, folder / name)


def _write_listings(folder: Path, by_speaker: dict[str, list[Aligned]], reports: Sequence[Report], title: str) -> None:
    everything = Tally()
    taken: set[str] = set()
    for speaker, members in by_speaker.items():
        tally = Tally().add(members)
        everything.merge(tally)
        if "spk" in reports:
            name = f"{ROOT}.spk.{_file_name(speaker, taken)}"
            _write(folder / name, [of_speaker(tally, speaker, title)])
    if "dtl" in reports:
        _write(folder / f"{ROOT}.dtl", [overall(everything, title)])


def _file_name(speaker: str, taken: set[str]) -> str:
    """A name that no path can hide in, and that no other speaker has."""
    name = plain = re.sub(r"[^\w.+=@-]", "_", speaker)[:100]
    number = 1
    while name in taken:
        number += 1
        name = f"{plain}.{number}"
    taken.add(name)
    return name


def _write(path: Path, pieces: Iterable[str]) -> None:
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(pieces)
