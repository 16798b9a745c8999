"""The shell's three scripts: option parser, job runner, stage driver."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUNNER = ROOT / "utils" / "run.sh"
DRIVER = ROOT / "egs" / "asr.sh"


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


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
    body = "import time; print(time.time()); time.sleep(0.2); print(time.time())"
    jobs = ["JOB=1:5", "x.JOB.log", sys.executable, "-c", body]
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


def heed_signals() -> None:
    """What a shell started in the background ignores, it cannot trap either: the tests may have been started so."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "it did not come true in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


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


# --- egs/asr.sh

SETS = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "one two"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A folder with empty YAML files."""
    (tmp_path / "conf").mkdir()
    for name in ("score", "tokenizer", "encoder", "align", "ctc", "beam", "zero"):
        (tmp_path / "conf" / f"{name}.yaml").touch()
    return tmp_path


def dry(recipe: Path, *options: str) -> list[str]:
    result = run(DRIVER, *SETS, "--dry_run", *options, cwd=recipe)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_stages_are_chosen(recipe: Path) -> None:
    assert [line.split()[-1] for line in dry(recipe, "--stage", "2", "--stop_stage", "2")] == [
        "dump/train",
        "dump/dev",
        "dump/one",
        "dump/two",
    ]
    assert dry(recipe, "--stage", "3", "--stop-stage=9") == []


def test_a_stage_without_a_file_says_that_it_is_skipped(recipe: Path) -> None:
    result = run(DRIVER, *SETS, "--dry_run", "--stage", "6", "--stop_stage", "6", cwd=recipe)
    assert "stage 6: iterative asynchronous fine-tuning: skipped, no configuration file is given" in result.stderr


def test_the_last_trained_experiment_is_decoded_on_every_set(recipe: Path) -> None:
    trained = ["--train_encoder", "conf/encoder.yaml", "--train_align", "conf/align.yaml", "--expdir", "e"]
    decode = ["--stage", "8", "--stop_stage", "8", "--decode", "conf/ctc.yaml conf/beam.yaml", "--nj", "3"]
    outs = [shlex.split(line) for line in dry(recipe, *trained, *decode)]
    assert [words[words.index("--out") + 1] for words in outs] == [
        "e/align/ctc/one",
        "e/align/ctc/two",
        "e/align/beam/one",
        "e/align/beam/two",
    ]
    assert all("JOB=1:3" in words and words[words.index("--shard") + 1] == "JOB/3" for words in outs)
    assert "--exp e/encoder " in dry(recipe, *trained, *decode, "--decode_exp", "e/encoder")[0]


def test_every_experiment_with_an_llm_is_decoded(recipe: Path) -> None:
    trained = [
        "--train_encoder",
        "conf/encoder.yaml",
        "--train_align",
        "conf/align.yaml",
        "--train_joint",
        "conf/ctc.yaml",
    ]
    decode = ["--stage", "8", "--stop_stage", "8", "--decode", "conf/beam.yaml", "--decode_exp", "all"]
    outs = [shlex.split(line) for line in dry(recipe, *trained, *decode)]
    exps = [words[words.index("--exp") + 1] for words in outs]
    assert exps == ["exp/align", "exp/align", "exp/ctc", "exp/ctc"]


def test_a_schedule_names_all_training_stages(recipe: Path) -> None:
    (recipe / "s.sh").write_text("train_encoder=conf/encoder.yaml\ntrain_joint=conf/ctc.yaml\n")
    trained = ["--train_align", "conf/align.yaml", "--schedule", "s.sh", "--stage", "4", "--stop_stage", "7"]
    assert [line.split("--exp ")[1].split()[0] for line in dry(recipe, *trained)] == ["exp/encoder", "exp/ctc"]
    result = run(DRIVER, *SETS, "--dry_run", "--schedule", "none.sh", cwd=recipe)
    assert result.returncode == 2 and "no such schedule: none.sh" in result.stderr


def test_each_gpu_has_a_process_and_the_cpu_as_many_as_asked_for(recipe: Path) -> None:
    stage = ["--train_encoder", "conf/encoder.yaml", "--stage", "4", "--stop_stage", "4"]
    assert " torchrun --standalone --nproc_per_node 2 -m asrllm.bin.train " in dry(recipe, *stage, "--ngpu", "2")[0]
    assert " python -m asrllm.bin.train " in dry(recipe, *stage, "--ngpu", "1", "--nproc", "2")[0]
    assert " torchrun --standalone --nproc_per_node 2 -m asrllm.bin.train " in dry(recipe, *stage, "--nproc", "2")[0]
    assert " python -m asrllm.bin.train " in dry(recipe, *stage)[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--stge", "2"], "unknown option --stge"),
        (["--nj", "x"], "--nj takes a whole number, not 'x'"),
        (["--nj", "0"], "--nj takes a number from 1, not '0'"),
        (["--nproc", "0"], "--nproc takes a number from 1, not '0'"),
        (["--train_set", ""], "--train_set is required"),
        (["--train_align", "conf/none.yaml"], "no such configuration file: conf/none.yaml"),
        (["--decode", "conf/ctc.yaml"], "--decode needs an experiment"),
        (["more"], "unexpected argument 'more'"),
    ],
)
def test_wrong_calls_of_the_driver(recipe: Path, words: list[str], sentence: str) -> None:
    result = run(DRIVER, *SETS, *words, cwd=recipe)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"asr.sh: {sentence}")
    assert len(result.stderr.splitlines()) == 1


def test_wrong_calls_of_the_comparison_of_searches(recipe: Path) -> None:
    for words, sentence in ([], "no path.sh and cmd.sh here"), (["exp"], "unexpected argument 'exp'"):
        result = run(ROOT / "egs" / "compare_decoding.sh", *words, cwd=recipe)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert result.stderr.startswith(f"compare_decoding.sh: {sentence}")


@pytest.fixture
def driver(recipe: Path) -> Path:
    """The driver beside an install.sh that finds all well."""
    for name in ("egs", "tools"):
        (recipe / "top" / name).mkdir(parents=True)
    (recipe / "top" / "tools" / "install.sh").symlink_to("/bin/true")
    (recipe / "top" / "utils").symlink_to(ROOT / "utils")
    path = recipe / "top" / "egs" / "asr.sh"
    path.write_text(DRIVER.read_text())
    path.chmod(0o755)
    return path


def test_a_failed_stage_stops_the_run_and_names_its_log(recipe: Path, driver: Path) -> None:
    (recipe / "local").mkdir()
    (recipe / "local" / "prepare.py").write_text("import sys; sys.exit('prepare: error: no corpus')")
    result = run(driver, *SETS, cwd=recipe)
    assert result.returncode == 1
    assert "run.sh: job failed, log is in exp/log/prepare.log\nprepare: error: no corpus\n" in result.stderr
    assert result.stderr.splitlines()[-1].endswith("stage 1 failed; when it is mended, go on with: ./run.sh --stage 1")
    assert "stage 2" not in result.stderr


def test_a_whole_run_does_what_the_dry_run_prints(recipe: Path, driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe / "python").write_text("#!/bin/sh\nexit 0\n")
    (recipe / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{recipe}{os.pathsep}{os.environ['PATH']}")
    options = ["--tokenizer", "conf/tokenizer.yaml", "--train_align", "conf/align.yaml", "--nj", "2"]
    options += ["--decode", "conf/ctc.yaml", "--baseline", "conf/zero.yaml", "--command", "./run.sh --nj 2"]
    result = run(driver, *SETS, *options, cwd=recipe)
    assert result.returncode == 0, result.stderr
    heads = [path.read_text().splitlines()[0] for path in recipe.glob("exp/**/*.log")]
    done = {" ".join(shlex.split(head)[1:]) for head in heads}
    planned = set()
    for line in dry(recipe, *options):
        words = shlex.split(line)
        command = " ".join(words[words.index("python") :])
        planned |= {re.sub(r"\bJOB\b", job, command) for job in "12"}
    assert done == planned
    for stage in (1, 2, 3, 5, 8, 9, 10):
        assert re.search(rf"stage {stage}: done in \d+ s", result.stderr)
