"""Fusion, rescoring and tuning as programs, on the toy recipe: decode, rescore, tune, apply; and what they refuse."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from toy_corpus import decode_options, inside, refused, tree

from asrllm.bin import decode, estimate_prior, rescore, score, tune
from asrllm.data import kaldi
from asrllm.data.dataset import Dataset
from asrllm.decode.ctc_search import CtcPrefixConfig, prefix_beam_search
from asrllm.experiment import Experiment
from asrllm.hypothesis import NBest, read_decoding

EXP = "exp/train_joint"
WEIGHTS = "weights: {ctc: 1.0, lm: 0.3, prior: -0.2, length: 0.5}"
FUSION = (
    f"{{type: ctc_fusion, beam: 6, nbest: 6, lm: {{model: llm}}, trigger: {{type: TRIGGER}}, units: text, {WEIGHTS}}}"
)
FILES = {
    "decode_nbest": "search: {type: ctc_prefix, beam: 6, nbest: 6}",
    "decode_end": f"search: {FUSION.replace('TRIGGER', 'end')}",
    "decode_label": f"search: {FUSION.replace('TRIGGER', 'label').replace('text', 'labels')}",
    "rescore_lm": f"scorers: {{lm: {{type: lm, model: llm}}, prior: {{type: prior}}}}\n{WEIGHTS}",
    "rescore_all": "scorers: {llm: {type: speech_llm}, full: {type: ctc}}\nweights: {llm: 1.0, full: 0.5}",
    "rescore_order": "weights: {ctc: 1.0}",
    "tune_lm": "weights: {ctc: 1.0, lm: {low: 0.0, high: 1.0, points: 5}, length: {low: 0.0, high: 2.0, points: 5}}",
}


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy recipe with N-best lists of its CTC head, and a prior; not to be changed."""
    folder = tmp_path_factory.mktemp("lists") / "recipe"
    shutil.copytree(recipe, folder)
    with inside(folder):
        for name, text in FILES.items():
            Path(f"conf/{name}.yaml").write_text(text + "\n")
        estimate_prior.main(["--exp", EXP, "--data", "dump/train"])
        decode.main(decode_options("decode_nbest", EXP, "nbest"))
    return folder


