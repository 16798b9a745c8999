"""egs/asr.sh, the stage driver, and what becomes of its jobs when it is killed."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from shell import heed_signals, is_running, run, wait_until

ROOT = Path(__file__).resolve().parents[1]
DRIVER = ROOT / "egs" / "asr.sh"

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


@pytest.fixture
def toy(driver: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The template's recipe, whose programs start another each, never end, and take a while to stop."""
    folder = driver.parent / "toy" / "asr1"
    folder.mkdir(parents=True)
    for name in ("run.sh", "cmd.sh", "conf"):
        (folder / name).symlink_to(ROOT / "egs" / "TEMPLATE" / "asr1" / name)
    (folder / "path.sh").touch()
    (driver.parent / "compare_decoding.sh").symlink_to(ROOT / "egs" / "compare_decoding.sh")
    (recipe / "python").write_text("#!/bin/sh\ntrap 'sleep 0.3; exit' TERM\nsleep 97.25 &\necho $! > $$.pid\nwait\n")
    (recipe / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{recipe}{os.pathsep}{os.environ['PATH']}")
    return folder


DECODE = "./run.sh --stage 8 --nj 2 --decode_exp exp/x"
STOPPED = "stage 8 was stopped, go on with: ./run.sh --stage 8\n"


@pytest.mark.parametrize(
    ("line", "jobs", "number", "said"),
    [
        (DECODE, 2, signal.SIGTERM, STOPPED),
        (DECODE, 2, signal.SIGINT, STOPPED),
        (DECODE, 2, signal.SIGHUP, STOPPED),
        ("../../compare_decoding.sh", 1, signal.SIGTERM, ""),
    ],
)
def test_who_kills_a_script_kills_its_jobs(toy: Path, line: str, jobs: int, number: int, said: str) -> None:
    """Only the script gets the signal, not its process group, as a terminal's would."""
    process = subprocess.Popen(
        line.split(),
        cwd=toy,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
        start_new_session=True,
    )
    try:
        wait_until(lambda: len([path for path in toy.glob("*.pid") if path.read_text()]) == jobs)
        assert len(of_session(process.pid)) >= 2 + 2 * jobs  # the script, the runner, two processes of each job
    finally:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert of_session(process.pid) == []
    assert stderr.endswith(said) and "Terminated" not in stderr


def of_session(leader: int) -> list[int]:
    """The processes that run in a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == leader and is_running(int(path.name)):
                found.append(int(path.name))
        except ProcessLookupError:
            pass
    return found
