"""Log-probabilities of token sequences that begin alike, after one context: every distinct beginning is run once.

The sequences form a tree; a node is a token after its parent. All nodes that a call needs are one forward pass of the
LLM: one row of tokens, of which each sees the context and its own ancestors by a mask, whatever utterance or hypothesis
it belongs to. Keys and values of a node are a column of the cache. So neither prefixes nor padding are computed, and a
hypothesis that comes back costs nothing. Attention reads the columns of all utterances; `keep` drops the dead ones.

It knows an LLM; not search, not text.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from asrllm.decode.cache import TreeCache
from asrllm.decode.scorer import check_llm

ROWS_AT_ONCE = 256  # tokens in a forward pass, and rows of logits: bounds the memory
LEAST_COLUMNS = 512  # below this dead columns are not worth a copy of the living


class Node:
    """A token after the tokens of its parent. The root of an utterance stands for the context."""

    __slots__ = ("children", "column", "depth", "hidden", "is_new", "log_z", "parent", "token", "total")

    def __init__(self, parent: "Node | None", token: int) -> None:
        self.parent, self.token = parent, token
        self.depth: int = 0 if parent is None else parent.depth + 1  # tokens after the context
        self.children: dict[int, Node] = {}
        self.total: float | None = 0.0 if parent is None else None  # log-probability of the tokens, once scored
        self.is_new = True  # it was never run
        self.column: int | None = None  # of the cache, if it was run and is kept
        self.hidden: torch.Tensor | None = None  # (H,) final hidden state, if it was run and is kept
        self.log_z = 0.0  # logarithm of the sum over the next token

    def walk(self, tokens: Iterable[int]) -> "Node":
        """The node that these tokens lead to."""
        node = self
        for token in tokens:
            if token not in node.children:
                node.children[token] = Node(node, token)
            node = node.children[token]
        return node

    def ancestors(self) -> Iterator["Node"]:
        """Itself, its parent and so on, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


