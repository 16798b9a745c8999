"""Make test/score/sclite/: random transcripts and what the real sclite (Debian package sctk) says about them.

Run by hand: `python test/score/sclite_golden.py`. The tests compare with the frozen files, and with sclite itself where
it is installed.
"""

import random
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "sclite"
SCLITE = shutil.which("sclite") or "/usr/lib/sctk/bin/sclite"
VOCABULARY = ["a", "an", "the", "cat", "sat", "on", "that", "mat", "don't", "go"]
PAIRS = 200


def corrupt(words: list[str], generator: random.Random) -> list[str]:
    """Delete, substitute and insert at random; one transcript in four is replaced as a whole."""
    if generator.random() < 0.25:
        return generator.choices(VOCABULARY, k=generator.randint(0, 12))
    heard = []
    for word in words:
        fate = generator.random()
        if fate > 0.1:
            heard.append(generator.choice(VOCABULARY) if fate < 0.25 else word)
        if fate > 0.9:
            heard.append(generator.choice(VOCABULARY))
    return heard


def sclite(folder: Path, report: str) -> str:
    """Standard output of `sclite -o report` for the ref.trn and hyp.trn of a folder."""
    command = f"{SCLITE} -r ref.trn trn -h hyp.trn trn -i rm -e utf-8 -o {report} stdout".split()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines()) + "\n"


def main() -> None:
    """Write ref.trn, hyp.trn, sum.txt, pra.txt."""
    generator = random.Random(2)
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "ref.trn").open("w") as refs, (FOLDER / "hyp.trn").open("w") as hyps:
        for number in range(PAIRS):
            words = generator.choices(VOCABULARY, k=generator.randint(1, 12))
            utt_id = f"(s{number // 25}-{number:03})"
            print(*words, utt_id, file=refs)
            print(*corrupt(words, generator), utt_id, file=hyps)
    for report in ("sum", "pra"):
        (FOLDER / f"{report}.txt").write_text(sclite(FOLDER, report))


if __name__ == "__main__":
    main()
