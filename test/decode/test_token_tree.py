"""Tree of tokens: totals against whole sequences run one by one, whatever was asked before and whatever was dropped."""

import pytest
import torch
from toy_llm import UNITS, gpt2, llama
from transformers import PreTrainedModel

from asrllm.console import UserError
from asrllm.decode import token_tree
from asrllm.decode.packed import packed
from asrllm.decode.token_tree import Node, TokenTree


def whole(llm: PreTrainedModel, context: list[int], tokens: list[int]) -> float:
    """No cache, no tree."""
    if not tokens:
        return 0.0
    logits = llm(torch.tensor([context + tokens])).logits[0, len(context) - 1 : -1]
    return torch.log_softmax(logits, -1)[torch.arange(len(tokens)), torch.tensor(tokens)].sum().item()


def draw(count: int, longest: int = 9) -> list[list[int]]:
    """Sequences of few tokens, so that many begin alike."""
    return [torch.randint(0, 3, (int(size),)).tolist() for size in torch.randint(0, longest, (count,))]


def grown(llm: PreTrainedModel, context: list[int]) -> TokenTree:
    return TokenTree(llm, llm.get_input_embeddings()(torch.tensor(context)))


@pytest.mark.parametrize("make", [llama, gpt2])
@torch.inference_mode()
def test_totals_are_those_of_whole_sequences(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rounds that go on from each other; between them what is not wanted is dropped and partly comes back."""
    monkeypatch.setattr(token_tree, "LEAST_COLUMNS", 8)
    monkeypatch.setattr(token_tree, "ROWS_AT_ONCE", 5)
    llm, context = make(), [5, 7, 1]
    tree = grown(llm, context)
    roots = [tree.root() for _ in range(3)]
    for number in range(6):
        sequences = [draw(6) for _ in roots]
        nodes = [[root.walk(each) for each in group] for root, group in zip(roots, sequences, strict=True)]
        tree.score(nodes)
        for node, tokens in zip(sum(nodes, []), sum(sequences, []), strict=True):
            assert node.total == pytest.approx(whole(llm, context, tokens), abs=1e-4)
        tree.keep(nodes[number % 3])


@torch.inference_mode()
def test_what_begins_alike_is_run_once() -> None:
    llm = llama()
    tree = grown(llm, [5])
    one, other = tree.root(), tree.root()
    lines = [[1, 2, 3], [1, 2, 4], [1, 2]]
    assert tree.score([[one.walk(each) for each in lines], [other.walk([1])]]) == [2, 0]  # 1 and 1 2; the context
    assert tree.score([[one.walk(each) for each in lines], [other.walk([1])]]) == [0, 0]
    assert tree.score([[one.walk([1, 2, 3, 4, 5])], [other.walk([1, 2])]]) == [2, 1]


@torch.inference_mode()
def test_next_tokens_are_those_of_the_whole_vocabulary() -> None:
    llm = llama()
    tree = grown(llm, [5, 9])
    lines = [[[], [1], [1, 2]], [[3, 3], [1], [4]]]
    nodes: list[list[Node]] = []
    for group in lines:
        root = tree.root()
        nodes.append([root.walk(each) for each in group])
    assert tree.run(nodes) == [2, 4]
    tokens = torch.tensor([[0, 7, 5, 23], [1, 2, 3, 4]])
    found = tree.log_probs(nodes, tokens)
    for group, row, wanted in zip(lines, found, tokens, strict=True):
        for tokens_before, log_probs in zip(group, row, strict=True):
            logits = llm(torch.tensor([[5, 9, *tokens_before]])).logits[0, -1]
            torch.testing.assert_close(log_probs, torch.log_softmax(logits, -1)[wanted], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_packed_weights_and_a_bias_in_the_head() -> None:
    llm = llama()
    llm.lm_head.bias = torch.nn.Parameter(torch.randn(UNITS))
    with packed(llm):
        tree = grown(llm, [5, 9])
        node = tree.root().walk([1, 2, 3])
        tree.score([[node]])
    assert node.total == pytest.approx(whole(llm, [5, 9], [1, 2, 3]), abs=1e-4)


@torch.inference_mode()
def test_bfloat16_is_near() -> None:
    llm = llama()
    with torch.autocast("cpu", torch.bfloat16):
        tree = grown(llm, [5, 9])
        node = tree.root().walk([1, 2, 3])
        tree.score([[node]])
    assert node.total == pytest.approx(whole(llm, [5, 9], [1, 2, 3]), abs=0.3)


@torch.inference_mode()
def test_refuses_what_is_longer_than_the_models_context() -> None:
    tree = grown(llama(max_position_embeddings=6), [5, 9])
    tree.score([[tree.root().walk([1] * 5)]])
    with pytest.raises(UserError, match="context of 6 positions"):
        tree.score([[tree.root().walk([1] * 6)]])
