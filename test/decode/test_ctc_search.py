"""CTC greedy search against itertools.groupby on the best path."""

import itertools

import pytest
import torch

from asrllm.decode.ctc_search import ctc_greedy


def test_best_path_merged_without_blanks() -> None:
    log_probs = torch.log_softmax(2 * torch.randn(9, 30, 4), dim=-1)
    lens = torch.tensor([30, 1, 7, 12, 30, 0, 29, 3, 18])
    for row, length, (labels, score) in zip(log_probs, lens, ctc_greedy(log_probs, lens), strict=True):
        path = row[:length].argmax(1).tolist()
        assert labels == [unit for unit, _ in itertools.groupby(path) if unit != 0]
        assert score == pytest.approx(sum(row[t, unit].item() for t, unit in enumerate(path)), abs=1e-4)
