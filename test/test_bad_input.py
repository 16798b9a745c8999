"""Mistakes of a user, made on a finished recipe: one sentence, exit code 1 or 2, nothing half-written."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
from toy_corpus import decode_options, refused, rewrite, train_options

from asrllm import console

NEW = "exp/new"


def add_line(text: str) -> None:
    """Put a line of YAML below the encoder's configuration."""
    with Path("conf/train_encoder.yaml").open("a") as stream:
        stream.write(text)


def drop_weight(path: Path, name: str) -> None:
    tensors = safetensors.torch.load_file(path)
    del tensors[name]
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def other_units() -> None:
    """A tokenizer of another kind in place of the one that the encoder was trained with."""
    Path("conf/tokenizer.yaml").write_text("tokenizer: {type: character}\n")
    main = importlib.import_module("asrllm.bin.train_tokenizer").main
    main(["--config", "conf/tokenizer.yaml", "--text", "dump/train/text", "--out", "exp/tokenizer"])


def phases(phase: str) -> list[str]:
    """Options for a stage of one phase."""
    return ["--set", f"stage.phases=[{{{phase}}}]"]


ENCODER = Path("exp/train_encoder/weights.safetensors")
TRAINING = {
    "no YAML": ("train_nothing", lambda: None, [], "conf/train_nothing.yaml: no such configuration file"),
    "unknown key": ("train_encoder", lambda: add_line("trian: {}\n"), [], "trian: unknown key (did you mean 'train'?)"),
    "unknown key deep": (
        "train_encoder",
        lambda: None,
        ["--set", "model.encoder.layer=3"],
        "model.encoder.conformer.layer: unknown key (did you mean 'layers'?)",
    ),
    "doubled key": (
        "train_encoder",
        lambda: add_line("stage: {}\n"),
        [],
        "conf/train_encoder.yaml: line 11: key 'stage' is given twice: keep one of them",
    ),
    "wrong type": (
        "train_encoder",
        lambda: None,
        ["--set", "train.seed=one"],
        "train.seed: input should be a valid integer, found 'one'",
    ),
    "not a pair": ("train_encoder", lambda: None, ["--set", "train.seed"], "--set train.seed: expected key.sub=value"),
    "other config": (
        "train_encoder",
        lambda: shutil.copytree("exp/train_encoder", NEW) and (Path(NEW) / "summary.json").unlink(),
        ["--set", "train.seed=5"],
        "exp/new: a run of another configuration is here (train.seed was 1, is now 5): restore",
    ),
    "finished with other config": (
        "train_encoder",
        lambda: shutil.copytree("exp/train_encoder", NEW),
        ["--set", "train.seed=5"],
        "exp/new: ",
    ),
    "other shape": (
        "train_align_posterior",
        lambda: None,
        ["--set", "model.encoder.kernel=5"],
        "exp/train_encoder/weights.safetensors: the weights of part 'encoder' do not fit this configuration: "
        "of another shape: blocks.0.convolution.depthwise.weight (found (32, 1, 7), expected (32, 1, 5))",
    ),
    "other units": ("train_align_linear", other_units, [], "stage.init.ctc: exp/train_encoder/tokenizer/"),
    "posterior wants subset": (
        "train_align_posterior",
        other_units,
        [],
        "projector.type posterior wants CTC units of the LLM",
    ),
    "init not trained": (
        "train_align_posterior",
        lambda: None,
        ["--set", "stage.init.encoder=exp/nowhere"],
        "exp/nowhere/weights.safetensors: no such weights file: train that experiment first",
    ),
    "missing weight": (
        "train_align_posterior",
        lambda: drop_weight(ENCODER, "ctc/out.bias"),
        [],
        f"{ENCODER}: the weights of part 'ctc' do not fit this configuration: missing: out.bias",
    ),
    "corrupt weights": (
        "train_align_posterior",
        lambda: os.truncate(ENCODER, 1000),
        [],
        f"{ENCODER}: not a whole safetensors file",
    ),
    "no GPU": ("train_encoder", lambda: None, ["--ngpu", "99"], "--ngpu 99: this machine has"),
    "unknown part": (
        "train_encoder",
        lambda: None,
        ["--set", "stage.init.adapter=exp/train_encoder"],
        "stage.init: the model has no part 'adapter': its parts are encoder, ctc",
    ),
    "unknown loss": (
        "train_encoder",
        lambda: rewrite(
            "conf/train_encoder.yaml", lambda lines: [x.replace("{ctc: 1.0}", "{cct: 1.0}") for x in lines]
        ),
        [],
        "stage.phases.0.losses: this model has no loss 'cct': it has ctc",
    ),
    "coarse LLM": (
        "train_align_posterior",
        lambda: None,
        ["--set", "model.llm.dtype=bf16", *phases("steps: 1, train: {llm: 1.0e-5}, losses: {llm: 1.0}")],
        "stage.phases.0.train: llm, whose weights model.llm.dtype keeps in bf16, too coarse for updates of usual rates",
    ),
    "no LLM": (
        "train_align_posterior",
        lambda: shutil.rmtree("llm"),
        [],
        "llm: no causal LLM loads from this folder, file or hub id",
    ),
    "corrupt LLM": (
        "train_align_posterior",
        lambda: os.truncate("llm/model.safetensors", 1000),
        [],
        "llm: no causal LLM loads from this folder, file or hub id",
    ),
    "no tokenizer": (
        "train_encoder",
        lambda: shutil.rmtree("exp/tokenizer"),
        [],
        "exp/tokenizer: no tokenizer there: run stage 3 (train_tokenizer) first",
    ),
    "no data": ("train_encoder", lambda: shutil.rmtree("dump/train"), [], "dump/train: no such data directory"),
    "no transcripts": (
        "train_encoder",
        lambda: Path("dump/dev/text").unlink(),
        [],
        "dump/dev: no transcripts in it: training and validation want a `text` file",
    ),
    "LLM lacks a weight": (
        "train_align_posterior",
        lambda: drop_weight(Path("llm/model.safetensors"), "model.norm.weight"),
        [],
        "llm: weights are missing or do not fit its config.json: model.norm.weight: fetch it again",
    ),
    "LLM of another shape": (
        "train_align_posterior",
        lambda: rewrite("llm/config.json", lambda lines: [x.replace(" 64,", " 48,") for x in lines]),
        [],
        "llm: weights are missing or do not fit its config.json: model.layers.0.mlp.down_proj.weight, ",
    ),
    "part that is not there": (
        "train_encoder",
        lambda: None,
        phases("steps: 1, train: {adapter: 1.0}, losses: {ctc: 1.0}"),
        "stage.phases.0.train: the model has no part 'adapter': its parts are encoder, ctc",
    ),
    "loss without its part": (
        "train_encoder",
        lambda: None,
        phases("steps: 1, train: {ctc: 1.0}, losses: {llm: 1.0}"),
        "stage.phases.0.losses: this model has no loss 'llm': it has ctc",
    ),
    "attention without a decoder": (
        "train_encoder",
        lambda: None,
        phases("steps: 1, train: {ctc: 1.0}, losses: {attention: 1.0}"),
        "stage.phases.0.losses: this model has no loss 'attention': it has ctc",
    ),
    "empty phase": (
        "train_encoder",
        lambda: None,
        phases("steps: 1, train: {}, losses: {ctc: 1.0}"),
        "stage.phases.0.train: name at least one",
    ),
    "no phase": ("train_encoder", lambda: None, ["--set", "stage.phases=[]"], "stage.phases: "),
    "budget of zero": (
        "train_encoder",
        lambda: None,
        phases("steps: 0, train: {ctc: 1.0}, losses: {ctc: 1.0}"),
        "stage.phases.0.steps: input should be greater than or equal to 1, found 0",
    ),
    "no snapshots": (
        "train_iasft",
        lambda: shutil.rmtree("exp/train_encoder/snapshots"),
        [],
        "exp/train_encoder/snapshots: holds no snapshots to swap encoders with: pretrain with train.snapshot_every",
    ),
    "no pretraining": (
        "train_iasft",
        lambda: shutil.rmtree("exp/train_encoder"),
        ["--set", "stage.init={encoder: exp/train_joint, ctc: exp/train_joint}"],
        "exp/train_encoder: no pretraining there to take encoders from: start it first (stage 4)",
    ),
    "pretraining goes on": (
        "train_iasft",
        lambda: Path("exp/train_encoder/summary.json").unlink(),
        [],
        "exp/train_encoder: the pretraining has not ended: let it end first, or take mode: online",
    ),
    "swaps of a cached encoder": (
        "train_iasft",
        lambda: None,
        ["--set", "data.cache_frames=true"],
        "stage.phases.0.encoder_swaps: encoder outputs are cached (data.cache_frames), but the encoder changes",
    ),
    "snapshot of another shape": (
        "train_iasft",
        lambda: None,
        ["--set", "model.encoder.kernel=5"],
        "the weights of part 'encoder' do not fit this configuration: of another shape: blocks.0.convolution.depthwise",
    ),
    "longer than a batch": (
        "train_encoder",
        lambda: None,
        ["--set", "data.batch.max_seconds=1.0"],
        "(data.batch.max_seconds 1), as have ",
    ),
    "archive cut off": (
        "train_align_posterior",
        lambda: (os.truncate("dump/train/audio.ark", 100000), shutil.rmtree("exp/frames")),
        [],
        "dump/train/audio.ark:",
    ),
}


