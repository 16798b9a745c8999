"""Every projector: its lengths, padded = alone, a gradient for each weight; queries and layers against plain truths."""

import pytest
import torch
from torch import nn
from toy_speech_llm import LAYERS, SHORTENING, WIDTH, batch, llama, model, projector, rows_of

from asrllm.models import transformer
from asrllm.models.qformer import QFormerProjector, SegmentQFormerConfig, WindowQFormerConfig
from asrllm.models.transformer import Layer, LayersConfig


@pytest.mark.parametrize("kind", SHORTENING)
def test_lengths(kind: str) -> None:
    into = projector(kind).eval()
    for size in range(1, 201):
        out, lens = into(torch.randn(1, size, 16), torch.tensor([size]))
        assert out.shape == (1, int(lens), WIDTH)
        assert lens == into.output_lens(torch.tensor([size]))


@pytest.mark.parametrize("kind", [*SHORTENING, "posterior"])
def test_padded_is_alone(kind: str) -> None:
    llm = llama()
    into = projector(kind, llm).eval()
    sizes = torch.tensor([50, 1, 0, 7, 31])
    frames, log_probs = torch.randn(5, 53, 16), (9 * torch.randn(5, 53, 27)).log_softmax(-1)
    frames[torch.arange(53) >= sizes[:, None]] *= 1000  # what stands past an end is never zero by chance
    together, lens = into(frames, sizes, log_probs)
    assert together.isfinite().all()
    for row, size in enumerate(sizes.tolist()):
        one, until = slice(row, row + 1), max(size, 1)  # an encoder makes a frame even of nothing
        alone, alone_lens = into(frames[one, :until], sizes[one], log_probs[one, :until])
        assert alone_lens == lens[row]
        torch.testing.assert_close(together[row, : lens[row]], alone[0, : lens[row]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [*SHORTENING, "posterior"])
def test_gradient_reaches_every_weight_and_no_frozen_part(kind: str) -> None:
    system = model(llama(), kind)
    for name, part in system.parts.items():
        part.requires_grad_(name == "projector")
    whole = batch([9000, 16000, 400], ["abc", "dd", "e"])
    system(whole, ("llm",))["llm"].sum.backward()
    for name, part in system.parts.items():
        grads = [weight.grad for weight in part.parameters()]
        assert all((grad is not None and bool(grad.isfinite().all())) == (name == "projector") for grad in grads), name
    alone = sum(float(system(one, ("llm",))["llm"].sum) for one in rows_of(whole))
    assert float(system(whole, ("llm",))["llm"].sum) == pytest.approx(alone, rel=1e-4)


def test_a_window_is_projected_as_if_it_were_all() -> None:
    config = WindowQFormerConfig(type="window_qformer", window=6, queries=2, **LAYERS)
    into = QFormerProjector(config, 16, WIDTH).eval()
    frames = torch.randn(1, 16, 16)
    pieces = [into(piece, torch.tensor([piece.shape[1]]))[0] for piece in frames.split(6, 1)]
    torch.testing.assert_close(into(frames, torch.tensor([16]))[0], torch.cat(pieces, 1), atol=1e-5, rtol=1e-4)


def test_queries_of_segments_see_each_other() -> None:
    into = QFormerProjector(SegmentQFormerConfig(type="segment_qformer", segment=6, queries=2, **LAYERS), 16, WIDTH)
    window = QFormerProjector(WindowQFormerConfig(type="window_qformer", window=6, queries=2, **LAYERS), 16, WIDTH)
    window.load_state_dict(into.eval().state_dict())
    frames, lens = torch.randn(1, 12, 16), torch.tensor([12])
    torch.testing.assert_close(into(frames[:, :6], lens // 2), window.eval()(frames[:, :6], lens // 2))
    before = into(frames, lens)[0]
    frames[:, 6:] = torch.randn(1, 6, 16)
    assert not torch.allclose(into(frames, lens)[0][:, :2], before[:, :2], atol=1e-3)


def test_a_layer_without_positions_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.nn.TransformerDecoderLayer with the norms first."""
    still = torch.stack([torch.ones(1, 8), torch.zeros(1, 8)])
    monkeypatch.setattr(transformer, "rotary_table", lambda *_: still)
    ours = Layer(LayersConfig(dim=16, heads=2, feed_forward=24), hears=True).eval()
    theirs = nn.TransformerDecoderLayer(16, 2, 24, activation=nn.functional.silu, batch_first=True, norm_first=True)
    theirs.eval()
    for one, other in (
        (theirs.norm1, ours.norm),
        (theirs.norm2, ours.hearing.norm),
        (theirs.norm3, ours.feed[0]),
        (theirs.linear1, ours.feed[1]),
        (theirs.linear2, ours.feed[4]),
        (theirs.multihead_attn, ours.hearing.attention),
        (theirs.self_attn.out_proj, ours.attention.out),
    ):
        one.load_state_dict(other.state_dict())
    theirs.self_attn.in_proj_weight.data = ours.attention.inputs.weight.data
    theirs.self_attn.in_proj_bias.data = ours.attention.inputs.bias.data
    rows, heard = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    mask, heard_mask = torch.arange(5) < torch.tensor([[5], [3]]), torch.arange(7) < torch.tensor([[4], [7]])
    wanted = theirs(rows, heard, tgt_key_padding_mask=~mask, memory_key_padding_mask=~heard_mask)
    torch.testing.assert_close(ours(rows, mask, heard, heard_mask)[mask], wanted[mask], atol=1e-5, rtol=1e-4)
