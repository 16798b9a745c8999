"""How well phrases of a list are recognised: recall, precision, false insertions. A phrase is right where all its words
are, one after another, in the alignment."""

from collections import Counter
from collections.abc import Sequence

from asrllm.config import Config
from asrllm.score.align import Edit
from asrllm.score.utterances import Aligned


class PhraseScore(Config):
    """Occurrences of one phrase, or of all."""

    said: int  # in the references
    recognised: int  # in the hypotheses
    right: int  # in both, at the same place

    @property
    def false_insertions(self) -> int:
        """Recognised where they were not said."""
        return self.recognised - self.right

    @property
    def recall_percent(self) -> float | None:
        """None where it was never said."""
        return 100 * self.right / self.said if self.said else None

    @property
    def precision_percent(self) -> float | None:
        """None where it was never recognised."""
        return 100 * self.right / self.recognised if self.recognised else None


class HotwordScore(Config):
    """All phrases of a list."""

    total: PhraseScore
    phrases: dict[str, PhraseScore]  # those that occur


def hotwords(alignments: Sequence[Aligned], phrases: Sequence[str]) -> HotwordScore:
    """Count occurrences of `phrases`, written as the words of the alignments are."""
    wanted = {tuple(phrase.split()) for phrase in phrases} - {()}
    lengths = sorted({len(phrase) for phrase in wanted})
    said: Counter[tuple[str, ...]] = Counter()
    recognised, right = said.copy(), said.copy()
    for each in alignments:
        for side, counter in ((1, said), (2, recognised)):
            places = [place for place, edit in enumerate(each.edits) if edit[side]]
            for length in lengths:
                for first in range(len(places) - length + 1):
                    span = places[first : first + length]
                    if (phrase := tuple(each.edits[place][side] for place in span)) in wanted:
                        counter[phrase] += 1
                        if side == 1:
                            right[phrase] += _is_right(each.edits[span[0] : span[-1] + 1])
    scores = {
        " ".join(phrase): PhraseScore(said=said[phrase], recognised=recognised[phrase], right=right[phrase])
        for phrase in sorted(wanted)
        if said[phrase] or recognised[phrase]
    }
    total = PhraseScore(said=said.total(), recognised=recognised.total(), right=right.total())
    return HotwordScore(total=total, phrases=scores)


def line(score: PhraseScore) -> str:
    """Such as `hotword recall 80.00 [ 8 / 10 ], precision 88.89 [ 8 / 9 ], 1 false insertions`."""
    rates = ["-" if rate is None else f"{rate:.2f}" for rate in (score.recall_percent, score.precision_percent)]
    return (
        f"hotword recall {rates[0]} [ {score.right} / {score.said} ], "
        f"precision {rates[1]} [ {score.right} / {score.recognised} ], {score.false_insertions} false insertions"
    )


def _is_right(edits: Sequence[Edit]) -> bool:
    return all(kind == "C" for kind, _, _ in edits)
