"""An experiment with adapters: trained on top of one without, merged, and refused where merging would change it."""

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from toy_corpus import decode_options, train_options, tree
from transformers import AutoModelForCausalLM

from asrllm.bin import decode, merge, train
from asrllm.console import UserError
from asrllm.hypothesis import read_decoding

pytest.importorskip("peft", reason="peft is not installed: run tools/install.sh")
LORA = """
base: train_align_posterior.yaml
model: {llm: {lora: {rank: 4, targets: all_linear, dropout: 0.1}}}
stage:
  init: {encoder: exp/train_encoder, ctc: exp/train_encoder, projector: exp/train_joint, llm: exp/train_joint}
  phases:
    - {steps: 10, train: {llm.lora: 3.0e-3}, losses: {llm: 1.0}}
"""
OPTIONS = ["--exp", "exp/lora", "--data", "dump/dev"]


@pytest.fixture
def lora(work: Path) -> Path:
    """A recipe's folder in which exp/lora was trained."""
    Path("conf/lora.yaml").write_text(LORA)
    train.main(train_options("lora", "exp/lora"))
    return work


def weights(exp: str) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(f"{exp}/weights.safetensors")


def test_trained_on_an_llm_without_adapters_then_merged(lora: Path) -> None:
    joint, adapted = weights("exp/train_joint"), weights("exp/lora")
    assert {key.partition("/")[0] for key in adapted} == {"encoder", "ctc", "projector", "llm", "llm.lora"}
    assert all(adapted[key].equal(value) for key, value in joint.items())
    merge.main([*OPTIONS, "--out", "exp/merged", "--llm", "merged_llm"])
    merged = weights("exp/merged")
    assert merged.keys() == joint.keys()
    moved = {key for key in joint if not merged[key].equal(joint[key])}
    assert moved == {key for key in joint if key.endswith("_proj.weight")}
    for exp in ("exp/lora", "exp/merged"):
        decode.main(decode_options("decode_beam", exp))
    one, other = (read_decoding(Path(f"{exp}/decode_beam/test")) for exp in ("exp/lora", "exp/merged"))
    for utt_id in one | other:
        assert [each.tokens for each in one[utt_id].hypotheses] == [each.tokens for each in other[utt_id].hypotheses]
    alone = AutoModelForCausalLM.from_pretrained("merged_llm").state_dict()
    assert all(alone[key.removeprefix("llm/")].equal(merged[key]) for key in merged if key.startswith("llm/"))


def test_refuses_and_writes_nothing(lora: Path) -> None:
    shutil.copytree("dump/dev", "dump/silent", ignore=shutil.ignore_patterns("text"))
    before = tree(lora)
    wrong = {
        "above --tolerance 0": [*OPTIONS, "--out", "exp/merged", "--tolerance", "0"],
        "is there already": [*OPTIONS, "--out", "exp/train_joint"],
        "has no adapters": ["--exp", "exp/train_joint", "--data", "dump/dev", "--out", "exp/merged"],
        "nothing to write": OPTIONS,
        "no utterance with a transcript": ["--exp", "exp/lora", "--data", "dump/silent", "--out", "exp/merged"],
    }
    for said, options in wrong.items():
        with pytest.raises(UserError, match=said):
            merge.main(options)
    assert tree(lora) == before
