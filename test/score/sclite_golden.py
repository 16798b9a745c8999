"""Make test/score/sclite/: random transcripts and what the real sclite (Debian package sctk) says about them.

Run by hand: `PYTHONPATH=. python test/score/sclite_golden.py`. The tests compare with the frozen files, and on many
more cases with sclite itself where it is installed.
"""

import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "sclite"
SCLITE = shutil.which("sclite") or "/usr/lib/sctk/bin/sclite"
REPORTS = {"sys": "sum", "raw": "rsum", "pra": "pralign", "prf": "prf", "dtl": "dtl", "spk": "spk", "sgml": "sgml"}
WORDS = ["a", "an", "the", "cat", "sat", "on", "that", "mat", "don't", "go"]
MARKED = ["a", "an", "The", "cat", "sat", "on", "th-", "-at", "(uh)", "(the)", "ab-", "café", "a-b", "y*"]
HAN = ["我", "你好", "爱", "他们", "ok", "iPhone", "a-b", "去", "-", "九十"]


@dataclass(frozen=True)
class Case:
    """A set of transcripts and the options they are scored with."""

    name: str
    options: Sequence[str]
    words: Sequence[str]
    nested: bool  # with alternatives
    pairs: int
    seed: int


CASES = [
    Case("plain", [], WORDS, False, 200, 2),
    Case("alternatives", [], MARKED, True, 120, 3),
    Case("optional", ["-D", "-F"], MARKED, True, 120, 4),
    Case("case", ["-s"], MARKED, True, 60, 5),
    Case("characters", ["-c"], HAN, True, 60, 6),
    Case("mixed", ["-c", "NOASCII", "DH"], HAN, True, 60, 7),
]


def said(case: Case, generator: random.Random, depth: int = 0) -> str:
    """A random reference."""
    parts = []
    for _ in range(generator.randint(1, 3 if depth else 10)):
        if case.nested and depth < 2 and generator.random() < 0.15:
            count = generator.randint(1, 3)
            inner = (said(case, generator, depth + 1) if generator.random() < 0.7 else "@" for _ in range(count))
            parts.append("{ " + " / ".join(inner) + " }")
        else:
            parts.append(generator.choice(case.words))
    return " ".join(parts)


def heard(ref: str, case: Case, generator: random.Random) -> str:
    """The reference with deletions, substitutions and insertions; one in five is replaced as a whole."""
    if generator.random() < 0.2:
        return " ".join(generator.choices(case.words, k=generator.randint(0, 10)))
    words = []
    for word in re.findall(r"[^\s{}/@]+", ref):
        fate = generator.random()
        if fate > 0.1:
            words.append(generator.choice(case.words) if fate < 0.25 else word)
        if fate > 0.9:
            words.append(generator.choice(case.words))
    return " ".join(words) + (" { a / @ }" if case.nested and generator.random() < 0.05 else "")


def write_pairs(case: Case, folder: Path) -> None:
    """Write ref.trn and hyp.trn of a case."""
    generator = random.Random(case.seed)
    folder.mkdir(parents=True, exist_ok=True)
    refs = [said(case, generator) for _ in range(case.pairs)]
    hyps = [heard(ref, case, generator) for ref in refs]
    for name, texts in (("ref.trn", refs), ("hyp.trn", hyps)):
        lines = (f"{text} (s{number // 25}-{number:04})\n" for number, text in enumerate(texts))
        (folder / name).write_text("".join(lines), encoding="utf-8")


def run_sclite(folder: Path, report: str, options: Sequence[str]) -> str:
    """One report on ref.trn and hyp.trn of a folder, its date replaced, tags behind semicolons removed."""
    command = [SCLITE, *["-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id", "-e", "utf-8", "-f", "0"]]
    command += ["-o", REPORTS[report], "stdout", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return re.sub(r'(?<=reation.date[=:])( ?)"[^"]*"', r'\1"DATE"', done.stdout.decode("utf-8"))


def main() -> None:
    """Write the folder of every case."""
    for case in CASES:
        folder = FOLDER / case.name
        write_pairs(case, folder)
        for report in REPORTS:
            (folder / f"{report}.txt").write_text(run_sclite(folder, report, case.options), encoding="utf-8")


if __name__ == "__main__":
    main()
