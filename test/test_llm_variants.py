"""The programs on other LLMs than a frozen pretrained one (cross-attention, random, recomputed), and on features."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from toy_corpus import decode_options, train_options

from asrllm.bin import decode, train
from asrllm.hypothesis import read_decoding

CROSS = """
base: train_align_linear.yaml
model:
  interface: {type: cross_attention, every: 1, heads: 4, feed_forward: 32}
  prompt: {template: "red<speech> blue"}
stage:
  phases:
    - {steps: 20, train: {projector: 1.0e-2, cross: 1.0e-2}, losses: {llm: 1.0}}
"""
RANDOM = """
base: train_align_linear.yaml
model: {llm: {init: random, seed: 7}}
stage:
  phases:
    - {steps: 3, train: {projector: 1.0e-3}, losses: {llm: 1.0}}
"""
FBANK = """
base: train_align_linear.yaml
model: {encoder: {type: fbank}}
stage:
  init: {encoder: null, ctc: null}
  phases:
    - {steps: 3, train: {projector: 1.0e-3}, losses: {llm: 1.0}}
"""


def trained(name: str, text: str, *options: str) -> dict[str, torch.Tensor]:
    """The weights of an experiment."""
    Path(f"conf/{name}.yaml").write_text(text)
    train.main([*train_options(name), *options])
    return safetensors.torch.load_file(f"exp/{name}/weights.safetensors")


def parts(weights: dict[str, torch.Tensor]) -> set[str]:
    return {key.partition("/")[0] for key in weights}


def test_cross_attention_trains_and_decodes(work: Path) -> None:
    weights = trained("cross", CROSS)
    assert parts(weights) == {"encoder", "ctc", "projector", "cross"}
    assert all(value != 0 for key, value in weights.items() if key.endswith("gate"))
    decode.main(decode_options("decode_beam", "exp/cross"))
    decode.main([*decode_options("decode_beam", "exp/cross", "alone"), "--set", "batch_seconds=0.1"])
    together, alone = read_decoding(Path("exp/cross/decode_beam/test")), read_decoding(Path("alone"))
    assert len(together) == 12
    for utt_id, result in together.items():
        assert [each.tokens for each in result.hypotheses] == [each.tokens for each in alone[utt_id].hypotheses]
        scores = [[each.score for each in found.hypotheses] for found in (result, alone[utt_id])]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_random_weights_are_stored_since_nothing_else_holds_them(work: Path) -> None:
    assert parts(trained("random", RANDOM)) == {"encoder", "ctc", "projector", "llm"}
    decode.main(decode_options("decode_greedy", "exp/random"))


def test_features_in_the_place_of_an_encoder_take_nothing_from_that_of_the_base(work: Path) -> None:
    assert parts(trained("fbank", FBANK)) == {"encoder", "ctc", "projector"}
    decode.main(decode_options("decode_greedy", "exp/fbank"))


def test_recomputed_activations_train_the_same_weights(work: Path) -> None:
    joint = RANDOM.replace("{projector: 1.0e-3}", "{encoder: 1.0e-4, projector: 1.0e-3, llm: 1.0e-4}")
    joint += "data: {cache_frames: false}\n"
    kept = trained("kept", joint)
    again = trained("again", joint, "--set", "model.recompute=[encoder,llm]")
    assert kept.keys() == again.keys()
    assert all(again[key].equal(kept[key]) for key in kept)
