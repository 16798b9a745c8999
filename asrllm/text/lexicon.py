"""A lexicon: how words are pronounced, in labels of a CTC head whose units are phonemes.

So the words of an LLM can be joined with such a head. It knows words and labels; not tokens of an LLM, not posteriors.
"""

from collections.abc import Mapping
from itertools import islice, product
from pathlib import Path

from asrllm.console import UserError
from asrllm.text.phonemes import PhonemeTokenizer, pieces, without_stress

Pronunciations = list[list[int]]  # of one word, in labels, no two alike
MOST = 16  # pronunciations of a chain of words without spaces


class Lexicon:
    """Pronunciations of a file; of other words those that the units were trained on, with all that CMUdict lists."""

    def __init__(self, units: PhonemeTokenizer, listed: Mapping[str, Pronunciations] | None = None) -> None:
        """Read the words `listed` in lower case."""
        self._units, self._listed = units, listed or {}

    def spell(self, text: str) -> Pronunciations:
        """Those of what stands between two spaces: of all of it, if that is listed, or of its pieces in all ways."""
        if whole := self._listed.get(text.lower()):
            return whole
        ways = product(*(self._listed.get(piece) or self._units.pronunciations(piece) for piece in pieces(text)))
        return [list(each) for each in dict.fromkeys(tuple(sum(way, [])) for way in islice(ways, MOST))]


def read_lexicon(path: Path, units: PhonemeTokenizer) -> Lexicon:
    """Kaldi's `lexicon.txt`: a word and its phonemes a line, further pronunciations of a word in lines of their own.

    Stress is left out where the units have none.

    Raises:
        UserError: no such file, not UTF-8, or a line without a pronunciation, with one given before, or with a phoneme
            that is no unit.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"{path}: no readable lexicon ({error.strerror}): give one word and its phonemes a line"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}): convert it with iconv") from None
    listed: dict[str, Pronunciations] = {}
    given: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(lines, 1):
        word, *spoken = line.split() or [""]
        if not spoken:
            raise UserError(f"{path}: line {number}: found {line.strip()!r}, expected a word and its phonemes: mend it")
        if (before := given.setdefault((word.lower(), *spoken), number)) != number:
            raise UserError(f"{path}: line {number}: {word!r} as in line {before}: take one of both out")
        labels = [_label(phoneme, units) for phoneme in spoken]
        if None in labels:
            raise UserError(
                f"{path}: line {number}: {spoken[labels.index(None)]!r} of {word!r} is no CTC unit, expected some of "
                f"{' '.join(units.phonemes)}: write it with these or take the line out"
            )
        ways = listed.setdefault(word.lower(), [])
        if labels not in ways:  # two may differ in stress alone
            ways.append([label for label in labels if label is not None])
    if not listed:
        raise UserError(f"{path}: no word in it: expected one with its phonemes a line")
    return Lexicon(units, listed)


def _label(phoneme: str, units: PhonemeTokenizer) -> int | None:
    return units.label_of.get(phoneme if units.config.stress else without_stress(phoneme))
