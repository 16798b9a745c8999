"""How arguments are printed, the option parser, and the job runner of this machine."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import heed_signals, is_running, run, wait_until

ROOT = Path(__file__).resolve().parents[1]
RUNNER = ROOT / "utils" / "run.sh"


# --- utils/print_args.sh


def test_arguments_are_printed_as_they_would_be_typed() -> None:
    words = ["./run.sh", "--test_sets", "one two", "", "--set=a.b={c: 1}", "$HOME", "it's", "*"]
    result = run(ROOT / "utils" / "print_args.sh", *words, cwd=ROOT)
    assert shlex.split(result.stdout) == words
    assert result.stdout.startswith("./run.sh --test_sets 'one two' '' '--set=a.b={c: 1}' ")


# --- utils/parse_options.sh


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script with options; it prints them and what is left, a line each."""
    path = tmp_path / "script.sh"
    path.write_text(
        f"""#!/usr/bin/env bash
set -euo pipefail
help_message="usage: script.sh"
some_name=old
number=1
flag=false
empty=
. {shlex.quote(str(ROOT / "utils" / "parse_options.sh"))}
printf '%s\\n' "$some_name" "$number" "$flag" "$empty" "$@"
"""
    )
    (tmp_path / "options.conf").write_text("some_name='from file'\nnumber=7\n")
    return path


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ([], ["old", "1", "false", ""]),
        (["--some_name", "a  b * $HOME"], ["a  b * $HOME", "1", "false", ""]),
        (["--some-name=x=y"], ["x=y", "1", "false", ""]),
        (["--some-name", "--number 3"], ["--number 3", "1", "false", ""]),
        (["--some_name", ""], ["", "1", "false", ""]),
        (["--flag", "true", "--number", "2"], ["old", "2", "true", ""]),
        (["--flag", "--number", "2"], ["old", "2", "true", ""]),
        (["--number", "2", "--flag"], ["old", "2", "true", ""]),
        (["--flag=false"], ["old", "1", "false", ""]),
        (["--number", "2", "rest", "--flag"], ["old", "2", "false", "", "rest", "--flag"]),
        (["--number", "2", "--", "--flag"], ["old", "2", "false", "", "--flag"]),
        (["--config", "options.conf"], ["from file", "7", "false", ""]),
        (["--number", "3", "--config=options.conf"], ["from file", "3", "false", ""]),
        (["--help"], ["usage: script.sh"]),
    ],
)
def test_options_are_read(script: Path, words: list[str], printed: list[str]) -> None:
    result = run("bash", script, *words, cwd=script.parent)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.removesuffix("\n").split("\n") == printed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--some_nam", "x"], "unknown option --some_nam"),
        (["--stge=3"], "unknown option --stge"),
        (["--HOME", "x"], "unknown option --HOME"),
        (["--a b", "x"], "unknown option --a b"),
        (["--number"], "option --number wants a value"),
        (["--flag", "yes"], "option --flag takes true or false, not 'yes'"),
        (["--config", "none.conf"], "--config: no such file: 'none.conf'"),
    ],
)
def test_wrong_options_end_with_one_sentence(script: Path, words: list[str], sentence: str) -> None:
    result = run("bash", script, *words, cwd=script.parent)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"script.sh: {sentence} (script.sh --help lists the options)\n"


# --- utils/run.sh

PRINT = "import sys; print(repr(sys.argv[1:]))"


