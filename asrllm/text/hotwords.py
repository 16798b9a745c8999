"""Hotwords: phrases that are likely to be said, such as names; a file with one phrase a line. It knows texts only."""

from collections.abc import Sequence
from pathlib import Path

from asrllm.console import UserError
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.tokenizer import Tokenizer

UNKNOWN = "\u2047"  # what units write for a letter that they do not know


def read_hotwords(path: Path) -> list[str]:
    """The phrases of a file, each once, words parted by single spaces; empty lines are let pass.

    Raises:
        UserError: no such file, not UTF-8, or no phrase in it.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: no readable file of hotwords ({error.strerror}): give one phrase a line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}): convert it with iconv") from None
    phrases = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not phrases:
        raise UserError(f"{path}: no phrase in it: expected one a line")
    return phrases


def check_hotwords(phrases: Sequence[str], llm: LlmTokenizer, units: Tokenizer | None, where: str) -> None:
    """Refuse phrases that cannot be written in the tokens of the LLM, or in the CTC `units` if they have a say.

    Raises:
        UserError: names phrase and letter.
    """
    letters = {letter for text in llm.strings.values() for letter in text}
    for phrase in phrases:
        if unknown := [letter for letter in phrase if letter not in letters]:
            raise UserError(f"{where}: {phrase!r}: no token of the LLM is written with {unknown[0]!r}: take it out")
        if units is not None and (unknown := [letter for letter in phrase if not _is_known(letter, units)]):
            raise UserError(
                f"{where}: {phrase!r}: {unknown[0]!r} is no CTC unit, so that joint decoding would never write it: "
                "take the phrase out, or leave weights.ctc out"
            )


def _is_known(letter: str, units: Tokenizer) -> bool:
    try:
        return UNKNOWN not in units.decode(units.encode(letter)) if letter != " " else True
    except UserError:
        return False
