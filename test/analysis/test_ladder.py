"""The ladder: what is shared, scaled and started from, on mini's schedules; the running of jobs, on shell commands."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from shell import heed_signals, is_running, wait_until
from toy_corpus import refused

from asrllm import config as configs
from asrllm import console
from asrllm.analysis.ladder import Job, LadderConfig, plan, run_all
from asrllm.bin import ladder
from asrllm.experiment import ExperimentConfig

MINI = Path(__file__).resolve().parents[2] / "egs/mini/asr1"


@pytest.fixture
def mini(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MINI)


def made(*schedules: str, budgets: tuple[float, ...] = (1e14,), seeds: tuple[int, ...] = (0,)):
    files = tuple(f"conf/schedules/{name}.sh" for name in schedules)
    config = LadderConfig(schedules=files, budgets=budgets, seeds=seeds, decode="conf/decode_greedy.yaml")
    return plan(config, Path("exp_l"), [])


def resolved(job: Job) -> ExperimentConfig:
    """What the job would train."""
    [words] = job.commands
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    return configs.load(Path(words[words.index("--config") + 1]), ExperimentConfig, settings)


def stems(jobs: list[Job]) -> list[str]:
    return sorted(job.name.rpartition("-")[0] for job in jobs if job.name.startswith("train_"))


def test_equal_stages_are_trained_once(mini: None) -> None:
    jobs, rungs = made("s3", "s4", "s5", "s6")
    names = "train_e0 train_e1 train_s3_align train_s4_lora train_s5_joint train_s5_lora train_s6_iasft train_s6_joint"
    assert stems(jobs) == names.split()
    assert [rung.schedule for rung in rungs] == ["s3", "s4", "s5", "s6"]
    twice, _ = made("s3", "s4", budgets=(1e14, 2e14), seeds=(0, 1))
    assert stems(twice).count("train_e0") == 4 and stems(twice).count("train_s3_align") == 4


@pytest.mark.parametrize("budget", [1e13, 1e14, 3e14])
@pytest.mark.parametrize("schedule", ["s1", "s2", "s5", "s6"])
def test_a_chain_has_the_budget_and_each_stage_its_share(mini: None, schedule: str, budget: float) -> None:
    jobs, [rung] = made(schedule, budgets=(budget,), seeds=(7,))
    trained = [resolved(job) for job in jobs if job.name.startswith("train_")]
    spent = [phase.flops for config in trained for phase in config.stage.phases]
    whole = [phase.flops for job in made(schedule)[0][1:-1] for phase in resolved(job).stage.phases]
    assert sum(spent) == pytest.approx(budget)
    assert [each / budget for each in spent] == pytest.approx([each / 1e14 for each in whole])
    assert {config.train.seed for config in trained} == {7}
    first = trained[0].stage.phases[0].warmup_steps
    assert first == round({"s1": 100, "s2": 100}.get(schedule, 300) * budget / 1e14)
    assert rung.experiment == jobs[-2].name


def test_stages_start_from_those_of_their_own_chain(mini: None) -> None:
    jobs, _ = made("s6", seeds=(0, 1))
    by_name = {job.name: job for job in jobs}
    for job in jobs:
        if job.name.startswith("train_"):
            config = resolved(job)
            swaps = [phase.encoder_swaps for phase in config.stage.phases if phase.encoder_swaps]
            sources = {Path(each).name for each in [*config.stage.init.values(), *(each.pretraining for each in swaps)]}
            assert sources == set(job.needs) - {"data"} and sources <= by_name.keys()
            assert all(resolved(by_name[source]).train.seed == config.train.seed for source in sources)
            assert f"exp_l/{job.name}" in job.commands[0]


def test_the_last_experiment_is_decoded_and_scored(mini: None) -> None:
    jobs, [rung] = made("s5")
    [decode, score] = jobs[-1].commands
    out = f"exp_l/{rung.experiment}/decode_greedy/test"
    assert decode[decode.index("--out") + 1] == score[score.index("--hyp") + 1] == out
    assert jobs[-1].made == (Path(out) / "score.json",) and jobs[-1].needs == (rung.experiment,)


def test_a_dry_run_prints_what_is_left(mini: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ladder.yaml"
    file.write_text("schedules: [conf/schedules/s3.sh]\nbudgets: [1e13]\ndecode: conf/decode_greedy.yaml\n")
    ladder.main(["--config", str(file), "--expdir", str(tmp_path / "exp"), "--dry_run"])
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert lines[0][:3] == ["./run.sh", "--stop_stage", "3"] and len(lines) == 5
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schedules: [conf/schedules/no_swap.sh]", "found a budget in"),
        ("schedules: [conf/schedules/none.sh]", "no such schedule"),
        ("schedules: [conf/schedules/s1.sh]\nrun: ./walk.sh", "start the ladder in a recipe's folder"),
        ("schedules: [conf/schedules/s1.sh]\nseeds: []", "seeds"),
    ],
)
def test_mistakes_are_one_sentence(
    mini: None,
    tmp_path: Path,
    text: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "ladder.yaml"
    file.write_text(f"{text}\nbudgets: [1e13]\ndecode: conf/decode_greedy.yaml\n")
    with pytest.raises(SystemExit) as end:
        console.run(lambda: ladder.main(["--config", str(file), "--expdir", str(tmp_path / "exp")]))
    error = capsys.readouterr().err
    assert end.value.code == 1 and said in error and "Traceback" not in error


def shell(name: str, folder: Path, text: str, *needs: str) -> Job:
    """A job that tells of itself and then does `text`."""
    words = ("sh", "-c", f"cd {folder}; echo {name} >> told; {text}")
    return Job(name, (words,), needs, (folder / name,))


def test_jobs_follow_those_they_need_and_failures_stop_only_theirs(tmp_path: Path) -> None:
    jobs = [
        shell("e", tmp_path, "touch e"),
        shell("a", tmp_path, "test -f e && touch a", "e"),
        shell("bad", tmp_path, "exit 3", "e"),
        shell("after", tmp_path, "touch after", "bad"),
        shell("quiet", tmp_path, "true", "e"),
        shell("flaky", tmp_path, "test -f once || { touch once; exit 1; }; touch flaky", "a"),
    ]
    failed = run_all(jobs, 2, tries=2)
    told = (tmp_path / "told").read_text().split()
    assert told.count("e") == told.count("a") == 1 and told.count("bad") == told.count("flaky") == 2
    assert failed.keys() == {"bad", "after", "quiet"} and "status 3" in failed["bad"]
    assert "not started" in failed["after"] and "did not write" in failed["quiet"]
    (tmp_path / "bad").touch()
    (tmp_path / "quiet").touch()
    assert run_all(jobs, 2, tries=1) == {}
    assert (tmp_path / "told").read_text().split()[len(told) :] == ["after"]


def test_who_kills_a_ladder_kills_its_jobs(root: Path, tmp_path: Path) -> None:
    """Only the program gets the signal; its job has started another process and takes a while to stop."""
    recipe, pids = tmp_path / "run.sh", tmp_path / "pids"
    job = f"trap 'sleep 0.3; exit' TERM; sleep 97.25 & echo $$ $! >> {pids}; wait"
    recipe.write_text(f'#!/bin/sh\ncase "$*" in *--dry_run*) exec ./run.sh "$@" ;; esac\n{job}\n')
    recipe.chmod(0o755)
    config = f"{{schedules: [conf/schedules/s3.sh], budgets: [1e13], decode: conf/decode_greedy.yaml, run: {recipe}}}"
    (tmp_path / "ladder.yaml").write_text(config)
    options = f"--config {tmp_path}/ladder.yaml --expdir {tmp_path}/exp --tries 3".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "asrllm.bin.ladder", *options],
        cwd=MINI,
        env=os.environ | {"PYTHONPATH": str(root)},
        preexec_fn=heed_signals,
    )
    try:
        wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), seconds=300)
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    [line] = pids.read_text().splitlines()  # and it was not started again
    wait_until(lambda: not any(is_running(int(pid)) for pid in line.split()), seconds=30)


def test_scores_older_than_the_weights_are_made_again(tmp_path: Path) -> None:
    score, weights = tmp_path / "score.json", tmp_path / "weights"
    job = Job("scores", (), (), (score,), newer=weights)
    assert not job.is_done
    score.touch()
    assert job.is_done
    weights.touch()
    os.utime(score, (0, 0))
    assert not job.is_done


E0 = """
base: train_encoder.yaml
train: {snapshot_every_steps: null, keep_checkpoints: 1}
stage:
  phases: [{flops: 1.0e9, train: {encoder: 5.0e-3, ctc: 5.0e-3}, losses: {ctc: 1.0}, warmup_steps: 2}]
