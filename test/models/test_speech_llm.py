"""SpeechLLM, its CTC head, projectors and prefix, against enumeration and the LLM's own forward pass."""

import itertools
import math

import pytest
import torch
from toy_speech_llm import Letters, batch, gpt2, llama, model, rows_of

from asrllm.batch import Batch
from asrllm.models import lora, speech_llm
from asrllm.models.conformer import Conformer, ConformerConfig
from asrllm.models.ctc import CtcHead, consistency_loss, ctc_loss
from asrllm.models.llm import embed
from asrllm.models.lora import LoraConfig
from asrllm.models.posterior import PosteriorConfig, PosteriorProjector, label_runs
from asrllm.text.spelling import frames_needed


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("projector", ["linear", "posterior"])
@pytest.mark.parametrize("trained", ["projector", "llm", "llm.lora"])
def test_llm_loss_and_its_gradient_are_the_llms_own_on_the_joined_sequence(make, projector, trained):
    llm, adapters = make(), None
    if trained == "llm.lora":
        pytest.importorskip("peft", reason="peft is not installed: run tools/install.sh")
        adapters = lora.attach(llm, LoraConfig(targets="all_linear"))
        for weight in adapters.parameters():
            torch.nn.init.normal_(weight, std=0.1)
    whole = batch([9000, 16000, 5000], ["abc", "dddd", "e"])
    system = model(llm, projector, adapters).requires_grad_(False)
    weights = list(system.parts[trained].requires_grad_(True).parameters())
    got = system(whole, ("llm",))["llm"]
    found = torch.autograd.grad(got.sum, weights)
    total, correct = torch.zeros(()), 0
    for one in rows_of(whole):
        frames, lens = system.encoder(one.waves, one.wave_lens)
        speech, speech_lens = system.projector(frames, lens, system.ctc(frames))
        target = [*Letters().encode(one.texts[0]), 39]
        pieces = [
            embed(llm, torch.tensor([30, 31])),
            speech[0, : speech_lens[0]],
            embed(llm, torch.tensor([32, *target])),
        ]
        joined = torch.cat(pieces)
        labels = torch.full((1, len(joined)), -100)
        labels[0, -len(target) :] = torch.tensor(target)
        out = llm(inputs_embeds=joined[None], labels=labels)
        total = total + out.loss * len(target)
        correct += int((out.logits[0, -len(target) - 1 : -1].argmax(-1) == torch.tensor(target)).sum())
    assert got.count == 4 + 5 + 2
    assert float(got.sum) == pytest.approx(float(total), rel=1e-4)
    assert int(got.correct) == correct
    torch.testing.assert_close(found, torch.autograd.grad(total, weights), atol=1e-4, rtol=1e-3)


def test_pieces_of_the_targets_give_the_loss_and_gradient_of_all_at_once(monkeypatch):
    results = []
    for at_once in (1000, 4):
        monkeypatch.setattr(speech_llm, "TARGETS_AT_ONCE", at_once)
        torch.manual_seed(0)
        system = model(llama())
        loss = system(batch([9000, 16000, 5000], ["abc", "dddd", "e"]), ("llm",))["llm"]
        loss.sum.backward()
        gradients = {name: weight.grad for name, weight in system.llm.named_parameters()}
        results.append((loss.sum.detach(), int(loss.correct), gradients))
    torch.testing.assert_close(results[1], results[0])


def test_losses_of_a_batch_are_the_sums_of_its_rows():
    system = model(llama())
    whole = batch([9000, 16000, 5000], ["abc", "dddd", "e"])
    together = system(whole, ("ctc", "llm"))
    alone = [system(one, ("ctc", "llm")) for one in rows_of(whole)]
    for name in ("ctc", "llm"):
        assert float(together[name].sum) == pytest.approx(sum(float(each[name].sum) for each in alone), rel=1e-4)
        assert together[name].count == sum(each[name].count for each in alone) == system.targets(whole, (name,))[name]


def test_a_clip_without_speech_costs_all_that_is_not_blank_and_counts_once():
    system = model(llama())
    whole = batch([9000, 16000], ["", "abc"])
    got = system(whole, ("ctc", "llm"))
    log_probs, lens = system.ctc_log_probs(whole)
    spoken = system(rows_of(whole)[1], ("ctc",))["ctc"]
    assert float(got["ctc"].sum - spoken.sum) == pytest.approx(-float(log_probs[0, : lens[0], 0].sum()), rel=1e-4)
    assert got["ctc"].count == 1 + 3 and got["llm"].count == 1 + 4
    assert system.targets(batch([9000], [""]), ("ctc", "cr_ctc", "llm")) == {"ctc": 1, "cr_ctc": 1, "llm": 1}


