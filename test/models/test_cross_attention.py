"""Cross-attention: the LLM alone at the start; then each utterance alone, and the whole sequence at every step."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toy_speech_llm import WIDTH, batch, gpt2, llama, model, rows_of
from transformers import PreTrainedModel

from asrllm.console import UserError
from asrllm.decode.beam import BeamConfig, beam_search
from asrllm.decode.scorer import LlmScorer
from asrllm.models import lora, packing
from asrllm.models.cross_attention import CrossAttention, CrossAttentionConfig
from asrllm.models.lora import LoraConfig
from asrllm.models.speech_llm import SpeechLLM

CONFIG = CrossAttentionConfig(type="cross_attention", every=1, heads=4, feed_forward=24)


def crossed(llm: PreTrainedModel, projector: str = "linear") -> SpeechLLM:
    """A model whose blocks change what the LLM says, as if they were trained."""
    cross = CrossAttention(CONFIG, llm)
    for block in cross.blocks:
        torch.nn.init.constant_(block.gate, 0.7)
        torch.nn.init.constant_(block.feed_gate, -0.5)
    torch.nn.init.normal_(cross.silence)
    system = model(llm, projector)
    system.cross = cross.eval()
    return system


def alone(system: SpeechLLM, speech: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Logits (L, V) of text that hears speech (P, H): no batch, no row, no cache."""
    heard = system.cross.listen(speech[None], torch.tensor([len(speech)]))
    return system.llm(torch.tensor([ids]), heard=heard).logits[0]


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("every", [1, 2])
def test_begins_as_the_llm_on_text_alone(make, every):
    llm, ids = make(), torch.tensor([[3, 7, 1], [9, 4, 4]])
    wanted, names = llm(ids).logits, list(llm.state_dict())
    cross = CrossAttention(CrossAttentionConfig(type="cross_attention", every=every), llm)
    heard = cross.listen(torch.randn(2, 5, WIDTH), torch.tensor([5, 0]))
    assert len(cross.blocks) == len(heard.keys) == 2 // every
    assert llm(ids, heard=heard).logits.equal(wanted)
    assert llm(ids).logits.equal(wanted)
    assert list(llm.state_dict()) == names


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("projector", ["linear", "posterior"])
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_loss_and_gradient_are_those_of_each_utterance_alone(make, projector, at_once, monkeypatch):
    """The second utterance is too short for any speech position."""
    lay_out = packing.lay_out
    monkeypatch.setattr(packing, "lay_out", lambda *settings: lay_out(*settings, at_once))
    system = crossed(make(), projector)
    whole = batch([9000, 900, 16000], ["abc", "dddd", "e"])
    weights = [*system.cross.parameters(), *system.projector.parameters(), *system.llm.base_model.parameters()]
    got = system(whole, ("llm",))["llm"]
    found = torch.autograd.grad(got.sum, weights)
    total = torch.zeros(())
    for one in rows_of(whole):
        frames, lens = system.encoder(one.waves, one.wave_lens)
        speech, speech_lens = system.projector(frames, lens, system.ctc(frames))
        target = [*system.llm_tokenizer.encode(one.texts[0]), 39]
        logits = alone(system, speech[0, : speech_lens[0]], [30, 31, 32, *target[:-1]])[2:]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum")
    assert float(got.sum.detach()) == pytest.approx(float(total.detach()), rel=1e-4)
    torch.testing.assert_close(found, torch.autograd.grad(total, weights), atol=1e-4, rtol=1e-3)