class TokenTree:
    """An LLM after a context, and all that was run of it."""

    def __init__(self, llm: Any, context: torch.Tensor) -> None:
        """`context` (L, H): embeddings of at least one position, which all roots share.

        Raises:
            UserError: an LLM whose attention cannot be branched.
        """
        check_llm(llm, len(context) + 1)
        self._llm, self._head = llm, llm.get_output_embeddings()
        self._size = len(context)
        self._cache = TreeCache()
        self._run_nodes: list[Node] = []  # in the order of their columns, which begin after the context
        self._worth_keeping = LEAST_COLUMNS
        positions = torch.arange(self._size, device=context.device)
        self._context = Node(None, -1)
        self._forward([self._context], {"inputs_embeds": context[None], "position_ids": positions[None]})

    def root(self) -> Node:
        """A new root: sequences of different roots share nothing but the context."""
        root = Node(None, -1)
        root.hidden, root.log_z = self._context.hidden, self._context.log_z
        return root

    def run(self, groups: Sequence[Iterable[Node]]) -> list[int]:
        """Make sure that what follows these nodes can be scored; a group is an utterance.

        Returns:
            How many tokens were run for each group; those that were dropped and came back are not counted again, so
            that the count does not depend on other groups.
        """
        missing = [_distinct(group, lambda each: each.hidden is None) for group in groups]
        counts = [sum(node.is_new for node in group) for group in missing]
        ordered = sorted((each for group in missing for each in group), key=lambda each: each.depth)
        for start in range(0, len(ordered), ROWS_AT_ONCE):
            some = ordered[start : start + ROWS_AT_ONCE]
            columns = range(self._size + len(self._run_nodes), self._size + len(self._run_nodes) + len(some))
            for node, column in zip(some, columns, strict=True):
                node.column = column
            self._run_nodes += some
            positions = [[self._size - 1 + node.depth for node in some]]
            check_llm(self._llm, max(positions[0]) + 1)
            device = self._head.weight.device
            inputs = {"input_ids": [[node.token for node in some]], "position_ids": positions}
            tensors = {name: torch.tensor(values, device=device) for name, values in inputs.items()}
            self._forward(some, {**tensors, "attention_mask": self._mask(some)})
        return counts

    def score(self, groups: Sequence[Iterable[Node]]) -> list[int]:
        """Set `total` of all these nodes; a group is an utterance. Returns how many tokens were run for each."""
        unscored = [_distinct(group, lambda each: each.total is None) for group in groups]
        counts = self.run([[each.parent for each in group if each.parent is not None] for group in unscored])
        ordered = sorted((each for group in unscored for each in group), key=lambda each: each.depth)
        for start in range(0, len(ordered), ROWS_AT_ONCE):
            some = ordered[start : start + ROWS_AT_ONCE]
            tokens = torch.tensor([[each.token] for each in some], device=self._head.weight.device)
            parents = [each.parent for each in some if each.parent is not None]
            steps = self.log_probs([[each] for each in parents], tokens).flatten().tolist()
            for node, parent, step in zip(some, parents, steps, strict=True):
                assert parent.total is not None, "parents come first"
                node.total = parent.total + step
        return counts

    def log_probs(self, nodes: Sequence[Sequence[Node]], tokens: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, K, C) of `tokens` (B, C) after `nodes` (B, K), all of which were run."""
        rows = [[self._hidden_of(node) for node in group] for group in nodes]
        hidden = torch.stack([torch.stack(row) for row in rows]).float()
        log_z = torch.tensor([[node.log_z for node in group] for group in nodes], device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):  # a few products: they may be exact
            logits = hidden @ self._head.weight[tokens].float().transpose(1, 2)
        if self._head.bias is not None:
            logits = logits + self._head.bias[tokens].float()[:, None]
        return logits - log_z[..., None]

    def keep(self, nodes: Iterable[Node]) -> None:
        """Free the memory of what does not lead to `nodes`, where that is worth a copy; what comes back runs again."""
        if len(self._run_nodes) < self._worth_keeping:
            return
        wanted = {each for node in nodes for each in node.ancestors()}
        alive = [node for node in self._run_nodes if node in wanted]
        for node in set(self._run_nodes).difference(alive):
            node.column, node.hidden = None, None
        columns = [*range(self._size), *(node.column for node in alive if node.column is not None)]
        device = self._head.weight.device
        self._cache.keep(torch.zeros(1, dtype=torch.long, device=device), torch.tensor([columns], device=device))
        for column, node in enumerate(alive, self._size):
            node.column = column
        self._run_nodes = alive
        self._worth_keeping = max(LEAST_COLUMNS, 2 * len(alive))

    def _hidden_of(self, node: Node) -> torch.Tensor:
        assert node.hidden is not None, "a node that was not run, or not kept"
        return node.hidden

    def _mask(self, nodes: list[Node]) -> torch.Tensor:
        """(1, 1, N, columns), added to the attention of `nodes`: 0 on the context, on ancestors and on itself."""
        seen = [[each.column for each in node.ancestors() if each.column is not None] for node in nodes]
        rows = [row for row, columns in enumerate(seen) for _ in columns]
        dtype = self._head.weight.dtype
        width = self._size + len(self._run_nodes)
        mask = torch.full((len(nodes), width), torch.finfo(dtype).min, dtype=dtype)
        mask[:, : self._size] = 0.0
        mask[rows, [column for columns in seen for column in columns]] = 0.0
        return mask[None, None].to(self._head.weight.device)

    def _forward(self, nodes: list[Node], inputs: dict[str, torch.Tensor]) -> None:
        """Run new columns; the last of them are those of `nodes`."""
        output = self._llm.base_model(**inputs, past_key_values=self._cache, use_cache=True)
        hidden = output.last_hidden_state[0, -len(nodes) :]
        log_z = self._head(hidden).float().logsumexp(1).tolist()
        for node, row, total in zip(nodes, hidden, log_z, strict=True):
            node.hidden, node.log_z, node.is_new = row, total, False


def _distinct(nodes: Iterable[Node], wanted: Callable[[Node], bool]) -> list[Node]:
    """Those of `nodes` and their ancestors that are wanted, each once, in an order that does not depend on chance."""
    return list(dict.fromkeys(each for node in nodes for each in node.ancestors() if wanted(each)))