@pytest.fixture
def lists(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in or to spoil, and the working directory."""
    folder = tmp_path / "recipe"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def options(name: str, decoding: str = "nbest", out: str = "new") -> list[str]:
    return f"--config conf/{name}.yaml --in {decoding} --out {out} --exp {EXP} --data dump/test".split()


def tune_options(decoding: str = "rescored", out: str = "new/tuned.yaml") -> list[str]:
    return f"--config conf/tune_lm.yaml --in {decoding} --ref dump/test --out {out}".split()


def same(one: dict[str, NBest], other: dict[str, NBest]) -> None:
    assert list(one) == list(other) and one
    for left, right in zip(one.values(), other.values(), strict=True):
        assert [each.text for each in left.hypotheses] == [each.text for each in right.hypotheses]
        for first, second in zip(left.hypotheses, right.hypotheses, strict=True):
            assert first.scores == pytest.approx(second.scores, abs=1e-3)
            assert first.score == pytest.approx(second.score, abs=1e-3)


def test_delayed_fusion_at_the_end_is_rescoring(lists: Path) -> None:
    decode.main(decode_options("decode_end", EXP, "end"))
    rescore.main(options("rescore_lm"))
    same(read_decoding(Path("end")), read_decoding(Path("new")))
    speed = [json.loads(Path(folder, "speed.1of1.json").read_text()) for folder in ("end", "new")]
    assert speed[0]["lm_calls"] == speed[1]["lm_calls"] == 12 and speed[0]["lm_tokens"] == speed[1]["lm_tokens"] > 0


def test_label_wise_does_not_depend_on_batch_mates(lists: Path) -> None:
    decode.main(decode_options("decode_label", EXP, "together"))
    decode.main([*decode_options("decode_label", EXP, "alone"), "--set", "batch_seconds=0.1"])
    same(read_decoding(Path("together")), read_decoding(Path("alone")))


def test_the_speech_llm_finds_the_scores_of_its_own_search(lists: Path) -> None:
    rescore.main(options("rescore_all", f"{EXP}/decode_beam/test"))
    for result in read_decoding(Path("new")).values():
        assert len(result.hypotheses) == 2 and result.counts["lm_calls"] == 1
        for each in result.hypotheses:
            assert each.ended and set(each.scores) == {"llm", "full", "length"}
            assert each.score == pytest.approx(each.scores["llm"] + 0.5 * each.scores["full"], abs=1e-6)
    before = read_decoding(lists / EXP / "decode_beam/test")
    after = read_decoding(Path("new"))
    rated = {(key, one.text): one.scores["llm"] for key, each in after.items() for one in each.hypotheses}
    canonical = Experiment(Path(EXP)).model().llm_tokenizer.encode_transcript
    compared = 0
    for key, each in before.items():
        for one in each.hypotheses:
            if one.tokens == canonical(one.text):  # other tokens of the same text have another probability
                compared += 1
                assert rated[key, one.text] == pytest.approx(one.scores["llm"], abs=1e-3)
    assert compared >= 12


def test_weights_tuned_on_one_set_are_applied_without_a_model(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rescore.main(options("rescore_lm", out="rescored"))
    tune.main(tune_options())
    table = capsys.readouterr().out
    assert table.startswith("as the lists are ordered") and "other weights as found" in table
    assert Path("new/tuned.png").read_bytes().startswith(b"\x89PNG")
    shutil.rmtree("llm")
    rescore.main(["--config", "new/tuned.yaml", "--in", "rescored", "--out", "applied"])
    score.main(["--config", "conf/score.yaml", "--ref", "dump/test", "--hyp", "applied"])
    told = next(line for line in table.splitlines() if line.startswith("with the weights found"))
    errors = int(told.split("[ ")[1].split()[0])
    assert f"[ {errors} / " in capsys.readouterr().out


@pytest.mark.parametrize("base", ["rescore_lm", "decode_end"])
def test_tuned_weights_go_into_the_yaml_of_a_rescoring_or_a_search(lists: Path, base: str) -> None:
    rescore.main(options("rescore_lm", out="rescored"))
    tune.main([*tune_options(), "--base", f"conf/{base}.yaml"])
    found = yaml.safe_load(Path("new/tuned.yaml").read_text())
    assert found["base"] == f"../conf/{base}.yaml"
    if base == "decode_end":
        decode.main(["--config", "new/tuned.yaml", "--data", "dump/test", "--out", "again"] + ["--exp", EXP])
        found = found["search"]
    else:
        rescore.main(["--config", "new/tuned.yaml", "--in", "nbest", "--out", "again", "--exp"] + [EXP])
    for result in read_decoding(Path("again")).values():
        weights = {"prior": -0.2} | found["weights"]  # what was not tuned stays
        for each in result.hypotheses:
            assert each.score == pytest.approx(sum(w * each.scores[k] for k, w in weights.items()), abs=1e-6)


def test_a_second_rescoring_has_nothing_to_do(lists: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rescore.main(options("rescore_lm"))
    before = tree(Path("new"))
    rescore.main(options("rescore_lm"))
    assert "rescored before, nothing to do" in caplog.text and tree(Path("new")) == before
    decode.main([*decode_options("decode_nbest", EXP, "nbest"), "--set", "search.beam=7"])
    rescore.main(options("rescore_lm"))
    assert caplog.text.count("rescored before") == 1


def test_flashlight_text_finds_the_same_in_real_posteriors(lists: Path) -> None:
    """The trained encoder's posteriors of the test set; a unit that is a word of the toy language."""
    decoder = pytest.importorskip("flashlight.lib.text.decoder", reason="pip install flashlight-text")
    model = Experiment(Path(EXP)).model()
    dataset = Dataset(kaldi.read(Path("dump/test")), 16000)
    for place in range(len(dataset)):
        with torch.inference_mode():
            log_probs, lens = model.ctc_log_probs(dataset.batch([place], 0))
        (found,) = prefix_beam_search(log_probs, lens, CtcPrefixConfig(beam=20, labels_per_frame=20))
        settings = decoder.LexiconFreeDecoderOptions(40, 40, 1e9, 0.0, 0.0, True, decoder.CriterionType.CTC)
        search = decoder.LexiconFreeDecoder(settings, decoder.ZeroLM(), -1, 0, [])
        frames = log_probs[0].contiguous()
        best = max(search.decode(frames.data_ptr(), *frames.shape), key=lambda each: each.score)
        assert found[0].log_prob == pytest.approx(best.score, abs=1e-2)


def cut(path: str, size: int) -> None:
    os.truncate(path, size)


SHARD = "nbest/hyp.1of1.jsonl"
REFUSED = {
    "weight without a score": (
        "rescore",
        lambda: None,
        [*options("rescore_order"), "--set", "weights.llm=0.5"],
        "weights.llm: utterance s0-test00 has no score of that name, only ctc, length: add a scorer of that name",
    ),
    "no weights": ("rescore", lambda: None, [*options("rescore_order"), "--set", "weights={}"], "at least 1 item"),
    "a scorer that does not exist": (
        "rescore",
        lambda: None,
        [*options("rescore_order"), "--set", "scorers.x.type=lmm"],
        "conf/rescore_order.yaml: 1 fault(s)\n  scorers.x.type: expected one of ",
    ),
    "cut in the middle": ("rescore", lambda: cut(SHARD, 1000), options("rescore_lm"), f"{SHARD}: line "),
    "no hypothesis": (
        "rescore",
        lambda: Path(SHARD).write_text('{"utt_id": "s0-test00", "seconds": 1.0, "hypotheses": []}\n'),
        options("rescore_lm"),
        f"{SHARD}: line 1: utterance s0-test00 has no hypothesis: decode again",
    ),
    "no utterance": ("rescore", lambda: Path(SHARD).write_text(""), options("rescore_lm"), "nbest: no utterance in it"),
    "no lists": ("rescore", lambda: shutil.rmtree("nbest"), options("rescore_lm"), "nbest: no hyp.*.jsonl in it"),
    "onto itself": ("rescore", lambda: None, options("rescore_order", out="nbest"), "--out nbest: the lists there"),
    "no experiment named": (
        "rescore",
        lambda: None,
        ["--config", "conf/rescore_all.yaml", "--in", "nbest", "--out", "new"],
        "scorers.llm: type speech_llm wants --exp, which is not given",
    ),
    "experiment without LLM": (
        "rescore",
        lambda: None,
        [each.replace(EXP, "exp/train_encoder") for each in options("rescore_all")],
        "scorers.llm: exp/train_encoder: its model has no LLM",
    ),
    "other audio": (
        "rescore",
        lambda: None,
        [each.replace("dump/test", "dump/dev") for each in options("rescore_all")],
        "dump/dev: 12 utterances of the decoding are not in it, such as s0-test00",
    ),
    "no prior": (
        "rescore",
        lambda: Path(EXP, "prior.json").unlink(),
        options("rescore_lm"),
        f"{EXP}/prior.json: no label prior there: run asrllm.bin.estimate_prior on the training data",
    ),
    "prior of other units": (
        "decode",
        lambda: Path(EXP, "prior.json").write_text('{"log_prior": [0.0, -1.0]}'),
        decode_options("decode_end", EXP, "new"),
        f"{EXP}/prior.json: found 2 numbers, expected a finite one for each of ",
    ),
    "prior that is no JSON": (
        "decode",
        lambda: cut(f"{EXP}/prior.json", 20),
        decode_options("decode_end", EXP, "new"),
        f"{EXP}/prior.json: not a label prior (",
    ),
    "a beam of 0": (
        "decode",
        lambda: None,
        [*decode_options("decode_nbest", EXP, "new"), "--set", "search.beam=0"],
        "search.ctc_prefix.beam: input should be greater than or equal to 1, found 0",
    ),
    "a weight of fusion that there is not": (
        "decode",
        lambda: None,
        [*decode_options("decode_end", EXP, "new"), "--set", "search.weights.llm=1.0"],
        "search.ctc_fusion.weights.llm: unknown key",
    ),
    "an LM that is not there": (
        "decode",
        lambda: None,
        [*decode_options("decode_end", EXP, "new"), "--set", "search.lm.model=nowhere"],
        "nowhere: no causal LLM loads from this folder, file or hub id",
    ),
    "an end of several tokens": (
        "decode",
        lambda: None,
        [*decode_options("decode_end", EXP, "new"), "--set", "search.lm.end='red blue'"],
        "lm.end 'red blue' is ",
    ),
    "tuned on other references": (
        "tune",
        lambda: None,
        [each.replace("dump/test", "dump/dev") for each in tune_options("nbest")],
        "no utterance in common: the 4 references begin with ",
    ),
    "tuned without the score": ("tune", lambda: None, tune_options("nbest"), "weights.lm: utterance s0-test00 has no"),
    "tuned for another program": (
        "tune",
        lambda: None,
        [*tune_options("nbest"), "--base", "conf/score.yaml"],
        "conf/score.yaml: ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(lists: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    program, spoil, arguments, sentence = REFUSED[name]
    spoil()
    error, _ = refused(capsys, program, arguments)
    assert sentence in error


def test_units_that_are_no_tokens_of_the_lm(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An LM with a token of another name."""
    shutil.copytree("llm", "other")
    saved = json.loads(Path("other/tokenizer.json").read_text())
    saved["model"]["vocab"] = {key + "x" * (value == 200): value for key, value in saved["model"]["vocab"].items()}
    saved["model"]["merges"] = []
    Path("other/tokenizer.json").write_text(json.dumps(saved))
    error, _ = refused(
        capsys, "decode", [*decode_options("decode_label", EXP, "new"), "--set", "search.lm.model=other"]
    )
    assert "search.units labels: the CTC units are no tokens of other: take units: text with a delayed trigger" in error
