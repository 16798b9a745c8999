"""Text normalisers for scoring: what counts as the same word.

A normaliser sees one transcript and knows nothing of references, hypotheses or error rates. Its name and version stand
in every result, because figures under different normalisers must not be compared.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

from asrllm.console import UserError

NormalizerName = Literal[
    "none", "kaldi_upper", "kaldi_lower", "basic", "whisper_basic", "whisper_english", "open_asr", "mandarin"
]
WITH_SPELLINGS = ("whisper_english", "open_asr")

_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HAN_CHARACTER = re.compile(f"([{_HAN}])")
_NO_SPEECH = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]|!sil", re.IGNORECASE)
_INITIALS = re.compile(r"\b[a-z](?:\.[a-z]){1,3}\.?\b"), re.compile(r"\b[a-z](?:\.\s+[a-z]){1,3}\.\b")
_APOSTROPHES = str.maketrans("\u2018\u2019\u02bc\uff07", "''''")


@dataclass(frozen=True)
class Normalizer:
    """A function from text to text with words separated by single spaces."""

    name: NormalizerName
    version: str
    function: Callable[[str], str]
    spaced: bool = True  # False where the writing has no spaces, so that a space is no character to be scored

    def __call__(self, text: str) -> str:
        """The normalised text; empty where nothing is left."""
        return self.function(text)


def normalizer(name: NormalizerName, spelling_table: Path | None = None) -> Normalizer:
    """The normaliser of that name.

    - `none`: spaces squeezed, nothing else.
    - `kaldi_upper`, `kaldi_lower`: one case, symbols that are no speech (<unk>, [noise], !sil) left out, nothing else.
    - `basic`: lower case, punctuation and symbols removed, spaces squeezed. An apostrophe inside a word stays (don't);
      a hyphen parts two words.
    - `whisper_basic`: transformers' BasicTextNormalizer, for any language: lower case, text in brackets, symbols and
      punctuation removed.
    - `whisper_english`: transformers' EnglishTextNormalizer (Radford et al. 2022, appendix C): numbers as digits,
      contractions spelled out, fillers removed. transformers does not carry the table of British and American spelling:
      without `spelling_table` (a `normalizer.json`, which Whisper checkpoints on the hub have) colour and color stay
      different words. The version tells which.
    - `open_asr`: that of the Open ASR Leaderboard for English: ellipses removed, initials joined (u.s. is us), then
      Whisper's English. The leaderboard brings a spelling table of its own: give it as `spelling_table`.
    - `mandarin`: full-width forms folded (NFKC), then as `basic`; each Han character is a word of its own, Latin words
      and digits stay whole.

    Raises:
        UserError: unknown name; a spelling table for another normaliser, or one that is not a JSON object of strings.
    """
    if spelling_table is not None and name not in WITH_SPELLINGS:
        owners = " and ".join(WITH_SPELLINGS)
        raise UserError(f"spelling_table belongs to the normalizers {owners}, found normalizer {name}: leave it out")
    match name:
        case "none":
            return Normalizer(name, "1", _squeeze)
        case "kaldi_upper":
            return Normalizer(name, "1", lambda text: _speech(text).upper())
        case "kaldi_lower":
            return Normalizer(name, "1", lambda text: _speech(text).lower())
        case "whisper_basic":
            return _whisper_basic()
        case "open_asr":
            whisper = _whisper_english(spelling_table)
            return Normalizer(name, f"1, {whisper.version}", lambda text: whisper(_without_initials(text)))
        case "basic":
            return Normalizer(name, "1", _basic)
        case "whisper_english":
            return _whisper_english(spelling_table)
        case "mandarin":
            return Normalizer(name, "1", _mandarin, spaced=False)
    raise UserError(f"normalizer {name!r} is unknown: choose one of {', '.join(get_args(NormalizerName))}")


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _basic(text: str) -> str:
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES).lower()
    kept = (" " if unicodedata.category(letter)[0] in "PSC" and letter != "'" else letter for letter in text)
    return _squeeze(re.sub(r"(?<!\w)'|'(?!\w)", " ", "".join(kept)))


def _mandarin(text: str) -> str:
    return _squeeze(_HAN_CHARACTER.sub(r" \1 ", _basic(unicodedata.normalize("NFKC", text))))


def _speech(text: str) -> str:
    """The words of Kaldi's text without its symbols for what is no speech."""
    return " ".join(word for word in text.split() if not _NO_SPEECH.fullmatch(word))


def _without_initials(text: str) -> str:
    text = re.sub(r"\s*\.{3,}\s*", " ", re.sub(r"\.{3,}\s*$", "", text.lower()))
    for pattern in _INITIALS:
        text = pattern.sub(lambda match: re.sub(r"[.\s]", "", match[0]), text)
    return text


def _whisper_basic() -> Normalizer:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    normalize = BasicTextNormalizer()
    return Normalizer(
        "whisper_basic", f"transformers {version('transformers')}", lambda text: _squeeze(normalize(text))
    )


def _whisper_english(spelling_table: Path | None) -> Normalizer:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer  # no model code behind it

    spellings = {} if spelling_table is None else _read_spellings(spelling_table)
    release = f"transformers {version('transformers')}, {len(spellings) or 'no'} spellings"
    normalize = EnglishTextNormalizer(spellings)
    return Normalizer("whisper_english", release, lambda text: _squeeze(normalize(text)))


def _read_spellings(path: Path) -> dict[str, str]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise UserError(f"{path}: not a readable spelling table: {fault}") from None
    if not isinstance(table, dict) or not all(isinstance(word, str) for word in table.values()):
        raise UserError(f'{path}: expected a JSON object such as {{"colour": "color"}}, found {type(table).__name__}')
    return table
