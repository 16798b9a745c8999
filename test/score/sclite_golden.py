"""Make test/score/sclite/: random transcripts and what the real sclite (Debian package sctk) says about them.

sclite/decoded holds the first 100 utterances of speechocean762's test part (CC BY 4.0) as Whisper tiny.en heard them,
after Whisper's normaliser: the one set that is not random.

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
STATS = [str(Path(SCLITE).with_name("sc_stats"))]
REPORTS = {"sys": "sum", "raw": "rsum", "pra": "pralign", "prf": "prf", "dtl": "dtl", "spk": "spk", "sgml": "sgml"}
WORDS = ["a", "an", "the", "cat", "sat", "on", "that", "mat", "don't", "go"]
MARKED = ["a", "an", "The", "cat", "sat", "on", "th-", "-at", "(uh)", "(the)", "ab-", "café", "a-b", "y*"]
TIMED = ["a", "b", "Hello", "th-", "(uh)", "we", "ok"]
TIMED_CASES = [("timed", [], False), ("confident", ["-D", "-F"], True)]
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


def write_timed(folder: Path, seed: int, confident: bool) -> None:
    """Write ref.stm and hyp.ctm: three files of two channels, with labels, alternatives and ignored segments."""
    generator = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    segments: list[str] = []
    heard_words: list[str] = []
    for channel in (f"file{number} {side}" for number in range(3) for side in "AB"):
        now = 0.0
        for _ in range(generator.randint(2, 6)):
            words, start = generator.choices(TIMED, k=generator.randint(1, 8)), now
            for word in words:
                heard_words += heard_at(channel, now, word, generator, confident)
                now += 0.25
            end = now + generator.choice([-0.15, 0.0, 0.1])
            text = " ".join(words) + generator.choice(["", " { x / y z / @ }"])
            text = "IGNORE_TIME_SEGMENT_IN_SCORING" if generator.random() < 0.15 else text
            label = generator.choice(["", "<o,f0,male> "])
            segments.append(f"{channel} spk{generator.randint(0, 2)} {start:.2f} {end:.2f} {label}{text}")
            now = max(end, now) + generator.choice([0.0, 0.2])
    (folder / "ref.stm").write_text("\n".join(segments) + "\n")
    (folder / "hyp.ctm").write_text("\n".join(heard_words) + "\n")


def heard_at(channel: str, now: float, word: str, generator: random.Random, confident: bool) -> list[str]:
    """Lines of a ctm file for one word, which may be lost or one of two alternatives."""
    if generator.random() < 0.1:
        return []
    sure = f" {generator.random():.3f}" if confident else ""
    seconds = generator.choice([0.2, 0.13, 0.31])
    line = f"{channel} {now:.2f} {seconds:.2f} {word if generator.random() < 0.7 else generator.choice(TIMED)}{sure}"
    if generator.random() > 0.1:
        return [line]
    other = [f"{channel} {now:.2f} {seconds:.2f} {generator.choice(TIMED)}{sure}"] * generator.randint(0, 1)
    begin, between, end = (f"{channel} * * <{mark}>" for mark in ("ALT_BEGIN", "ALT", "ALT_END"))
    return [begin, line, between, *other, end]


def run_sclite(folder: Path, report: str, options: Sequence[str]) -> str:
    """One report on ref.trn and hyp.trn, or ref.stm and hyp.ctm, of a folder; its date replaced."""
    timed = (folder / "ref.stm").exists()
    files = "-r ref.stm stm -h hyp.ctm ctm" if timed else "-r ref.trn trn -h hyp.trn trn -i spu_id"
    command = [SCLITE, *files.split(), "-e", "utf-8", "-f", "0", "-o", REPORTS[report], "stdout", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return re.sub(r'(?<=reation.date[=:])( ?)"[^"]*"', r'\1"DATE"', done.stdout.decode("utf-8"))


def write_systems(folder: Path, seed: int, pairs: int) -> None:
    """Write a.sgml and b.sgml: two systems of which one is a little better."""
    case = Case("systems", [], WORDS, False, pairs, seed)
    write_pairs(case, folder)
    generator = random.Random(seed)
    lines = []
    for line in (folder / "hyp.trn").read_text().splitlines():
        words, bracket, utt_id = line.rpartition("(")
        kept = (word if generator.random() > 0.04 else generator.choice(WORDS) for word in words.split())
        lines.append(" ".join([*kept, bracket + utt_id]))
    (folder / "hyp.trn").rename(folder / "a.trn")
    (folder / "b.trn").write_text("\n".join(lines) + "\n")
    for name in "ab":
        shutil.copy(folder / f"{name}.trn", folder / "hyp.trn")
        text = run_sclite(folder, "sgml", []).replace("hyp.trn", name)
        (folder / f"{name}.sgml").write_text(text)
    (folder / "hyp.trn").unlink()


def run_sc_stats(folder: Path) -> str:
    """What sc_stats says of a.sgml and b.sgml: matched pairs and McNemar, in detail."""
    both = "".join((folder / f"{name}.sgml").read_text() for name in "ab")
    command = [*STATS, "-p", "-t", "mapsswe", "mcn", "-v", "-n", "-"]
    done = subprocess.run(command, input=both, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines() if line.strip()) + "\n"


def main() -> None:
    """Write the folder of every case."""
    for case in CASES:
        write_pairs(case, FOLDER / case.name)
    write_systems(FOLDER / "systems", 9, 150)
    (FOLDER / "systems" / "sc_stats.txt").write_text(run_sc_stats(FOLDER / "systems"))
    for name, _, confident in TIMED_CASES:
        write_timed(FOLDER / name, 8, confident)
    every = [
        ("decoded", []),
        *((case.name, case.options) for case in CASES),
        *((name, options) for name, options, _ in TIMED_CASES),
    ]
    for name, options in every:
        for report in REPORTS:
            (FOLDER / name / f"{report}.txt").write_text(run_sclite(FOLDER / name, report, options), encoding="utf-8")


if __name__ == "__main__":
    main()
