"""The attention decoder: its loss against one utterance, one unit at a time, and as a part of the model."""

import pytest
import torch
from toy_speech_llm import LAYERS, batch, llama, model, rows_of

from asrllm.models.attention_decoder import EDGE, AttentionDecoder, DecoderConfig

CONFIG = DecoderConfig(**LAYERS, label_smoothing=0.2)


def decoder() -> AttentionDecoder:
    return AttentionDecoder(CONFIG, 16, 27).eval()


def test_loss_is_that_of_each_unit_after_those_before_it() -> None:
    """Padding, batch mates and the units to come change nothing."""
    part, labels, lens = decoder(), [[3, 1, 4, 1], [], [5, 9]], torch.tensor([9, 4, 1])
    frames = torch.randn(3, 9, 16)
    total, correct = 0.0, 0
    for row, size, own in zip(frames, lens.tolist(), labels, strict=True):
        for place, gold in enumerate([*own, EDGE]):
            said = torch.tensor([own[:place]], dtype=torch.int64)
            scores = part(row[None, :size], torch.tensor([size]), said)[0, -1]
            total -= float(scores.log_softmax(-1)[gold].detach())
            correct += int(scores.argmax()) == gold
    found, right = part.loss(frames, lens, labels)
    assert float(found.detach()) == pytest.approx(total, rel=1e-5) and int(right) == correct


def test_labels_are_smoothed_in_training_alone() -> None:
    part, frames, lens = decoder(), torch.randn(1, 5, 16), torch.tensor([5])
    part.train()
    for module in part.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.MultiheadAttention):
            module.eval()
    for layer in part.layers:
        layer.attention.eval()
    log_probs = part(frames, lens, torch.tensor([[7]]))[0].log_softmax(-1)
    wanted = -(0.8 * log_probs[[0, 1], [7, EDGE]] + 0.2 * log_probs.mean(-1)).sum()
    assert float(part.loss(frames, lens, [[7]])[0].detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_as_a_part_it_reaches_the_encoder_and_adds_up() -> None:
    system = model(llama())
    system.decoder = decoder()
    whole = batch([9000, 16000, 5000], ["abc", "dddd", ""])
    found = system(whole, ("ctc", "attention"))["attention"]
    alone = [system(one, ("attention",))["attention"] for one in rows_of(whole)]
    assert float(found.sum.detach()) == pytest.approx(sum(float(each.sum.detach()) for each in alone), rel=1e-4)
    assert found.count == sum(each.count for each in alone) == system.targets(whole, ("attention",))["attention"] == 10
    assert found.correct is not None and int(found.correct) == sum(int(each.correct) for each in alone)
    found.sum.backward()
    for name in system.parts:
        reached = all(weight.grad is not None for weight in system.parts[name].parameters())
        assert reached == (name in ("encoder", "decoder")), name


def test_both_views_of_cr_ctc_count_half() -> None:
    system = model(llama())
    system.decoder = decoder()
    system.encoder.train()
    whole = batch([9000, 16000], ["abc", "dd"])
    torch.manual_seed(7)
    found = system(whole, ("ctc", "cr_ctc", "attention"))["attention"]
    torch.manual_seed(7)
    frames, lens = system.encoder(torch.cat([whole.waves] * 2), torch.cat([whole.wave_lens] * 2))
    both, _ = system.decoder.loss(frames, lens, [[1, 2, 3], [4, 4]] * 2)
    assert float(found.sum.detach()) == pytest.approx(float(both.detach()) / 2, rel=1e-5) and found.count == 7
