"""A ladder: the same schedules at several budgets and seeds, as jobs that share what is equal.

A schedule is a chain of stages whose budgets are FLOPs; at another budget all of them are multiplied by one factor, and
so are warm-up and the distance of snapshots (ours). Two chains share a stage if its resolved configuration is equal,
all that it starts from included: then it has one name and is trained once. It composes commands that the recipe's
run.sh prints and the settings of `asrllm.bin.train`; it trains nothing itself.
"""

import hashlib
import json
import logging
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic

from asrllm import config as configs
from asrllm.config import Config
from asrllm.console import UserError, write_atomically
from asrllm.experiment import ExperimentConfig

LADDER_FILE = "ladder.json"  # schedule, budget, seed and last experiment of each run

log = logging.getLogger("asrllm")


class LadderConfig(Config):
    """Every schedule at every budget with every seed."""

    schedules: Annotated[tuple[str, ...], pydantic.Field(min_length=1)]  # files of conf/schedules
    budgets: Annotated[
        tuple[pydantic.PositiveFloat, ...], pydantic.Field(min_length=1)
    ]  # model FLOPs of a whole chain, encoder pretraining counted
    seeds: Annotated[tuple[int, ...], pydantic.Field(min_length=1)] = (0,)  # of train.seed
    decode: str  # YAML files of decodings of each chain's last experiment, parted by spaces
    run: str = "./run.sh"  # of the recipe


@dataclass(frozen=True)
class Job:
    """Commands to be run one after another."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    needs: tuple[str, ...]  # names of jobs before it
    made: tuple[Path, ...]  # files that it writes last
    newer: Path | None = None  # than which they are, once it is done

    @property
    def is_done(self) -> bool:
        """Whether all it makes is there."""
        if not all(path.is_file() for path in self.made):
            return False
        limit = self.newer.stat().st_mtime if self.newer is not None and self.newer.is_file() else 0.0
        return all(path.stat().st_mtime >= limit for path in self.made)


@dataclass(frozen=True)
class Rung:
    """One chain of the ladder."""

    schedule: str
    budget: float
    seed: int
    experiment: str  # the last of the chain


def plan(config: LadderConfig, expdir: Path, run_args: Sequence[str]) -> tuple[list[Job], list[Rung]]:
    """All jobs, each after those that it needs, and what each chain ends with.

    Raises:
        UserError: run.sh or a configuration is wrong, or a stage has a budget that is not in FLOPs.
    """
    start = (config.run, "--stop_stage", "3", "--expdir", str(expdir), *run_args)
    jobs = {"data": Job("data", (start,), (), (expdir / "tokenizer/tokenizer.json",))}
    rungs = []
    for schedule in config.schedules:
        commands = _commands(config, schedule, expdir, run_args)
        for budget in config.budgets:
            for seed in config.seeds:
                chain = _chain(commands, schedule, budget, seed, expdir)
                jobs |= {job.name: job for job in chain}
                rungs.append(Rung(Path(schedule).stem, budget, seed, chain[-2].name))
    return list(jobs.values()), rungs


def run_all(jobs: Sequence[Job], at_once: int, tries: int) -> dict[str, str]:
    """Run what is not done, `at_once` jobs at a time, each after those that it needs; what did not end, and why.

    A job that fails is started again up to `tries` times in all; those that need it are not started, all others are.
    Whatever stops this function stops the commands that run.
    """
    ended = {job.name for job in jobs if job.is_done}
    waiting = [job for job in jobs if job.name not in ended]
    failed: dict[str, str] = {}
    running: dict[Future[str], Job] = {}
    with ThreadPoolExecutor(at_once) as pool, Commands() as commands:
        while waiting or running:
            for job in [job for job in waiting if ended.issuperset(job.needs)]:
                waiting.remove(job)
                running[pool.submit(_run, job, tries, commands)] = job
            if not running:
                return failed | {job.name: "not started: what it needs has failed" for job in waiting}
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                if why := future.result():
                    failed[job.name] = why
                    log.error("%s: %s", job.name, why)
                else:
                    ended.add(job.name)
                    log.info("%s: done, %d of %d", job.name, len(ended), len(jobs))
    return failed


class Commands:
    """The commands that run now; as a context, its end stops them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, command: Sequence[str]) -> int:
        """Run a command, in a process group of its own, since all that it starts goes with it; its status."""
        with self._lock:
            if self._stopped:
                return -signal.SIGTERM
            quiet = subprocess.DEVNULL
            process = subprocess.Popen(command, stdin=quiet, stdout=quiet, start_new_session=True)
            self._running.add(process)
        process.wait()
        with self._lock:
            self._running.remove(process)
        return process.returncode

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *fault: object) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)


def _run(job: Job, tries: int, commands: Commands) -> str:
    """Run the commands of a job; empty, or why it failed."""
    why = ""
    for _ in range(tries):
        for command in job.commands:
            if status := commands.run(command):
                why = f"status {status} of: {shlex.join(command)}"
                break
        else:
            missing = [str(path) for path in job.made if not path.is_file()]
            return f"did not write {', '.join(missing)}" if missing else ""
    return why


