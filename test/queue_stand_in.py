#!/usr/bin/env python3
"""A stand-in for sbatch and qsub, called by the name it is linked under: runs an array here as these do, and waits.

It takes the options that utils/slurm.sh and utils/queue.sh give and refuses all others. `GONE` in the environment names
tasks that vanish without having run, as on a node that dies; what was asked for is appended to `asked` beside it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

SLURM = r"--(parsable|wait|mem=.+|time=.+|cpus-per-task=\d+|nodes=\d+|ntasks-per-node=1|gres=gpu:\d+|job-name=.+)"
GRID_ENGINE = {"-sync": 1, "-t": 1, "-tc": 1, "-cwd": 0, "-V": 0, "-S": 1, "-j": 1, "-o": 1, "-N": 1, "-l": 1, "-pe": 2}


def main() -> int:
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    with (Path(sys.argv[0]).parent / "asked").open("a") as asked:
        asked.write(" ".join([name, *words]) + "\n")
    if name == "sbatch":
        last, limit = slurm(words[:-1])
        variable = "SLURM_ARRAY_TASK_ID"
        print("7;cluster", flush=True)
    else:
        last, limit = grid_engine(words[:-1])
        variable = "SGE_TASK_ID"
        print(f'Your job-array 7.1-{last}:1 ("x") has been submitted', flush=True)
    gone = os.environ.get("GONE", "").split()
    waiting = [str(task) for task in range(1, last + 1) if str(task) not in gone]
    codes = [1] * len(gone)
    while waiting:
        batch, waiting = waiting[:limit], waiting[limit:]
        more = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "localhost"}
        tasks = [subprocess.Popen(["bash", words[-1]], env={**os.environ, **more, variable: task}) for task in batch]
        codes += [task.wait() for task in tasks]
    return max(codes)


def slurm(words: list[str]) -> tuple[int, int]:
    last, limit = 1, 100
    for word in words:
        if array := re.fullmatch(r"--array=1-(\d+)(?:%(\d+))?", word):
            last, limit = int(array[1]), int(array[2] or 100)
        elif not re.fullmatch(SLURM, word) and not word.startswith("--output="):
            sys.exit(f"sbatch: unrecognized option '{word}'")
    return last, limit


def grid_engine(words: list[str]) -> tuple[int, int]:
    given: dict[str, list[str]] = {}
    while words:
        option, *words = words
        if option not in GRID_ENGINE:
            sys.exit(f'qsub: Unknown option "{option}"')
        given[option], words = words[: GRID_ENGINE[option]], words[GRID_ENGINE[option] :]
    return int(given["-t"][0].removeprefix("1-")), int(given.get("-tc", ["100"])[0])


if __name__ == "__main__":
    sys.exit(main())
