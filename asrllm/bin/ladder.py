"""Run schedules at several budgets with several seeds, in a recipe's folder; what they share is trained once.

Started again, it does what is left: what is done is not run, what failed is. asrllm.bin.analyze scaling --ladder EXPDIR
then fits error against FLOPs.
"""

import argparse
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from asrllm import config as configs
from asrllm import console
from asrllm.analysis import ladder
from asrllm.analysis.ladder import LadderConfig
from asrllm.console import UserError, positive

SCHEMA = LadderConfig
log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="ladder", description=__doc__, allow_abbrev=False)
    parse.add_argument("--config", type=Path, required=True, help="YAML: schedules, budgets, seeds, decode")
    parse.add_argument("--expdir", type=Path, required=True, help="folder of all experiments of the ladder")
    parse.add_argument(
        "--jobs", type=positive, default=1, help="how many run at a time (1); a queue takes as many as it likes"
    )
    parse.add_argument(
        "--tries", type=positive, default=1, help="how often a job is started before it counts as failed (1)"
    )
    parse.add_argument("--dry_run", action="store_true", help="print the commands that are left, run nothing")
    parse.add_argument(
        "--run_args", default="", metavar="WORDS", help='more options of run.sh, such as "--ngpu 1 --nj 4"'
    )
    parse.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the YAML")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Plan, then run or print."""
    args = parser().parse_args(argv)
    jobs, rungs = ladder.plan(configs.load(args.config, SCHEMA, args.set), args.expdir, shlex.split(args.run_args))
    left = [job for job in jobs if not job.is_done]
    log.info("%d chains are %d jobs, of which %d are done", len(rungs), len(jobs), len(jobs) - len(left))
    if args.dry_run:
        for job in left:
            print("\n".join([f"# {job.name}", *map(shlex.join, job.commands)]))
        return
    ladder.write(rungs, args.expdir)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has the hang-up ignored
            signal.signal(number, lambda number, _: sys.exit(128 + number))  # which ends what runs
    if failed := ladder.run_all(jobs, args.jobs, args.tries):
        said = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise UserError(f"{len(failed)} of {len(jobs)} jobs did not end (start the ladder again for these): {said}")


if __name__ == "__main__":
    console.run(main)
