"""The programs in a row, from a corpus to RESULTS.md, on speech that is learned in seconds."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import toy_corpus
from toy_corpus import SEARCHES, TRAININGS, decode_options, train_options, tree

from asrllm.bin import decode, train
from asrllm.hypothesis import NBest, read_decoding
from asrllm.score.scoring import read_score
from asrllm.train.learner import Learner, StepResult


def weights(exp: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(exp / "weights.safetensors")


def error_percent(recipe: Path, exp: str, search: str) -> float:
    return read_score(recipe / "exp" / exp / search / "test" / "score.json").units[0].err_percent


def test_the_encoder_learns_words_it_then_finds_in_new_utterances(recipe: Path) -> None:
    assert error_percent(recipe, "train_encoder", "decode_ctc") < 10


def test_the_encoders_own_row_is_the_same_after_the_alignment(recipe: Path) -> None:
    rows = {error_percent(recipe, exp, "decode_ctc") for exp in TRAININGS}
    assert len(rows) == 1


def test_an_llm_that_learns_fits_its_data(recipe: Path) -> None:
    lines = [json.loads(line) for line in (recipe / "exp/train_joint/metrics.jsonl").read_text().splitlines()]
    accuracies = [line["llm_accuracy"] for line in lines if line["kind"] == "train"]
    assert accuracies[0] < 0.5 and accuracies[-1] > 0.9


def test_experiments_hold_the_parts_that_nothing_else_holds(recipe: Path) -> None:
    held = {exp: {key.partition("/")[0] for key in weights(recipe / "exp" / exp)} for exp in TRAININGS}
    assert held == {
        "train_encoder": {"encoder", "ctc"},
        "train_align_posterior": {"encoder", "ctc", "projector"},
        "train_align_linear": {"encoder", "ctc", "projector"},
        "train_joint": {"encoder", "ctc", "projector", "llm"},
    }


def test_alignment_moves_the_projector_alone(recipe: Path) -> None:
    encoder, align = (weights(recipe / "exp" / exp) for exp in TRAININGS[:2])
    assert all(align[key].equal(value) for key, value in encoder.items())
    assert align["projector/offset"].abs().max() > 0


def test_encoder_outputs_are_kept_once_for_all_experiments(recipe: Path) -> None:
    stores = sorted(recipe.glob("exp/frames/*/index.json"))
    assert [len(json.loads(path.read_text())["places"]) for path in stores] in ([4, 48], [48, 4])


def test_iterative_fine_tuning_ends_on_the_final_encoder(work: Path) -> None:
    """The real model: aligned on the first encoder chosen, then swapped; the CTC head goes with its encoder."""
    train.main(train_options("train_iasft"))
    lines = [json.loads(line) for line in Path("exp/train_iasft/metrics.jsonl").read_text().splitlines()]
    swaps = [line for line in lines if line["kind"] == "swap"]
    assert swaps[0]["snapshot"] == swaps[1]["snapshot"] < 200 and swaps[-1]["snapshot"] == 200
    assert [line["step"] for line in swaps][:2] == [1, 5] and {line["kind"] for line in lines} >= {"cka", "phase"}
    before, after = weights(Path("exp/train_encoder")), weights(Path("exp/train_iasft"))
    assert [key for key, value in before.items() if not value.equal(after[key])] == []
    assert {key.partition("/")[0] for key in after} == {"encoder", "ctc", "projector", "llm.lora"}
    script = Path("exp/train_iasft/run.sh")
    assert os.access(script, os.X_OK)
    environment = os.environ | {"PYTHONPATH": str(Path(train.__file__).parents[2])}
    again = subprocess.run([str(script.resolve())], cwd="/", env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "exp/train_iasft: finished before, nothing to do" in again.stderr, again.stderr


def test_report_has_the_ctc_row_directly_above_the_llm_rows(recipe: Path) -> None:
    lines = (recipe / "RESULTS.md").read_text().splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("|train_") and "/test|" in line]
    wanted = [f"{exp}/{search}/test" for exp in TRAININGS for search in ("decode_ctc", "decode_beam", "decode_greedy")]
    place = {row: rows.index(row) for row in rows}
    for exp in TRAININGS[1:]:
        first = place[f"{exp}/decode_ctc/test"]
        assert rows[first + 1 : first + 3] == [f"{exp}/decode_beam/test", f"{exp}/decode_greedy/test"]
    assert set(rows) == set(wanted) - {f"train_encoder/{search}/test" for search in SEARCHES[1:]}


def test_no_temporary_file_is_left(recipe: Path) -> None:
    assert [path for path in recipe.rglob("*") if path.name.startswith(".") or path.name.endswith(".part")] == []


def test_a_second_run_says_so_and_changes_nothing(
    work: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(work)
    times = {path: path.stat().st_mtime_ns for path in work.rglob("*") if "dump" in path.parts or "exp" in path.parts}
    caplog.set_level("INFO")
    toy_corpus.run_chain()
    after = tree(work)
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert changed <= {"RESULTS.md"}  # its header has the time
    assert caplog.text.count("finished before, nothing to do") == len(TRAININGS)
    assert caplog.text.count("decoded before, nothing to do") == 10
    assert caplog.text.count("exp/tokenizer: up to date") == 1
    assert capsys.readouterr().out.count(": up to date") == 3
    anew = [path for path, before in times.items() if path.stat().st_mtime_ns != before]  # the same content
    written = {path.name for path in anew if not path.match("score_*/*") and not path.name.startswith("score_")}
    assert written <= {"score.json", "result.txt", "report.html", "test"}


def test_killed_and_started_again_equals_uninterrupted_bit_for_bit(work: Path, root: Path) -> None:
    """The kill comes after the first checkpoint, in a process of its own; exp/train_encoder was never interrupted."""
    exp = work / "exp" / "cut"
    command = [sys.executable, "-m", "asrllm.bin.train", *train_options("train_encoder", "exp/cut")]
    child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(exp.glob("checkpoints/step-*")) and time.monotonic() < end:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (exp / "weights.safetensors").exists() and list(exp.glob("checkpoints/step-*"))
    train.main(train_options("train_encoder", "exp/cut"))
    whole, cut = weights(work / "exp" / "train_encoder"), weights(exp)
    assert whole.keys() == cut.keys()
    assert [key for key in whole if not whole[key].equal(cut[key])] == []
    assert list(exp.rglob(".*")) == []


def test_two_views_in_noise_go_on_after_a_fault_as_if_nothing_had_been(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CR-CTC on utterances in rooms and noise, joined ones and clips without speech; the corpus itself is the noise."""
    clips = "{folders: [data/wav], share: 0.5}"
    changes = f"{{noise: {clips}, reverb: {clips}, empty: {clips}, join: {{share: 0.3, max_seconds: 3.0}}}}"
    phases = "[{steps: 10, train: {encoder: 5.0e-3, ctc: 5.0e-3}, losses: {ctc: 1.0, cr_ctc: 0.2}}]"
    options = ["--set", f"data.augment={changes}", "--set", f"stage.phases={phases}"]
    options += ["--set", "train.checkpoint_every_steps=4", "--set", "train.log_every_steps=1"]
    train.main([*train_options("train_encoder", "exp/whole"), *options])
    step, steps = Learner.step, iter(range(6))

    def faulty(*args: Any) -> StepResult:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(Learner, "step", faulty)
    with pytest.raises(KeyboardInterrupt):
        train.main([*train_options("train_encoder", "exp/again"), *options])
    assert [path.name for path in Path("exp/again/checkpoints").glob("step-*")] == ["step-4"]
    monkeypatch.setattr(Learner, "step", step)
    train.main([*train_options("train_encoder", "exp/again"), *options])
    whole, again = weights(Path("exp/whole")), weights(Path("exp/again"))
    assert [key for key in whole if not whole[key].equal(again[key])] == []
    lines = [json.loads(line) for line in Path("exp/whole/metrics.jsonl").read_text().splitlines()]
    apart = [line["cr_ctc_loss"] for line in lines if line["kind"] == "train"]
    assert len(apart) == 10 and all(value > 0 for value in apart)
    assert [line["cr_ctc_loss"] for line in lines if line["kind"] == "valid"] == [0.0]


