"""Alignment of transcripts that hold alternatives: both sides are networks of words, as in sclite.

Equal in costs and in the choice among equal paths: arcs are numbered in sclite's order, paths compared in its single
precision, since the 0.001 that an unsaid `@` costs makes rounding decide between some paths. Costs: 0 for equal words,
0.001 for `@` against nothing, 1 for `@` against `@`, 2 for an optional word against nothing, 3 for another word against
nothing, 4 for two different words.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from asrllm.score.align import Edit, Kind
from asrllm.score.markup import NULL, Item, Word

Step = tuple[Kind, Word | None, Word | None]
Cost = Callable[[Word | None, Word | None], float]


@dataclass(eq=False)
class _Node:
    ins: list["_Arc"] = field(default_factory=list)
    outs: list["_Arc"] = field(default_factory=list)


@dataclass(eq=False)
class _Arc:
    word: Word
    start: _Node
    end: _Node


@dataclass(frozen=True)
class Network:
    """Arcs in sclite's order, from 1; 0 stands for what comes before all of them."""

    words: Sequence[Word]
    before: Sequence[Sequence[int]]  # numbers of the arcs that end where an arc begins
    last: Sequence[int]  # numbers of the arcs that end the network


def network(items: Sequence[Item], spell: Callable[[Word], Sequence[Word]] | None = None) -> Network:
    """Network of a transcript; `spell` replaces every word by others, such as its characters."""
    start, stop = _Node(), _Node()
    if not items:
        return Network((), (), (0,))
    _connect(items, start, stop)
    if spell is not None:
        _respell(start, spell)
    return _numbered(start, stop)


def _connect(items: Sequence[Item], start: _Node, stop: _Node) -> None:
    for place, item in enumerate(items):
        end = stop if place == len(items) - 1 else _Node()
        if isinstance(item, Word):
            _add(item, start, end)
        else:
            for part in item:
                _connect(part, start, end)
        start = end


def _add(word: Word, start: _Node, end: _Node) -> None:
    arc = _Arc(word, start, end)
    start.outs.append(arc)
    end.ins.append(arc)


def _respell(start: _Node, spell: Callable[[Word], Sequence[Word]]) -> None:
    """Replace words in sclite's order: what is replaced goes behind what is not, which decides between equal paths."""
    nodes, seen = [start], {id(start)}
    while nodes:
        node = nodes.pop()
        for arc in node.outs:
            if id(arc.end) not in seen:
                seen.add(id(arc.end))
                nodes.append(arc.end)
        for arc in list(node.outs):
            words = spell(arc.word)
            if " ".join(word.bare for word in words) != arc.word.text:
                _connect(tuple(words), arc.start, arc.end)
                arc.start.outs.remove(arc)
                arc.end.ins.remove(arc)


def _numbered(start: _Node, stop: _Node) -> Network:
    numbers: dict[int, int] = {}
    words, nodes = [], []
    waiting = {id(start): 0}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for arc in node.outs:
            waiting[id(arc.end)] = waiting.get(id(arc.end), len(arc.end.ins)) - 1
            if waiting[id(arc.end)] == 0:
                queue.append(arc.end)
        for arc in node.outs:
            numbers[id(arc)] = len(numbers) + 1
            words.append(arc.word)
            nodes.append(node)
    ends = {id(node): tuple(numbers[id(arc)] for arc in node.ins) for node in [*nodes, stop]}
    return Network(words, [ends[id(node)] or (0,) for node in nodes], ends[id(stop)])


def equal(ref: Word, hyp: Word) -> bool:
    """Whether two words count as the same: as written, or a fragment and a word that begins or ends so."""
    one, other = ref.bare, hyp.bare
    if ref.fragment or hyp.fragment:
        for piece, whole in ((one, other), (other, one)):
            if len(piece) > 1 and piece[0] == "-":
                return whole.endswith(piece[1:])
            if len(piece) > 1 and piece[-1] == "-":
                return whole.startswith(piece[:-1])
    return one == other


