"""LoRA: peft's own model, the LLM without adapters, and the merged LLM are the truth."""

import copy

import pytest
import torch
import toy_llm
from toy_llm import END, WIDTH, gpt2
from transformers import PreTrainedModel

from asrllm.console import UserError
from asrllm.decode.beam import BeamConfig, beam_search
from asrllm.decode.packed import packed
from asrllm.decode.scorer import LlmScorer
from asrllm.models import lora
from asrllm.models.lora import LoraConfig
from asrllm.train import checkpoint

peft = pytest.importorskip("peft", reason="peft is not installed: run tools/install.sh")
IDS = torch.tensor([[5, 9, 3, 11, 2, 7]])
NAMES = {
    "all": LoraConfig(rank=4, targets="all_linear"),
    "some": LoraConfig(rank=3, alpha=5, targets=("q_proj", "v_proj")),
}


def llama() -> PreTrainedModel:
    """Tied embeddings, as small LLMs have them."""
    return toy_llm.llama(tie_word_embeddings=True)


def adapted(llm: PreTrainedModel, config: LoraConfig) -> torch.nn.Module:
    """Adapters that change the LLM, as if they were trained."""
    adapters = lora.attach(llm, config)
    for weight in adapters.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return adapters


CASES = [(llama, NAMES["all"]), (llama, NAMES["some"]), (gpt2, LoraConfig(rank=2, rslora=True, targets=("c_attn",)))]


@pytest.mark.parametrize(("make", "config"), CASES)
def test_new_adapters_change_neither_the_llm_nor_its_names(make, config):
    llm = make()
    kind, weights, logits = type(llm), checkpoint.part_weights(llm), llm(IDS).logits
    adapters = lora.attach(llm, config)
    assert type(llm) is kind and not adapters.training
    after = checkpoint.part_weights(llm)
    assert list(after) == list(weights) and all(after[name] is not None for name in after)
    assert all(after[name].equal(weights[name]) for name in weights)
    assert llm(IDS).logits.equal(logits)
    assert not {id(weight) for weight in llm.parameters()} & {id(weight) for weight in adapters.parameters()}
    assert all(weight.requires_grad for weight in [*llm.parameters(), *adapters.parameters()])


@pytest.mark.parametrize("rslora", [False, True])
def test_equals_pefts_own_model_on_the_same_weights(rslora):
    """Its adapters are read by name, so ours are stored under peft's names."""
    llm = llama()
    settings = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"], "use_rslora": rslora}
    reference = peft.get_peft_model(copy.deepcopy(llm), peft.LoraConfig(**settings)).eval()
    adapters = adapted(llm, LoraConfig(rank=3, alpha=5, rslora=rslora, targets=("q_proj", "down_proj")))
    weights = {f"base_model.model.{name}": weight for name, weight in adapters.state_dict().items()}
    assert not peft.set_peft_model_state_dict(reference, weights).unexpected_keys
    torch.testing.assert_close(llm(IDS).logits, reference(IDS).logits)


@pytest.mark.parametrize(("make", "config"), CASES)
def test_merged_gives_the_logits_of_the_adapters(make, config):
    llm = make()
    plain, names = llm(IDS).logits, list(checkpoint.part_weights(llm))
    adapted(llm, config)
    logits = llm(IDS).logits
    assert (logits - plain).abs().max() > 0.1
    lora.merge(llm)
    torch.testing.assert_close(llm(IDS).logits, logits, atol=1e-4, rtol=1e-4)
    assert list(checkpoint.part_weights(llm)) == names


@pytest.mark.parametrize(("make", "config"), CASES)
def test_parts_load_by_themselves(make, config):
    """The weights of an LLM without adapters go into one with them, and back."""
    plain, llm = make(), make()
    adapters = adapted(llm, config)
    stored = checkpoint.gather({"llm": plain}, ["llm"])
    checkpoint.load_part(llm, stored, "llm")
    assert all(weight.equal(stored[f"llm/{name}"]) for name, weight in checkpoint.part_weights(llm).items())
    other = make()
    checkpoint.load_part(other, checkpoint.gather({"llm": llm}, ["llm"]), "llm")
    assert other(IDS).logits.equal(plain(IDS).logits)
    twin = lora.attach(other, config)
    checkpoint.load_part(twin, checkpoint.gather({"llm.lora": adapters}, ["llm.lora"]), "llm.lora")
    assert other(IDS).logits.equal(llm(IDS).logits)


def test_dropout_of_adapters_acts_only_while_they_are_trained():
    llm = llama()
    adapters = adapted(llm, LoraConfig(dropout=0.5, targets="all_linear"))
    still = llm(IDS).logits
    llm.train()
    assert llm(IDS).logits.equal(still)
    adapters.train()
    llm.eval()
    assert not llm(IDS).logits.equal(still)


@pytest.mark.parametrize("on_packed_weights", [False, True])
def test_beam_on_adapters_is_beam_on_the_merged_llm(on_packed_weights):
    llm = llama()
    adapted(llm, NAMES["all"])
    embeds, lens = torch.randn(4, 9, WIDTH), torch.tensor([5, 9, 3, 7])

    def search() -> list:
        scorer = LlmScorer(llm, embeds, lens, 12)
        return beam_search({"llm": scorer}, {"llm": 1.0}, [END], [12] * 4, BeamConfig(beam=4, nbest=2))

    if on_packed_weights:
        with packed(llm):
            found = sum(search(), [])
    else:
        found = sum(search(), [])
    lora.merge(llm)
    for one, other in zip(found, sum(search(), []), strict=True):
        assert one.tokens == other.tokens
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_adapters_of_an_llm_in_bfloat16_are_trained_in_float32():
    llm = llama().bfloat16()
    adapters = adapted(llm, NAMES["some"])
    assert {weight.dtype for weight in adapters.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        llm(IDS).logits.float().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in adapters.parameters())


@pytest.mark.parametrize("name", ["query", "lm_head", "mlp"])
def test_refuses_what_is_no_layer_of_the_body(name):
    with pytest.raises(UserError, match=f"no layer of the LLM's body is called '{name}': it has down_proj, gate_proj"):
        lora.attach(llama(), LoraConfig(targets=("q_proj", name)))


def test_refuses_to_merge_what_is_no_number():
    llm = llama()
    adapters = adapted(llm, NAMES["some"])
    next(adapters.parameters()).data[0] = torch.nan
    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.q_proj is not finite"):
        lora.merge(llm)