def assert_same_results(left: dict[str, NBest], right: dict[str, NBest]) -> None:
    assert left.keys() == right.keys() and left
    for one, other in ((left[utt_id], right[utt_id]) for utt_id in left):
        assert [each.text for each in one.hypotheses] == [each.text for each in other.hypotheses]
        scores = [[each.score for each in result.hypotheses] for result in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize("search", SEARCHES)
def test_shards_and_batch_mates_do_not_change_a_result(work: Path, search: str) -> None:
    exp = "exp/train_joint"
    whole = read_decoding(work / exp / search / "test")
    for job in (1, 2):
        decode.main([*decode_options(search, exp, "halves"), "--shard", f"{job}/2"])
    decode.main([*decode_options(search, exp, "alone"), "--set", "batch_seconds=0.1"])
    assert_same_results(whole, read_decoding(Path("halves")))
    assert_same_results(whole, read_decoding(Path("alone")))
    assert sum(len(read.read_text().splitlines()) for read in Path("halves").glob("hyp.*")) == 12


def test_the_llm_and_the_ctc_decode_together(work: Path) -> None:
    """The score of the n best is the weighted sum of the kept ones, and that of the CTC is the CTC's own."""
    weights = ["--set", "search.weights={ctc: 0.7, length: 0.1}"]
    decode.main([*decode_options("decode_beam", "exp/train_joint", "joint"), *weights])
    joint = read_decoding(Path("joint"))
    ctc = read_decoding(work / "exp/train_joint/decode_ctc/test")
    assert sum(joint[utt_id].best.text == result.best.text for utt_id, result in ctc.items()) >= 0.9 * len(ctc)
    for each in (each for result in joint.values() for each in result.hypotheses):
        assert each.score == pytest.approx(each.scores["llm"] + 0.7 * each.scores["ctc"] + 0.1 * len(each.tokens))
        assert -100 < each.scores["ctc"] < 0


def test_more_jobs_than_utterances(work: Path) -> None:
    for job in range(1, 14):
        decode.main([*decode_options("decode_ctc", "exp/train_encoder", "many"), "--shard", f"{job}/13"])
    assert_same_results(read_decoding(work / "exp/train_encoder/decode_ctc/test"), read_decoding(Path("many")))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_two_processes_train_as_one_does(work: Path, root: Path, way: str) -> None:
    """Two processes with a batch of 24 each, against one that accumulates two such batches: all 48 in every step.

    Only the projector learns: dropout of the CTC head would draw other numbers in other processes. One process may then
    go on where they ended.
    """
    larger = ["--set", "data.batch.max_utterances=24"]
    options = [*train_options("train_align_linear", "exp/two"), *larger]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "asrllm.bin.train"]
    done = subprocess.run(
        [sys.executable, *torchrun, *options, "--set", f"train.parallel.type={way}"],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    train.main([*train_options("train_align_linear", "exp/one"), *larger, "--set", "train.accumulate=2"])
    one, two = weights(work / "exp" / "one"), weights(work / "exp" / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5, msg=name)
    assert json.loads((work / "exp/two/summary.json").read_text())["processes"] == 2
    (work / "exp/two/summary.json").unlink()
    train.main(options)
    assert json.loads((work / "exp/two/summary.json").read_text())["processes"] == 1
