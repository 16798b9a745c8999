"""Say of folders of logs how many jobs ended, failed or still run, how long they took, and what they warned of.

python -m asrllm.bin.summarize_logs exp/train_encoder/log
"""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asrllm import console
from asrllm.console import UserError

_ENDED = re.compile(r"# Ended \(code (\d+)\) at .*, elapsed time (\d+)s")
_TOLD = re.compile(r"\b(WARNING|ERROR)\b(.*)")
_SHOWN = 5


@dataclass
class Group:
    """The logs of one array, such as decode.*.log."""

    ended: int = 0
    failed: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)  # warnings and errors, numbers folded


def parser() -> argparse.ArgumentParser:
    """Options of the program."""
    result = argparse.ArgumentParser(prog="summarize_logs", description=__doc__.splitlines()[0], allow_abbrev=False)
    result.add_argument("folders", type=Path, nargs="+", help="folders with *.log, as utils/run.sh writes them")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Print the summary."""
    for folder in parser().parse_args(argv).folders:
        logs = sorted(folder.glob("*.log"))
        if not logs:
            raise UserError(f"{folder}: no such folder or no *.log in it")
        groups: dict[str, Group] = {}
        for log in logs:
            name = re.sub(r"\.\d+\.log$", ".*.log", log.name)
            _add(groups.setdefault(name, Group()), log)
        for name, group in groups.items():
            print(_line(folder / name, group))
            print("".join(f"  {count} times{text}\n" for text, count in group.told.most_common(_SHOWN)), end="")


def _add(group: Group, log: Path) -> None:
    """Take in the last run that a log tells of; warnings of all."""
    end: re.Match[str] | None = None
    with log.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if line.startswith("# Running on "):
                end = None
            elif match := _ENDED.match(line):
                end = match
            elif not line.startswith("# ") and (told := _TOLD.search(line)):  # `# ` begins the head, with the command
                group.told[f" {told[1]}{re.sub(r'[0-9]+', 'N', told[2].rstrip())}"] += 1
    if end is None:
        group.unfinished.append(log.name)
    elif end[1] == "0":
        group.ended += 1
    else:
        group.failed.append(log.name)
    if end is not None:
        group.seconds.append(int(end[2]))


def _line(name: Path, group: Group) -> str:
    parts = [f"{group.ended} ended"]
    for what, logs in (("failed", group.failed), ("without an end", group.unfinished)):
        if logs:
            parts.append(f"{len(logs)} {what} ({', '.join(logs[:_SHOWN])})")
    if group.seconds:
        parts.append(f"{sum(group.seconds)} s in all, {max(group.seconds)} s the longest")
    return f"{name}: {'; '.join(parts)}"


if __name__ == "__main__":
    console.run(main)
