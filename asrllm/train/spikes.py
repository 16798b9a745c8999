"""Steps whose loss or gradient was not finite: a list in the experiment, and batches to leave out when it is run again.

`skipped_steps.jsonl` names what was skipped, `left_out.jsonl` what the run does without from now on; both count batches
of an epoch as the plan does. It knows numbers and ids; not models.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from asrllm.console import write_atomically


class Spikes:
    """The two lists of the experiment in folder `exp`."""

    def __init__(self, exp: Path) -> None:
        self.skipped = exp / "skipped_steps.jsonl"
        self.removed = exp / "left_out.jsonl"
        self.left_out = frozenset(_batches(self.removed))

    def note(self, step: int, epoch: int, numbers: Sequence[int], utt_ids: Sequence[str]) -> None:
        """List a skipped step: its epoch, its micro-batches and their utterances on this process."""
        line = {"step": step, "epoch": epoch, "batches": list(numbers), "utt_ids": list(utt_ids)}
        with self.skipped.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def leave_out(self, epoch: int, batch: int) -> None:
        """List for leaving out: the batches of skipped steps that come at or after a place, beside those listed."""
        ahead = {place for place in _batches(self.skipped) if place >= (epoch, batch)}
        rows = [{"epoch": epoch, "batches": [number]} for epoch, number in sorted(self.left_out | ahead)]
        with write_atomically(self.removed) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _batches(path: Path) -> list[tuple[int, int]]:
    """(epoch, number) of all batches in whole lines of a list; a killed process may have left part of one."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(row["epoch"], number) for row in rows for number in row["batches"]]
