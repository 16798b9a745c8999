"""What a model holds, against its own outputs; positions on frames, against a loop over the greedy path."""

import torch
from torch import nn

from asrllm.analysis import listening
from asrllm.analysis.listening import Held, paired
from asrllm.models.conformer import Conformer, ConformerConfig
from asrllm.models.posterior import PosteriorConfig, PosteriorProjector
from asrllm.models.projector import LinearConfig, LinearProjector


def test_layers_are_those_of_the_encoder() -> None:
    sizes = {"layers": 3, "dim": 16, "heads": 2, "feed_forward": 32, "kernel": 3, "intermediate_layers": (1, 2)}
    encoder = Conformer(ConformerConfig(type="conformer", subsampling_channels=4, **sizes)).eval()
    waves, lens = torch.randn(2, 8000), torch.tensor([8000, 5000])
    with torch.no_grad(), listening._taps(encoder) as taps:
        _, _, inner = encoder.with_intermediate(waves, lens)
    assert list(taps) == ["layer 1", "layer 2"]
    assert all(tap.equal(other) for tap, other in zip(taps.values(), inner, strict=True))
    assert not any(block._forward_hooks for block in encoder.blocks)


def test_frames_of_a_linear_projector_are_in_rows_of_its_stride() -> None:
    projector = LinearProjector(LinearConfig(type="linear", stride=5, hidden=4), 3, 4)
    lens = torch.tensor([14, 9, 3])
    owners = listening._owners(projector, torch.zeros(3, 14, 2), lens, projector.output_lens(lens))
    assert owners[0].tolist() == [0] * 5 + [1] * 5 + [-1] * 4
    assert owners[1].tolist() == [0] * 5 + [-1] * 9
    assert owners[2].tolist() == [-1] * 14


class Spelled:
    """Five labels that are tokens; 1 and 2 in a row are written as token 30."""

    llm_ids = [10, 11, 12, 13, 14]

    def respell(self, ids: list[int]) -> list[tuple[int, int, int]]:
        tokens, place = [], 0
        while place < len(ids):
            wide = 2 if ids[place : place + 2] == [1, 2] else 1
            tokens.append((30 if wide == 2 else self.llm_ids[ids[place] - 1], place, place + wide))
            place += wide
        return tokens


def test_frames_of_a_posterior_projector_are_those_of_its_runs() -> None:
    table = nn.Embedding(40, 4)
    projector = PosteriorProjector(PosteriorConfig(type="posterior", hidden=4), 3, 4, Spelled(), table)
    path = [0, 3, 3, 0, 1, 2, 2, 0, 3, 0, 0]
    log_probs = nn.functional.one_hot(torch.tensor([path, [4] * 11]), 6).float().log_softmax(-1)
    owners = projector.owners(log_probs, torch.tensor([11, 2]))
    assert owners[0].tolist() == [-1, 0, 0, -1, 1, 1, 1, -1, 2, -1, -1]
    assert owners[1].tolist() == [0, 0] + [-1] * 9


def held(rows: torch.Tensor) -> Held:
    return Held(["a"], {"encoder": [rows]})


def test_frames_are_paired_by_time() -> None:
    slow, fast = torch.arange(10.0)[:, None], torch.arange(20.0)[:, None] / 2
    one, other = paired(held(slow), held(fast), ("encoder", "encoder"), 100, 0)
    assert one.equal(slow) and (one - other).abs().max() <= 0.5
    one, other = paired(held(slow), held(slow), ("encoder", "encoder"), 4, 0)
    assert one.equal(other) and len(one) == 4


def test_frames_without_a_position_are_left_out() -> None:
    here = Held(["a"], {"encoder": [torch.randn(4, 2)]}, [torch.tensor([[5.0], [7.0]])], [torch.tensor([-1, 0, 1, 1])])
    one, other = paired(here, here, ("projector", "encoder"), 100, 0)
    assert one[:, 0].tolist() == [5.0, 7.0, 7.0] and other.equal(here.layers["encoder"][0][1:])