def word_cost(ref: Word | None, hyp: Word | None) -> float:
    """sclite's cost of a word against a word or nothing; see the module."""
    if ref is None or hyp is None:
        word = hyp if ref is None else ref
        assert word is not None
        return 0.001 if word.text == NULL else 2.0 if word.optional else 3.0
    if ref.text == NULL and hyp.text == NULL:
        return 1.0
    return 0.0 if equal(ref, hyp) else 4.0


def time_cost(ref: Word | None, hyp: Word | None) -> float:
    """sclite -T: how far two timed words lie apart, in seconds; a word against nothing costs its duration."""
    if ref is None or hyp is None:
        word = hyp if ref is None else ref
        assert word is not None
        return 0.001 if word.text == NULL else word.start + word.seconds - word.start
    ends = abs((ref.start + ref.seconds) - (hyp.start + hyp.seconds))
    return abs(ref.start - hyp.start) + ends + (0.0 if equal(ref, hyp) else 0.001)


def align_networks(ref: Network, hyp: Network, cost: Cost = word_cost) -> list[Step]:
    """Steps of the cheapest path through both networks; `@` against nothing is left out."""
    table, back = _table(ref, hyp, cost)
    a, b = min(((x, y) for x in ref.last for y in hyp.last), key=lambda cell: table[cell[0]][cell[1]])
    steps: list[Step] = []
    while a or b:
        old_a, old_b = back[a][b]
        left = None if old_a == a else ref.words[a - 1]
        right = None if left is not None and old_b == b else hyp.words[b - 1]
        if not all(word is None or word.text == NULL for word in (left, right)):
            steps.append((_kind(left, right), left, right))
        a, b = old_a, old_b
    return steps[::-1]


def _kind(ref: Word | None, hyp: Word | None) -> Kind:
    if ref is not None and hyp is not None:
        return "C" if equal(ref, hyp) else "S"
    word = hyp if ref is None else ref
    assert word is not None
    if word.optional:
        return "C"
    return "I" if ref is None else "D"


def as_edits(steps: Sequence[Step]) -> list[Edit]:
    """The steps as words alone; a left-out optional word stands against the empty word, and is correct."""
    return [(kind, ref.text if ref else "", hyp.text if hyp else "") for kind, ref, hyp in steps]


def _table(ref: Network, hyp: Network, cost: Cost) -> tuple[list[list[float]], list[list[tuple[int, int]]]]:
    """Lowest cost of reaching the end of each pair of arcs, and the pair before."""
    ref_alone = [0.0, *(_single(cost(word, None)) for word in ref.words)]
    hyp_alone = [0.0, *(_single(cost(None, word)) for word in hyp.words)]
    table = [[0.0] * (len(hyp.words) + 1) for _ in ref_alone]
    back = [[(0, 0)] * (len(hyp.words) + 1) for _ in ref_alone]
    for b in range(1, len(hyp_alone)):
        best = min(hyp.before[b - 1], key=table[0].__getitem__)
        table[0][b], back[0][b] = _single(table[0][best] + hyp_alone[b]), (0, best)
    for a in range(1, len(ref_alone)):
        rows = ref.before[a - 1]
        best = min(rows, key=lambda row: table[row][0])
        table[a][0], back[a][0] = _single(table[best][0] + ref_alone[a]), (best, 0)
        for b in range(1, len(hyp_alone)):
            columns = hyp.before[b - 1]
            insert_b = min(columns, key=table[a].__getitem__)
            delete_a = min(rows, key=lambda row: table[row][b])
            both = min(((row, column) for row in rows for column in columns), key=lambda at: table[at[0]][at[1]])
            inserted = _single(table[a][insert_b] + hyp_alone[b])
            deleted = _single(table[delete_a][b] + ref_alone[a])
            kept = _single(table[both[0]][both[1]] + _single(cost(ref.words[a - 1], hyp.words[b - 1])))
            if kept <= deleted and kept <= inserted:
                table[a][b], back[a][b] = kept, both
            elif deleted < inserted:
                table[a][b], back[a][b] = deleted, (delete_a, b)
            else:
                table[a][b], back[a][b] = inserted, (a, insert_b)
    return table, back


def _single(value: float) -> float:
    """The value in single precision."""
    return value if value.is_integer() else float(np.float32(value))