def test_prefix_is_the_same_alone_and_in_a_batch():
    system = model(llama())
    whole = batch([9000, 16000, 5000], ["", "", ""])
    embeds, lens = system.prefix(whole)
    for row, one in enumerate(rows_of(whole)):
        alone, alone_lens = system.prefix(one)
        assert alone_lens[0] == lens[row]
        torch.testing.assert_close(embeds[row, : lens[row]], alone[0, : lens[row]], atol=1e-5, rtol=1e-4)


def test_cached_frames_give_the_loss_of_the_audio():
    system = model(llama())
    whole = batch([9000, 16000], ["abc", "dd"])
    frames, lens = system.encode(whole)
    cached = Batch(whole.utt_ids, whole.texts, None, whole.wave_lens, frames, lens)
    for name, loss in system(whole, ("ctc", "llm")).items():
        assert float(system(cached, ("ctc", "llm"))[name].sum) == pytest.approx(float(loss.sum), rel=1e-6)


def test_intermediate_loss_is_the_lower_heads_on_the_named_layers():
    system = model(llama())
    config = ConformerConfig(
        type="conformer", subsampling_channels=4, layers=3, dim=16, heads=2, feed_forward=32, intermediate_layers=(1, 2)
    )
    system.encoder = Conformer(config).eval()
    system.ctc = CtcHead(16, 27, lower_units=27).eval()
    whole = batch([9000, 16000], ["abc", "dd"])
    _, lens, taps = system.encoder.with_intermediate(whole.waves, whole.wave_lens)
    labels = [Letters().encode(text) for text in whole.texts]
    wanted = sum(float(ctc_loss(system.ctc.lower(tap), lens, labels)) for tap in taps) / 2
    got = system(whole, ("ctc", "ctc_intermediate"))["ctc_intermediate"]
    assert float(got.sum) == pytest.approx(wanted, rel=1e-5) and got.count == 5


def test_cr_ctc_compares_two_views_and_ctc_is_their_mean():
    system = model(llama())
    system.encoder.train()
    whole = batch([9000, 16000, 5000], ["abc", "dddd", "e"])
    torch.manual_seed(7)
    got = system(whole, ("ctc", "cr_ctc", "llm"))
    torch.manual_seed(7)
    frames, lens = system.encoder(torch.cat([whole.waves] * 2), torch.cat([whole.wave_lens] * 2))
    views = system.ctc(frames)
    assert not torch.allclose(views[:3], views[3:])  # masks and dropout differ
    labels = [Letters().encode(text) for text in whole.texts]
    ctc = [float(ctc_loss(views[rows], lens[:3], labels)) for rows in (slice(3), slice(3, 6))]
    assert float(got["ctc"].sum) == pytest.approx(sum(ctc) / 2, rel=1e-5)
    assert float(got["cr_ctc"].sum) == pytest.approx(float(consistency_loss(views, lens)), rel=1e-4)
    assert got["cr_ctc"].count == got["ctc"].count == system.targets(whole, ("cr_ctc",))["cr_ctc"] == 8
    cached = Batch(whole.utt_ids, whole.texts, None, whole.wave_lens, frames[:3], lens[:3])
    assert float(got["llm"].sum) == pytest.approx(float(system(cached, ("llm",))["llm"].sum), rel=1e-4)


def test_blank_penalty_divides_the_odds_of_the_blank():
    head, frames = CtcHead(16, 27).eval(), torch.randn(2, 5, 16)
    before = head(frames).exp()
    head.blank_penalty = 1.5
    after = head(frames).exp()
    odds = [probs[..., 0] / (1 - probs[..., 0]) for probs in (before, after)]
    torch.testing.assert_close(odds[1] * math.exp(1.5), odds[0])
    rest = [probs[..., 1:] / probs[..., 1:].sum(-1, keepdim=True) for probs in (before, after)]
    torch.testing.assert_close(rest[1], rest[0])


def test_cr_ctc_is_nothing_without_training():
    system = model(llama())
    whole = batch([9000, 16000], ["abc", "dd"])
    got = system(whole, ("ctc", "cr_ctc"))
    assert float(got["cr_ctc"].sum) == 0.0
    assert float(got["ctc"].sum) == float(system(whole, ("ctc",))["ctc"].sum)


def test_consistency_loss_is_half_of_both_divergences_over_real_frames():
    log_probs, lens = torch.randn(6, 5, 4).log_softmax(-1), torch.tensor([5, 2, 0, 5, 2, 0])
    total = 0.0
    for row in range(3):
        for t in range(int(lens[row])):
            first, second = log_probs[row, t].double(), log_probs[row + 3, t].double()
            total += 0.5 * float((first.exp() * (first - second)).sum() + (second.exp() * (second - first)).sum())
    assert float(consistency_loss(log_probs, lens)) == pytest.approx(total, rel=1e-5)
    rows = [consistency_loss(log_probs[[row, row + 3], : lens[row]], lens[[row, row + 3]]) for row in range(3)]
    assert float(sum(rows)) == pytest.approx(total, rel=1e-5)  # padding and batch mates add nothing
    log_probs[3:] = log_probs[:3]
    assert float(consistency_loss(log_probs, lens)) == 0.0


