"""The commands of asrllm.bin.analyze on the toy recipe and on made-up ladders."""

import json
import re
import shutil
from pathlib import Path

import pytest
from toy_corpus import refused, rewrite

from asrllm.analysis import runs, tables
from asrllm.bin import analyze
from asrllm.train.emergence import find

ENCODER, JOINT = "exp/train_encoder", "exp/train_joint"


def values(command: str, *options: str) -> dict:
    """What a command writes; its picture is a PNG."""
    analyze.main([command, *options, "--out", "out"])
    assert Path(f"out/{command}.png").read_bytes().startswith(b"\x89PNG")
    assert Path(f"out/{command}.md").is_file()
    return json.loads(Path(f"out/{command}.json").read_text())


def rung(folder: Path, flops: float, error: float, seed: int = 0) -> Path:
    """An experiment that cost so much and has that error."""
    shutil.copytree(ENCODER, folder, ignore=shutil.ignore_patterns("*s", "decode_*", "*.safetensors"))
    change(folder / "summary.json", lambda summary: summary["flops"].update(model=flops))
    rewrite(str(folder / "config.yaml"), lambda lines: [re.sub(r"seed: \d+", f"seed: {seed}", line) for line in lines])
    shutil.copytree(f"{JOINT}/decode_greedy", folder / "decode_greedy")
    change(folder / "decode_greedy/test/score.json", lambda score: score["units"][0].update(err_percent=error))
    return folder


def change(path: Path, how) -> None:
    tree = json.loads(path.read_text())
    how(tree)
    path.write_text(json.dumps(tree))


def ladder(folder: Path, factor: float, schedule: str) -> list[dict]:
    """Six budgets over 1.5 decades and two seeds of 20 (C / 1e13)^-0.3, reached at `factor` of the FLOPs."""
    made = []
    for number in range(6):
        for seed in range(2):
            flops = 10 ** (13 + 0.3 * number)
            name = f"{schedule}-{number}-{seed}"
            rung(folder / name, flops * (1 + 0.01 * seed), 20 * (flops / factor / 1e13) ** -0.3, seed)
            made.append({"schedule": schedule, "experiment": name})
    return made