"""
E1 = """
base: train_align_linear.yaml
stage:
  init: {encoder: exp/train_e0, ctc: exp/train_e0}
  phases: [{flops: 1.0e9, train: {projector: 1.0e-3}, losses: {llm: 1.0}}]
"""


@pytest.mark.slow
def test_a_ladder_of_the_toy_recipe(work: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two chains on one encoder, from run.sh to a law that refuses so few budgets; a second start does nothing."""
    for name, text in {"train_e0": E0, "train_e1": E1, "train_e2": E1.replace("linear", "posterior")}.items():
        Path(f"conf/{name}.yaml").write_text(text)
    for name in ("e1", "e2"):
        Path(f"conf/{name}.sh").write_text(f"train_encoder=conf/train_e0.yaml\ntrain_align=conf/train_{name}.yaml\n")
    options = (
        "--train_set train --valid_set dev --test_sets test --tokenizer conf/tokenizer.yaml --score conf/score.yaml"
    )
    Path("run.sh").write_text(f'#!/usr/bin/env bash\nexec "{root}/egs/asr.sh" {options} "$@"\n')
    Path("run.sh").chmod(0o755)
    shutil.copytree("exp/tokenizer", "exp_l/tokenizer")  # stages 1 to 3 are done
    Path("ladder.yaml").write_text(
        "schedules: [conf/e1.sh, conf/e2.sh]\nbudgets: [2.0e9]\ndecode: conf/decode_greedy.yaml\n"
    )
    ladder.main(["--config", "ladder.yaml", "--expdir", "exp_l", "--jobs", "2"])
    rungs = json.loads(Path("exp_l/ladder.json").read_text())
    assert [rung["schedule"] for rung in rungs] == ["e1", "e2"]
    assert all(Path(f"exp_l/{rung['experiment']}/decode_greedy/test/score.json").is_file() for rung in rungs)
    assert len(list(Path("exp_l").glob("train_e0-*"))) == 1
    capsys.readouterr()
    ladder.main(["--config", "ladder.yaml", "--expdir", "exp_l", "--dry_run"])
    assert capsys.readouterr().out == ""
    law = ["scaling", "--ladder", "exp_l", "--decoding", "decode_greedy/test", "--out", "out"]
    assert "1 budgets are fewer" in refused(capsys, "analyze", law)[0]