def test_an_utterance_is_heard_alike_alone_and_among_others():
    system = crossed(llama())
    whole = batch([9000, 900, 16000], ["", "", ""])
    together = system.heard(whole)
    for number, one in enumerate(rows_of(whole)):
        apart, chosen = system.heard(one), together.select(torch.tensor([number]))
        for mine, theirs in zip([*apart.keys, *apart.values], [*chosen.keys, *chosen.values], strict=True):
            torch.testing.assert_close(mine[:, :, apart.mask[0]], theirs[:, :, chosen.mask[0]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_search_is_the_whole_text_without_a_cache(make):
    """Utterances leave at different steps; each takes its speech along."""
    system = crossed(make())
    whole = batch([9000, 900, 16000, 12000], [""] * 4)
    limits, config = [5, 12, 20, 9], BeamConfig(beam=4, nbest=4)
    with torch.inference_mode():
        scorer = LlmScorer(system.llm, *system.prefix(whole), max(limits), system.heard(whole))
        together = beam_search({"llm": scorer}, {"llm": 1.0}, [39], limits, config)
        for number, one in enumerate(rows_of(whole)):
            speech, lens = system.projector(*system.encode(one))
            for found in together[number]:
                tokens = found.tokens + [39] * found.ended
                logits = alone(system, speech[0, : lens[0]], [30, 31, 32, *tokens[:-1]])[2:]
                score = logits.log_softmax(-1)[range(len(tokens)), tokens].sum()
                assert found.scores["llm"] == pytest.approx(float(score), abs=1e-3)
            scorer = LlmScorer(system.llm, *system.prefix(one), max(limits), system.heard(one))
            (single,) = beam_search({"llm": scorer}, {"llm": 1.0}, [39], limits[number : number + 1], config)
            assert [each.tokens for each in single] == [each.tokens for each in together[number]]


def test_what_is_heard_counts():
    system = crossed(llama())
    one, other = (alone(system, torch.randn(6, WIDTH), [30, 31]) for _ in range(2))
    assert (one - other).abs().max() > 1e-3
    speech = torch.randn(6, WIDTH)
    assert (alone(system, speech, [30]) - alone(system, speech.flip(0), [30])).abs().max() > 1e-3


@pytest.mark.parametrize("trained", [("projector",), ("projector", "cross"), ("encoder", "projector", "cross")])
def test_projector_alone_encoder_frozen_encoder_trained(trained):
    system = crossed(llama())
    for name, part in system.parts.items():
        part.requires_grad_(name in trained)
    system(batch([9000, 16000], ["abc", "dd"]), ("llm",))["llm"].sum.backward()
    for name, part in system.parts.items():
        reached = [weight.grad is not None for weight in part.parameters()]
        assert any(reached) == (name in trained), name
        assert all(reached) or name not in ("projector", "cross") or name not in trained, name


def test_with_adapters_on_the_llm():
    pytest.importorskip("peft", reason="peft is not installed: run tools/install.sh")
    llm = llama()
    adapters = lora.attach(llm, LoraConfig(targets="all_linear"))
    system = crossed(llm)
    system.adapters = adapters
    assert list(system.parts) == ["encoder", "ctc", "projector", "llm", "llm.lora", "cross"]
    system(batch([9000], ["abc"]), ("llm",))["llm"].sum.backward()
    assert all(weight.grad is not None for part in ("llm.lora", "cross") for weight in system.parts[part].parameters())


def test_flops_are_those_that_torch_counts():
    cross = CrossAttention(CONFIG, llama())
    lens, speech_lens = torch.tensor([9, 9]), torch.tensor([7, 7])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        heard = cross.listen(torch.randn(2, 7, WIDTH), speech_lens)
        for number, block in enumerate(cross.blocks):
            block(torch.randn(2, 9, WIDTH), heard.keys[number], heard.values[number], heard.mask, None)
    assert cross.flops(lens, speech_lens).forward == pytest.approx(counter.get_total_flops(), rel=0.02)
    system = crossed(llama())
    whole = batch([9000, 16000], ["abc", "dd"])
    heard = system(whole, ("llm",))["llm"].speech_lens
    work = {each.part: each for each in system.work(whole, ("llm",), heard)}
    text_lens = torch.tensor([3 + 3, 3 + 2])  # three tokens of the prompt
    assert work["cross"].real == work["cross"].padded == system.cross.flops(text_lens, heard)


def test_an_llm_in_bfloat16():
    llm = llama().bfloat16()
    system = crossed(llm)
    with torch.autocast("cpu", torch.bfloat16):
        system(batch([9000], ["abc"]), ("llm",))["llm"].sum.backward()
    assert all(weight.dtype == torch.float32 and weight.grad is not None for weight in system.cross.parameters())


def test_refuses_what_cannot_be():
    for said, settings in {
        "every is 3, but the LLM has 2 layers": {"every": 3},
        "5 heads do not": {"heads": 5},
    }.items():
        with pytest.raises(UserError, match=said):
            CrossAttention(CrossAttentionConfig(**{"type": "cross_attention", "every": 1, **settings}), llama())
    llm = llama()
    plain = llm.model.forward
    llm.model.forward = lambda ids, heard: plain(ids)
    with pytest.raises(UserError, match="LlamaForCausalLM keeps the speech from its layers"):
        CrossAttention(CONFIG, llm)
