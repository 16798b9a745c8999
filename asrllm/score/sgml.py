"""Alignments read back from sclite's `sgml`, ours or sclite's own, for tests that need to know where errors lie."""

import re
from dataclasses import dataclass
from pathlib import Path

from asrllm.console import UserError
from asrllm.score.align import Edit
from asrllm.score.transcripts import read_lines


@dataclass(frozen=True, slots=True)
class Read:
    """One utterance of the file."""

    speaker: str
    edits: list[Edit]


_SPEAKER = re.compile(r'<SPEAKER id="(.*?)">')
_PATH = re.compile(r'<PATH id="(.*?)" word_cnt="(\d+)"')
_EDIT = re.compile(r'([CSDI]),(?:"([^"]*)")?,(?:"([^"]*)")?((?:,[^:"]*)?)(?::|$)')


def read_sgml(path: Path) -> dict[str, Read]:
    """Alignment of each utterance by its name.

    Raises:
        UserError: no file, an utterance given twice, a line that holds other edits than it says.
    """
    table: dict[str, Read] = {}
    name, size, speaker = "", 0, ""
    for number, line in enumerate(read_lines(path), 1):
        if match := _SPEAKER.match(line):
            speaker = match[1]
        elif match := _PATH.match(line):
            name, size = match[1], int(match[2])
            if name in table:
                raise UserError(f"{path}: line {number}: utterance {name} is given twice")
        elif name and not line.startswith("<"):
            edits: list[Edit] = [(kind, ref, hyp) for kind, ref, hyp, _ in _EDIT.findall(line)]
            if len(edits) != size:
                raise UserError(f"{path}: line {number}: found {len(edits)} edits of {name}, expected {size}")
            table[name] = Read(speaker, edits)
            name = ""
    if not table:
        raise UserError(f"{path}: no alignment in it: expected what sclite -o sgml or asrllm.bin.score writes")
    return table
