"""Packed linear layers give what plain ones give, and leave no trace."""

import torch

from asrllm.decode.packed import packed


def test_packed_is_plain() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.GELU(), torch.nn.Linear(40, 7, bias=False)).eval()
    for shape in ((1, 24), (5, 3, 24), (70, 24)):
        x = torch.randn(shape)
        with torch.inference_mode():
            plain = model(x)
            with packed(model) as count:
                assert count in (0, 2)
                torch.testing.assert_close(model(x), plain)
    assert all("forward" not in vars(layer) for layer in model)
    model(x).sum().backward()
    assert model[0].weight.grad is not None


def test_only_float32_layers_are_packed() -> None:
    with packed(torch.nn.Linear(3, 3, dtype=torch.bfloat16)) as count:
        assert count == 0