def test_consistency_loss_stops_the_gradient_at_its_targets():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    consistency_loss(logits.log_softmax(-1), torch.tensor([3, 2])).backward()
    probs = logits.detach().softmax(-1)
    wanted = 0.5 * (probs - probs.flip(0))  # of a cross-entropy whose target is held fixed: p - target
    wanted[1, 2:] = 0.0
    torch.testing.assert_close(logits.grad, wanted, atol=1e-6, rtol=1e-5)


def test_label_runs_equals_groupby():
    labels, lens = torch.randint(0, 3, (20, 30)), torch.randint(0, 31, (20,))
    owner, runs = label_runs(labels, lens)
    for row in range(20):
        wanted, number = [], -1
        for label, group in itertools.groupby(labels[row, : lens[row]].tolist()):
            number += label != 0
            wanted += [number if label else -1] * len(list(group))
        assert owner[row].tolist() == wanted + [-1] * (30 - len(wanted))
        assert runs[row] == number + 1


def test_posterior_projector_starts_as_the_expected_embedding_of_each_label():
    class Three(Letters):
        llm_ids = [5, 3, 4]

        def respell(self, ids: list[int]) -> list[tuple[int, int, int]]:
            return [(self.llm_ids[number - 1], place, place + 1) for place, number in enumerate(ids)]

    table = torch.nn.Embedding(8, 6)
    projector = PosteriorProjector(PosteriorConfig(type="posterior", hidden=8), 4, 6, Three(), table)
    probs = torch.tensor([[[0.9, 0.1, 0.0, 0.0], [0.2, 0.6, 0.1, 0.1], [0.1, 0.8, 0.1, 0.0], [0.1, 0.2, 0.0, 0.7]]])
    speech, lens = projector(torch.randn(1, 4, 4), torch.tensor([4]), probs.log())
    assert lens.tolist() == [2]
    first = (probs[0, 1, 1:] + probs[0, 2, 1:]) / (0.8 + 0.9)
    wanted = torch.stack([first, probs[0, 3, 1:] / 0.9]) @ table.weight[[5, 3, 4]]
    torch.testing.assert_close(speech[0], wanted, atol=1e-5, rtol=1e-4)


def test_posterior_projector_respells_the_hypothesis_in_the_llms_tokens():
    """Labels a b | c make the token 7 = "ab" and the label c itself; a b has its plain embedding, c its expectation."""

    class Spelled(Letters):
        def respell(self, ids: list[int]) -> list[tuple[int, int, int]]:
            assert ids == [1, 2, 3]
            return [(30, 0, 2), (3, 2, 3)]

    table = torch.nn.Embedding(40, 6)
    projector = PosteriorProjector(PosteriorConfig(type="posterior", hidden=8, context=0), 4, 6, Spelled(), table)
    torch.nn.init.normal_(projector.residual[-1].weight)
    frames = torch.randn(1, 5, 4)
    log_probs = torch.randn(1, 5, 27).log_softmax(-1)
    log_probs[0, range(5), [1, 0, 2, 3, 3]] = 3.0
    speech, lens = projector(frames, torch.tensor([5]), log_probs)
    assert lens.tolist() == [2]
    probs = log_probs[0, 3:5, 1:].exp().mean(0)
    wanted = torch.stack([table.weight[30], probs / probs.sum() @ table.weight[1:27]])
    pooled = torch.stack([frames[0, [0, 2]].mean(0), frames[0, 3:5].mean(0)])
    torch.testing.assert_close(speech[0], wanted + projector.residual(pooled), atol=1e-5, rtol=1e-4)


def test_ctc_loss_equals_enumeration_of_paths_and_skips_what_cannot_be_written():
    log_probs = torch.randn(3, 4, 3).log_softmax(-1)
    labels, lens = [[1, 2], [2, 2], [1, 1, 1]], torch.tensor([4, 3, 4])
    assert [frames_needed(row) for row in labels] == [2, 3, 5]
    total = 0.0
    for row in range(2):  # the third needs five frames and has four
        paths = itertools.product(range(3), repeat=int(lens[row]))
        fits = [path for path in paths if [k for k, _ in itertools.groupby(path) if k] == labels[row]]
        scores = [sum(log_probs[row, t, unit] for t, unit in enumerate(path)) for path in fits]
        total -= float(torch.stack(scores).logsumexp(0))
    assert float(ctc_loss(log_probs, lens, labels)) == pytest.approx(total, rel=1e-5)