def test_arguments_arrive_as_they_are(tmp_path: Path) -> None:
    words = ["a  b", "*", 'it\'s "so"', "$HOME `x` \\", "nl\n", "", "ünï", "--x=JOBS"]
    result = run(RUNNER, "JOB=1:2", "x.JOB.log", sys.executable, "-c", PRINT, "JOB/2", *words, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    for job in ("1", "2"):
        lines = (tmp_path / f"x.{job}.log").read_text().splitlines()
        expected = [f"{job}/2", *words[:-1], f"--x={job}S"]
        assert repr(expected) in lines


def test_log_has_head_and_tail_and_keeps_earlier_runs(tmp_path: Path) -> None:
    for _ in range(2):
        result = run(RUNNER, "deep/folder/x.log", "bash", "-c", "echo out; echo err >&2; exit 0", cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
    head, *rest = (tmp_path / "deep/folder/x.log").read_text().splitlines()
    assert shlex.split(head) == ["#", "bash", "-c", "echo out; echo err >&2; exit 0"]
    patterns = [
        r"# Running on \S+",
        r"# Started at .+",
        r"#",
        r"out",
        r"err",
        r"# Accounting: time=\d+ threads=1",
        r"# Ended \(code 0\) at .+, elapsed time \d+s",
    ]
    assert len(rest) == 2 * len(patterns) + 1
    for line, pattern in zip(rest, patterns, strict=False):
        assert re.fullmatch(pattern, line)


def test_a_failed_job_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    body = 'for i in 1 2 3 4 5 6; do echo "line $i of $0"; done; [[ $0 != 3 ]] || exit 9'
    result = run(RUNNER, "JOB=1:4", "log/x.JOB.log", "bash", "-c", body, "JOB", cwd=tmp_path)
    assert result.returncode == 1
    shown = [f"line {i} of 3" for i in range(2, 7)]
    assert result.stderr.splitlines() == ["run.sh: job 3 of 4 failed, log is in log/x.3.log", *shown]
    assert "# Ended (code 9) at " in (tmp_path / "log/x.3.log").read_text()
    assert "# Ended (code 0) at " in (tmp_path / "log/x.4.log").read_text()


def test_a_single_job_that_is_not_found(tmp_path: Path) -> None:
    result = run(RUNNER, "x.log", "no_such_program", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("run.sh: job failed, log is in x.log\n")
    assert "no_such_program: command not found" in result.stderr


@pytest.mark.parametrize("most", [1, 2])
def test_at_most_so_many_at_once(tmp_path: Path, most: int) -> None:
    body = "date +%s.%N; touch in.$0; until (( $(ls in.* | wc -l) >= $1 )); do sleep 0.02; done; sleep 0.2; date +%s.%N"
    jobs = ["JOB=1:5", "x.JOB.log", "bash", "-c", body, "JOB", str(most)]  # the first ones wait for each other
    assert run(RUNNER, "--max_jobs", str(most), *jobs, cwd=tmp_path).returncode == 0
    times = []
    for path in tmp_path.glob("x.*.log"):
        begin, end = (float(line) for line in path.read_text().splitlines() if line[0].isdigit())
        times += [(begin, 1), (end, -1)]
    running = [0]
    for _, change in sorted(times):
        running.append(running[-1] + change)
    assert len(times) == 10
    assert max(running) == most


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["x.log"], "usage: run.sh"),
        (["--many", "2", "x.log", "true"], "unknown option --many"),
        (["--max_jobs", "0", "x.log", "true"], "--max_jobs takes a number from 1, not '0'"),
        (["JOB=3:2", "x.JOB.log", "true"], "JOB=3:2 names no job"),
        (["JOB=1:2", "x.log", "true"], "the log's name 'x.log' must hold JOB"),
    ],
)
def test_wrong_calls_of_the_runner(tmp_path: Path, words: list[str], sentence: str) -> None:
    result = run(RUNNER, *words, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"run.sh: {sentence}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ending_the_runner_ends_its_jobs(tmp_path: Path, number: int) -> None:
    body = "sleep 97.25 & echo $! $$ > pids.$0; wait"
    line = [str(RUNNER), "--max_jobs", "2", "JOB=1:2", "x.JOB.log", "bash", "-c", body, "JOB"]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)
    files = [tmp_path / "pids.1", tmp_path / "pids.2"]
    try:
        wait_until(lambda: all(path.is_file() and path.read_text().endswith("\n") for path in files))
    finally:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert stderr == ""
    pids = [int(pid) for path in files for pid in path.read_text().split()]
    wait_until(lambda: not any(is_running(pid) for pid in pids))


@pytest.fixture
def terminal() -> Iterator[int]:
    """The end of a pseudo-terminal that a program sees."""
    master, slave = os.openpty()
    yield slave
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize(("jobs", "given", "threads"), [([], "", ""), (["JOB=1:2"], "", "3"), (["JOB=1:2"], "5", "5")])
def test_jobs_share_the_cores(tmp_path: Path, jobs: list[str], given: str, threads: str) -> None:
    (tmp_path / "nproc").write_text("#!/bin/sh\necho 7\n")
    (tmp_path / "nproc").chmod(0o755)
    setting = ["env", "-u", "OMP_NUM_THREADS", f"PATH={tmp_path}:{os.environ['PATH']}"]
    setting += [f"OMP_NUM_THREADS={given}"] if given else []
    run(*setting, RUNNER, *jobs, "x.JOB.log", "bash", "-c", 'echo "threads <${OMP_NUM_THREADS:-}>"', cwd=tmp_path)
    logs = list(tmp_path.glob("x.*.log"))
    assert logs and all(f"\nthreads <{threads}>\n" in log.read_text() for log in logs)


@pytest.mark.parametrize(("jobs", "drawn"), [([], True), (["JOB=1:2"], False)])
def test_a_single_job_learns_the_terminal(tmp_path: Path, terminal: int, jobs: list[str], drawn: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ASRLLM_PROGRESS"}
    line = [str(RUNNER), *jobs, "x.JOB.log", "bash", "-c", 'echo "place <${ASRLLM_PROGRESS:-}>"']
    subprocess.run(
        line, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stderr=terminal, check=True, timeout=30
    )
    text = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert f"\nplace <{os.ttyname(terminal) if drawn else ''}>\n" in text
