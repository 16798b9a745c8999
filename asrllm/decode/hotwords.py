"""Hotwords as a term of the search: letters of phrases from a list, found in what the LLM writes (ours).

A tree of the phrases' letters with failure links (Aho and Corasick 1975) is walked by the letters of the tokens: it
does not matter how the LLM cuts a phrase into tokens. A hypothesis gets one for each letter of a phrase as it is
written, and loses all of them where the phrase is not completed; a phrase ends where its last word does. So the sum
over a whole text is the number of letters in the phrases that occur in it.
"""

import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from asrllm.text.spelling import is_unspaced

SPACE = " "
UNKNOWN = "\U0010ffff"  # stands for a part of a letter, which no phrase has


@dataclass
class _Node:
    """A beginning of phrases."""

    letters: int = 0  # without the space before it
    children: dict[str, int] = field(default_factory=dict)
    failure: int = 0  # the longest end of it that is a beginning, too
    whole: int = 0  # letters of the phrase that ends here, if one does
    spaced: bool = True  # whether it ends only where a word does


class HotwordTree:
    """The phrases, and what each token does at each place in them."""

    def __init__(self, phrases: Sequence[str], strings: Mapping[int, str], size: int) -> None:
        """Read phrases, and the texts of the LLM's `size` tokens; those without a text are no whole letters."""
        self._strings, self._size = strings, size
        self._steps: dict[int, tuple[float, int]] = {}
        self.nodes = [_Node()]
        for phrase in phrases:
            self._add(phrase)
        self._link()

    def _add(self, phrase: str) -> None:
        spaced = not is_unspaced(phrase[0])
        place = 0
        for number, letter in enumerate(SPACE + phrase if spaced else phrase):
            children = self.nodes[place].children
            if letter not in children:
                children[letter] = len(self.nodes)
                self.nodes.append(_Node(number if spaced else number + 1))
            place = children[letter]
        self.nodes[place].whole = len(phrase)
        self.nodes[place].spaced = not is_unspaced(phrase[-1])

    def _link(self) -> None:
        """Failure links, nearest nodes first."""
        waiting = deque(self.nodes[0].children.values())
        while waiting:
            node = self.nodes[waiting.popleft()]
            for letter, child in node.children.items():
                waiting.append(child)
                self.nodes[child].failure = self._next(node.failure, letter)

    def _next(self, place: int, letter: str) -> int:
        while place and letter not in self.nodes[place].children:
            place = self.nodes[place].failure
        return self.nodes[place].children.get(letter, 0)

    def _completed(self, place: int, letter: str) -> int:
        """Letters of the phrases that are complete at a place, since `letter` comes next (none at the end)."""
        at_end = letter != UNKNOWN and (not letter or unicodedata.category(letter)[0] not in "LMN")
        total = 0
        while place:
            node = self.nodes[place]
            if node.whole and (at_end or not node.spaced):
                total += node.whole
            place = node.failure
        return total

    def step(self, place: int, token: int, ends: bool) -> tuple[float, int]:
        """What a token adds at a place, and the place after it."""
        key = place * self._size + token
        if key not in self._steps:
            before, total = self.nodes[place].letters, 0
            for letter in [""] if ends else self._strings.get(token, UNKNOWN):
                total += self._completed(place, letter)
                place = self._next(place, letter) if letter else 0
            self._steps[key] = float(total + self.nodes[place].letters - before), place
        return self._steps[key]


class HotwordScorer:
    """Letters of hotwords; see the module.

    `bounds` says nothing of what a phrase may still bring: an utterance is done when none of its hypotheses can win
    without another hotword, else every search would run to its limit.
    """

    bounds = (-torch.inf, 0.0)

    def __init__(self, tree: HotwordTree, end_ids: Sequence[int], utterances: int, device: torch.device) -> None:
        self.tree, self.end_ids = tree, frozenset(end_ids)
        self._first = torch.zeros(utterances, 1, dtype=torch.long, device=device)

    def start(self) -> torch.Tensor:
        """Places (B, 1) in the tree."""
        return self._first

    def score_candidates(self, state: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Letters (B, K, C), float64."""
        return self._step(state[..., None].expand_as(tokens), tokens)[0]

    def advance(self, state: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The places after the tokens that were taken."""
        return self._step(state.flatten()[rows], tokens)[1]

    def _step(self, places: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pairs, inverse = torch.stack([places.flatten(), tokens.flatten()]).unique(dim=1, return_inverse=True)
        steps = [self.tree.step(place, token, token in self.end_ids) for place, token in pairs.T.tolist()]
        gains, after = (torch.tensor(column, device=tokens.device) for column in zip(*steps, strict=True))
        return gains.double()[inverse].view_as(tokens), after[inverse].view_as(tokens)