def write(rungs: Sequence[Rung], expdir: Path) -> None:
    """Keep what each chain ends with, for asrllm.bin.analyze."""
    with write_atomically(expdir / LADDER_FILE) as temporary:
        temporary.write_text(json.dumps([vars(rung) for rung in rungs], indent=1) + "\n")


def _commands(config: LadderConfig, schedule: str, expdir: Path, run_args: Sequence[str]) -> list[list[str]]:
    """What run.sh would do for a schedule, from training to scoring."""
    options = ["--dry_run", "true", "--stage", "4", "--stop_stage", "9", "--schedule", schedule]
    line = [config.run, *options, "--decode", config.decode, "--expdir", str(expdir), *run_args]
    try:
        done = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as fault:
        raise UserError(
            f"{config.run}: cannot be run ({fault.strerror}): start the ladder in a recipe's folder"
        ) from None
    if done.returncode:
        raise UserError(f"{shlex.join(line)} failed: {(done.stderr.strip().splitlines() or ['no more said'])[-1]}")
    return [shlex.split(text) for text in done.stdout.splitlines()]


def _chain(commands: Sequence[Sequence[str]], schedule: str, budget: float, seed: int, expdir: Path) -> list[Job]:
    """The trainings of a schedule at a budget, then decoding and scoring of the last one."""
    trainings = [list(command) for command in commands if "asrllm.bin.train" in command]
    if not trainings:
        raise UserError(
            f"{schedule}: trains nothing: it must set train_encoder, train_align, train_iasft or train_joint"
        )
    factor = budget / sum(_flops(Path(_option(each, "--config"))) for each in trainings)
    names: dict[str, str] = {}  # experiment of the schedule -> of the ladder
    jobs = []
    for command in trainings:
        path, old = Path(_option(command, "--config")), Path(_option(command, "--exp")).name
        settings = _settings(configs.load(path, ExperimentConfig), factor, seed, names, expdir)
        resolved = configs.load(path, ExperimentConfig, settings)
        digest = hashlib.sha256(resolved.model_dump_json().encode()).hexdigest()[:8]
        needs = tuple(name for name in names.values() if any(name in setting for setting in settings))
        names[old] = f"{old}-{digest}"
        words = _renamed(command, old, names[old], expdir) + [word for each in settings for word in ("--set", each)]
        exp = expdir / names[old]
        made = exp / "weights.safetensors", exp / "summary.json"
        jobs.append(Job(names[old], (tuple(words),), ("data", *needs), made))
    last = names[old]
    scored = [_renamed(each, old, last, expdir) for each in commands if _is_of(each, expdir / old)]
    scores = tuple(Path(_option(each, "--hyp")) / "score.json" for each in scored if "asrllm.bin.score" in each)
    jobs.append(Job(f"scores of {last}", tuple(map(tuple, scored)), (last,), scores, newer=exp / "weights.safetensors"))
    return jobs


def _flops(path: Path) -> float:
    """The budget of a stage.

    Raises:
        UserError: it is not in FLOPs.
    """
    stage = configs.load(path, ExperimentConfig).stage
    for number, phase in enumerate(stage.phases):
        if phase.flops is None:
            raise UserError(
                f"{path}: stage.phases.{number}: found a budget in {phase.budget[1].replace('_', ' ')}, expected "
                "flops: a ladder multiplies them"
            )
    return stage.repeat * sum(phase.flops or 0.0 for phase in stage.phases)


def _settings(config: ExperimentConfig, factor: float, seed: int, names: Mapping[str, str], expdir: Path) -> list[str]:
    """What a stage of the ladder has otherwise than its YAML, as `key=value`."""
    settings = [f"train.seed={seed}"]
    if (every := config.train.snapshot_every_steps) is not None:
        settings.append(f"train.snapshot_every_steps={max(1, round(factor * every))}")
    for number, phase in enumerate(config.stage.phases):
        settings.append(f"stage.phases.{number}.flops={factor * (phase.flops or 0.0):.6e}")
        settings.append(f"stage.phases.{number}.warmup_steps={round(factor * phase.warmup_steps)}")
        if phase.encoder_swaps is not None:
            source = _moved(phase.encoder_swaps.pretraining, names, expdir)
            settings.append(f"stage.phases.{number}.encoder_swaps.pretraining={source}")
    sources = ", ".join(f"{part}: {_moved(source, names, expdir)}" for part, source in config.stage.init.items())
    return [*settings, f"stage.init={{{sources}}}"]


def _moved(source: str, names: Mapping[str, str], expdir: Path) -> str:
    """An experiment of the schedule in the ladder; any other as it is."""
    return str(expdir / names[Path(source).name]) if Path(source).name in names else source


def _renamed(command: Sequence[str], old: str, new: str, expdir: Path) -> list[str]:
    """The command with one experiment in the place of another."""
    before, after = str(expdir / old), str(expdir / new)
    return [after + word[len(before) :] if f"{word}/".startswith(f"{before}/") else word for word in command]


def _is_of(command: Sequence[str], exp: Path) -> bool:
    """Whether a command decodes or scores an experiment."""
    option = {"asrllm.bin.decode": "--out", "asrllm.bin.score": "--hyp"}
    return any(name in command and exp in Path(_option(command, key)).parents for name, key in option.items())


def _option(command: Sequence[str], name: str) -> str:
    return command[command.index(name) + 1]
