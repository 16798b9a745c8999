"""Scoring against real sclite: utterance pairs of LibriSpeech-like length, every report of both, and their memory.

`python benchmark/score.py --pairs 100000`. Reference lengths are drawn log-normally around LibriSpeech's test sets (18
words in the median), words by Zipf's law from 20,000, errors as of a system at about 5 % WER. Both read the same trn
files and write sys, raw, pra, prf, dtl, sgml and a report for each speaker; ours also writes score.json with its
bootstrap intervals. A figure is CPU and wall seconds of the whole program, from its start to its end.
"""

import argparse
import itertools
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCLITE = shutil.which("sclite") or "/usr/lib/sctk/bin/sclite"
SPEAKER_HAS = 500  # utterances
WORDS = 20_000


def parser() -> argparse.ArgumentParser:
    """Options."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pairs", type=int, default=100_000)
    options.add_argument("--html", action="store_true", help="let ours write report.html too, which sclite has not")
    options.add_argument("--repeats", type=int, default=1, help="runs of each, in turns; medians are printed")
    return options


def write_pairs(folder: Path, pairs: int) -> None:
    """Write ref.trn and hyp.trn."""
    generator = random.Random(0)
    vocabulary = [f"word{number}" for number in range(WORDS)]
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(WORDS)))
    with (folder / "ref.trn").open("w") as refs, (folder / "hyp.trn").open("w") as hyps:
        for number in range(pairs):
            size = max(1, int(generator.lognormvariate(2.9, 0.6)))
            ref = generator.choices(vocabulary, cum_weights=weights, k=size)
            hyp = []
            for word in ref:
                fate = generator.random()
                if fate > 0.01:
                    hyp.append(generator.choice(vocabulary) if fate < 0.04 else word)
                if fate > 0.99:
                    hyp.append(generator.choice(vocabulary))
            utt_id = f"(speaker{number // SPEAKER_HAS:04}-{number:07})"
            print(*ref, utt_id, file=refs)
            print(*hyp, utt_id, file=hyps)


def run(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and MiB of memory at most, of a program."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *command],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    peak = done.stdout.splitlines()[-1]
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, int(peak) / 1024


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def total(path: Path) -> list[str]:
    """Figures of the row Sum of a raw table."""
    rows = [line for line in path.read_text().splitlines() if line.strip().startswith("| Sum")]
    return re.findall(r"\d+", rows[0])


def main() -> None:
    """Print a Markdown table."""
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pairs(folder, options.pairs)
        reports = ["sys", "raw", "pra", "prf", "dtl", "spk", "sgml", *(["html"] if options.html else [])]
        (folder / "score.yaml").write_text(f"normalizer: none\nunits: [word]\nreports: [{', '.join(reports)}]\n")
        theirs = f"{SCLITE} -r ref.trn trn -h hyp.trn trn -i rm -e utf-8 -f 0 -O sclite".split()
        theirs += ["-o", "sum", "rsum", "pralign", "prf", "dtl", "spk", "sgml"]
        files = ["--config", "score.yaml", "--ref", "ref.trn", "--hyp", "hyp.trn", "--out", "ours"]
        ours = [sys.executable, "-m", "asrllm.bin.score", *files]
        (folder / "sclite").mkdir()
        runs = [(run(theirs, folder), run(ours, folder)) for _ in range(options.repeats)]
        assert total(folder / "sclite" / "hyp.trn.raw") == total(folder / "ours" / "score_wer" / "hyp.trn.raw")
        print(f"{options.pairs} pairs, {total(folder / 'sclite' / 'hyp.trn.raw')[1]} words, totals are equal\n")
        print("| | wall s | CPU s | memory, MiB |\n|---|---|---|---|")
        for name, side in (("sclite", 0), ("asrllm", 1)):
            columns = zip(*(pair[side] for pair in runs), strict=True)
            wall, cpu, memory = (sorted(column)[len(column) // 2] for column in columns)
            print(f"| {name} | {wall:.1f} | {cpu:.1f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