@pytest.mark.parametrize("name", TRAINING)
def test_training(work: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    stage, spoil, options, sentence = TRAINING[name]
    spoil()
    error, _ = refused(capsys, "train", [*train_options(stage, NEW), *options])
    assert sentence in error


def test_a_run_stopped_before_its_first_checkpoint_may_be_started_otherwise(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Audio that is gone shows in the first batch; until then there is a configuration, but nothing trained by it."""
    archive = Path("dump/train/audio.ark").read_bytes()
    Path("dump/train/audio.ark").unlink()
    main = importlib.import_module("asrllm.bin.train").main
    with pytest.raises(SystemExit) as end:
        console.run(lambda: main(train_options("train_encoder", NEW)))
    assert end.value.code == 1
    assert "dump/train/audio.ark:" in capsys.readouterr().err
    assert not list(Path(NEW).rglob("*.safetensors"))
    Path("dump/train/audio.ark").write_bytes(archive)
    steps = "stage.phases=[{steps: 3, train: {ctc: 0.1}, losses: {ctc: 1.0}}]"
    main([*train_options("train_encoder", NEW), "--set", steps])
    assert (Path(NEW) / "weights.safetensors").exists()


DECODING = {
    "training has not ended": (
        "decode",
        lambda: Path("exp/train_joint/weights.safetensors").unlink(),
        decode_options("decode_beam", "exp/train_joint", "new"),
        "exp/train_joint/weights.safetensors: no such weights file: train that experiment first",
    ),
    "no experiment": (
        "decode",
        lambda: None,
        decode_options("decode_beam", "exp/nowhere", "new"),
        "exp/nowhere: not an experiment (no config.yaml): train it first (stages 4 to 7)",
    ),
    "no LLM in it": (
        "decode",
        lambda: None,
        decode_options("decode_beam", "exp/train_encoder", "new"),
        "has no LLM",
    ),
    "weight missing": (
        "decode",
        lambda: drop_weight(Path("exp/train_joint/weights.safetensors"), "projector/offset"),
        decode_options("decode_ctc", "exp/train_joint", "new"),
        "exp/train_joint/weights.safetensors: the weights of part 'projector' do not fit this configuration: missing: ",
    ),
    "weights corrupt": (
        "decode",
        lambda: Path("exp/train_joint/weights.safetensors").write_bytes(b"\x08" * 5000),
        decode_options("decode_ctc", "exp/train_joint", "new"),
        "exp/train_joint/weights.safetensors: not a whole safetensors file",
    ),
    "wrong shard": (
        "decode",
        lambda: None,
        [*decode_options("decode_ctc", "exp/train_joint", "new"), "--shard", "3/2"],
        "--shard 3/2: expected K/N with 1 <= K <= N, such as 1/4",
    ),
    "no GPU": (
        "decode",
        lambda: None,
        [*decode_options("decode_ctc", "exp/train_joint", "new"), "--ngpu", "99"],
        "--ngpu 99: this machine has",
    ),
    "unknown search": (
        "decode",
        lambda: None,
        [*decode_options("decode_ctc", "exp/train_joint", "new"), "--set", "search.type=beem"],
        "conf/decode_ctc.yaml: 1 fault(s)\n  search.type: expected one of ",
    ),
    "shard missing": (
        "score",
        lambda: Path("exp/train_joint/decode_ctc/test/hyp.1of1.jsonl").rename(
            "exp/train_joint/decode_ctc/test/hyp.1of2.jsonl"
        ),
        ["--config", "conf/score.yaml", "--ref", "dump/test", "--hyp", "exp/train_joint/decode_ctc/test"],
        "exp/train_joint/decode_ctc/test: hyp.2of2.jsonl is missing: run the decoding (stage 8) again",
    ),
    "shard cut off": (
        "score",
        lambda: os.truncate("exp/train_joint/decode_ctc/test/hyp.1of1.jsonl", 300),
        ["--config", "conf/score.yaml", "--ref", "dump/test", "--hyp", "exp/train_joint/decode_ctc/test"],
        "exp/train_joint/decode_ctc/test/hyp.1of1.jsonl: line ",
    ),
    "text not UTF-8": (
        "train_tokenizer",
        lambda: Path("dump/train/text").write_bytes(b"s0-train00 caf\xe9\n"),
        ["--config", "conf/tokenizer.yaml", "--text", "dump/train/text", "--out", "new"],
        "dump/train/text: ",
    ),
    "no LLM for the units": (
        "train_tokenizer",
        lambda: shutil.rmtree("llm"),
        ["--config", "conf/tokenizer.yaml", "--text", "dump/train/text", "--out", "new"],
        "llm: no tokenizer loads from this folder, file or hub id",
    ),
    "nothing to average": (
        "average",
        lambda: None,
        ["--exp", "exp/typo", "--out", "new.safetensors"],
        "exp/typo: no experiment with checkpoints there",
    ),
    "nothing scored": (
        "report",
        lambda: None,
        ["--exp", "dump", "--out", "new/RESULTS.md"],
        "dump: no score.json in any decoding: run the scoring (stage 9) first",
    ),
}


@pytest.mark.parametrize("name", DECODING)
def test_other_programs(work: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    program, spoil, options, sentence = DECODING[name]
    spoil()
    error, _ = refused(capsys, program, options)
    assert sentence in error


@pytest.mark.parametrize("program", ["check_data", "train_tokenizer", "train", "decode", "score", "report", "average"])
def test_an_option_that_does_not_exist(work: Path, capsys: pytest.CaptureFixture[str], program: str) -> None:
    needed = {
        "check_data": ["data/dev"],
        "train_tokenizer": ["--config", "conf/tokenizer.yaml", "--text", "dump/train/text", "--out", "new"],
        "train": train_options("train_encoder", NEW),
        "decode": decode_options("decode_ctc", "exp/train_encoder", "new"),
        "score": ["--config", "conf/score.yaml", "--ref", "dump/test", "--hyp", "exp/train_joint/decode_ctc/test"],
        "report": ["--exp", "exp", "--out", "new.md"],
        "average": ["--exp", "exp/train_encoder", "--out", "new.safetensors"],
    }[program]
    error, _ = refused(capsys, program, [*needed, "--no_such_option", "1"], code=2)
    assert "unrecognized arguments: --no_such_option 1" in error


def test_a_process_of_its_own_says_the_same(work: Path, root: Path) -> None:
    """The exit code and stderr that a shell sees: a wrong key, an unknown option, weights that are gone."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    ENCODER.unlink()
    cases = {
        ("train", *train_options("train_encoder", NEW), "--set", "train.sead=1"): (
            "train: error: conf/train_encoder.yaml: 1 fault(s)\n  train.sead: unknown key (did you mean 'seed'?)\n"
        ),
        ("decode", *decode_options("decode_ctc", "exp/train_encoder", "new")): (
            f"decode: error: {ENCODER}: no such weights file: train that experiment first\n"
        ),
    }
    for (program, *options), said in cases.items():
        command = [sys.executable, "-m", f"asrllm.bin.{program}", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, said)
    assert not Path("new").exists() and not Path(NEW).exists()