def test_scaling_finds_the_law_of_each_schedule_and_their_ratio(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    rungs = ladder(Path("exp_ladder"), 1.0, "s1") + ladder(Path("exp_ladder"), 0.5, "s5")
    Path("exp_ladder/ladder.json").write_text(json.dumps([*rungs, {"schedule": "s6", "experiment": "not-yet"}]))
    found = values("scaling", "--ladder", "exp_ladder", "--decoding", "decode_greedy/test")
    assert "exp_ladder: 1 of 25 runs are not scored yet, left out" in caplog.text
    assert found["laws"]["s1"]["power"]["alpha"] == pytest.approx(0.3, abs=0.01)
    [compared] = found["comparison"]
    assert compared["flops_ratio"] == pytest.approx(0.5, rel=0.02)
    assert compared["error_reduction"] == pytest.approx(1 - 2**-0.3, abs=0.01)
    assert (
        compared["error_reduction_interval"][0] < compared["error_reduction"] < compared["error_reduction_interval"][1]
    )
    assert {run["seed"] for run in found["runs"]} == {0, 1}
    text = Path("out/scaling.md").read_text()
    assert "|s1|12|6|" in text and "## Against s1" in text


def test_costs_of_a_chain_count_every_experiment_once(recipe: Path) -> None:
    names = ("train_encoder", "train_align_posterior", "train_joint")
    flops = [json.loads((recipe / "exp" / name / "summary.json").read_text())["flops"]["model"] for name in names]
    assert sum(runs.costs(recipe / "exp/train_joint").values()) == pytest.approx(sum(flops))
    snapshot = recipe / "exp/train_encoder/snapshots/step-80"
    assert sum(runs.costs(snapshot).values()) == pytest.approx(0.4 * flops[0])


def mixed_sets(folder: Path) -> None:
    def drop(score: dict) -> None:
        score["units"][0]["utterances"].popitem()

    change(folder / "decode_greedy/test/score.json", drop)


FAULTS = {
    "test sets": (mixed_sets, "were scored on different references"),
    "normalisers": (
        lambda folder: change(folder / "decode_greedy/test/score.json", lambda score: score.update(normalizer="none")),
        "was scored under",
    ),
    "ledger": (
        lambda folder: change(folder / "summary.json", lambda summary: summary.update(steps=0)),
        "its ledger counts no step",
    ),
    "unfinished": (lambda folder: (folder / "summary.json").unlink(), "not a finished experiment"),
    "not scored": (lambda folder: shutil.rmtree(folder / "decode_greedy"), "no such score"),
    "perfect": (
        lambda folder: change(
            folder / "decode_greedy/test/score.json", lambda score: score["units"][0].update(err_percent=0.0)
        ),
        "both must be above 0",
    ),
    "source gone": (
        lambda folder: rewrite(
            str(folder / "config.yaml"),
            lambda lines: [line.replace("init: {}", "init: {encoder: exp/gone}") for line in lines],
        ),
        "starts from exp/gone, which is not there",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_runs_that_cannot_be_compared_are_refused(work: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [rung(Path(f"exp/r{number}"), 2.0**number * 1e13, 30.0 - number) for number in range(4)]
    spoil, said = FAULTS[what]
    spoil(folders[2])
    options = ["--schedule", "a", *map(str, folders), "--decoding", "decode_greedy/test"]
    assert said in refused(capsys, "analyze", ["scaling", *options, "--out", "out"])[0]


def test_too_few_budgets_are_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [rung(Path(f"exp/r{number}"), (1 + 0.01 * number) * 1e13, 30.0 - number) for number in range(4)]
    options = ["--schedule", "a", *map(str, folders), "--decoding", "decode_greedy/test"]
    assert "a: scaling: 1 budgets are fewer" in refused(capsys, "analyze", ["scaling", *options, "--out", "out"])[0]
    refused(capsys, "analyze", ["scaling", "--decoding", "x", "--out", "out"])


def test_drift_of_an_experiment_from_itself_is_none(work: Path) -> None:
    found = values("drift", JOINT, JOINT, "--data", "dump/test")
    assert found["rows"] == found["columns"] == ["encoder", "projector"]
    assert [found["cka"][0][0], found["cka"][1][1]] == pytest.approx([1.0, 1.0])
    assert found["cka"][0][1] is None


def test_drift_of_a_snapshot_is_what_the_swaps_measure(work: Path) -> None:
    """The same draw of all frames: the value of asrllm.train.cka on the encoders' outputs."""
    import torch

    from asrllm.analysis import listening
    from asrllm.train.cka import linear_cka, pool

    snapshot = f"{ENCODER}/snapshots/step-40"
    found = values("drift", snapshot, ENCODER, "--data", "dump/test")
    outputs = []
    for place in (snapshot, ENCODER):
        model = listening.load(Path(place), torch.device("cpu"))
        with torch.no_grad():
            outputs.append(
                pool([model.encode(batch) for batch in listening.Audio(Path("dump/test")).batches()], 20000, 0)
            )
    assert found["cka"][0][0] == pytest.approx(linear_cka(*outputs), abs=1e-6)
    assert 0 < found["cka"][0][0] < 1 and found["frames"] == len(outputs[0])


def test_drift_of_several_compares_their_outputs(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [f"{ENCODER}/snapshots/step-40", ENCODER, JOINT]
    found = values("drift", *places, "--data", "dump/test")
    assert found["rows"] == found["columns"] == places
    for i, j in ((0, 1), (0, 2), (1, 2)):
        pair = values("drift", places[i], places[j], "--data", "dump/test")
        assert found["cka"][i][j] == found["cka"][j][i] == pytest.approx(pair["cka"][0][0])
    assert [found["cka"][i][i] for i in range(3)] == [1.0] * 3
    said = refused(capsys, "analyze", ["drift", ENCODER, "--data", "dump/test", "--out", "out"])[0]
    assert "name two experiments or more" in said


def test_entropy_is_the_same_from_the_ctm_files_that_it_wrote(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [JOINT, "--data", "dump/train", "--min_count", "10"]
    assert "three disjoint parts" in refused(capsys, "analyze", ["entropy", *options, "--out", "out"])[0]
    rewrite("dump/train/utt2spk", lambda lines: [f"{line.split()[0]} s{n % 6}\n" for n, line in enumerate(lines)])
    found = values("entropy", *options)
    assert (
        found[JOINT]["PAI"]["encoder"]["value"] > 0.5 > abs(found[JOINT]["PAI, frames exchanged"]["encoder"]["value"])
    )
    assert "frames exchanged" in found[JOINT]["CSAI"]["encoder"]["note"]  # 84 words are too few for the probe
    shutil.copytree("out", "times")
    times = ["--units", "times/units.ctm", "--words", "times/words.ctm"]
    again = values("entropy", JOINT, ENCODER, *options[1:], *times)
    assert again[JOINT] == found[JOINT]
    assert again[ENCODER]["PAI"] == {"encoder": found[JOINT]["PAI"]["encoder"]}  # the same encoder, and no projector
    said = refused(capsys, "analyze", ["entropy", JOINT, "--data", "dump/test", *times, "--out", "new"])[0]
    assert "does not match the audio: 12 utterances have no alignment" in said


def test_attention_draws_the_utterance_that_is_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = values("attention", JOINT, "--data", "dump/test", "--utterance", "s1-test03", "--layers", "2")
    assert found["utterance"] == "s1-test03" and Path("out/layer-02.png").is_file()
    assert not Path("out/layer-01.png").exists()
    options = ["attention", JOINT, "--data", "dump/test", "--out", "new"]
    assert "no utterance 'x' in it" in refused(capsys, "analyze", [*options, "--utterance", "x"])[0]
    assert "has layers 1 to 2" in refused(capsys, "analyze", [*options, "--layers", "3"])[0]


def test_emergence_says_what_training_said(work: Path) -> None:
    found = values("emergence", JOINT)
    assert found[JOINT] == json.loads(Path(f"{JOINT}/summary.json").read_text())["emergence"]


@pytest.mark.parametrize("points", [9, 10])
def test_emergence_of_a_short_run_says_that_it_logged_too_little(points: int) -> None:
    curve = list(range(points)), [0.5] * points
    text = tables.emergence({"exp/x": curve}, {"exp/x": find(*curve)})
    assert ("`exp/x` has logged 9 points, 10 at least are needed: " in text) == (points < 10)
    assert ("|exp/x|none|0.000|0.000|" in text) == (points == 10)


def test_hallucination_shows_the_decodings_that_are_asked_for(work: Path) -> None:
    found = values("hallucination", "--exp", "exp", "--only", "train_joint/*", "--only", "*/decode_ctc/*")
    names = {"train_joint/decode_beam/test", "train_align_linear/decode_ctc/test", "train_encoder/decode_ctc/test"}
    assert names <= set(found) and "train_align_linear/decode_beam/test" not in found
    score = json.loads(Path("exp/train_joint/decode_beam/test/score.json").read_text())
    assert found["train_joint/decode_beam/test"] == score["hallucination"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["drift", "exp/none", ENCODER, "--data", "dump/test"], "exp/none: no such folder"),
        (["emergence", ENCODER], "logs no accuracy of an LLM"),
        (["hallucination", "--exp", "exp", "--only", "nothing"], "is named like nothing"),
        (["scaling", "--ladder", "exp", "--decoding", "decode_greedy/test"], "no ladder was begun there"),
    ],
)
def test_mistakes_are_one_sentence(
    work: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "analyze", [*options, "--out", "out"])[0]


def test_numbers_that_say_nothing_take_no_room() -> None:
    assert tables.within(12.34, (0.05, 3e60), 1) == "12.3 (0.1 to 3e+60)"
    assert tables.within(-12.345, (-13.0, 999999.0)) == "-12.345 (-13.000 to 999999.000)"
    assert tables.within(0.5, None) == "0.500"
