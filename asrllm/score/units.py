"""How a plain transcript falls into the tokens that a rate counts: words, characters, the model's units, phones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from asrllm.console import UserError
from asrllm.score.markup import letters
from asrllm.score.scoring import ScoreConfig, Unit
from asrllm.score.transcripts import read_lines
from asrllm.score.utterances import Joined
from asrllm.text import tokenizer
from asrllm.text.phonemes import PhonemeTokenizer, speak

Split = Callable[[str], list[str]]


def splitter(unit: Unit, settings: ScoreConfig, spaced: bool) -> Split:
    """The function that cuts a transcript.

    Characters of a spaced writing count the space between words as `<space>`, as ESPnet does; `mixed` takes letters of
    ASCII together.

    Args:
        unit: what is counted.
        settings: `delete_hyphens`, `tokenizer` for `token`, `phone_map` for `phone`.
        spaced: whether the writing puts spaces between words.

    Raises:
        UserError: a tokenizer or map that is needed and missing or broken.
    """
    match unit:
        case "word":
            return str.split
        case "char" | "mixed":
            return _characters(
                unit == "char", ["<space>"] if unit == "char" and spaced else [], settings.delete_hyphens
            )
        case "token":
            if settings.tokenizer is None:
                raise UserError("the unit token needs the key tokenizer: the folder that stage 3 has written")
            return _tokens(Path(settings.tokenizer))
        case "phone":
            return _phones(Path(settings.phone_map)) if settings.phone_map else str.split


def pronounced(joined: Joined, settings: ScoreConfig) -> Joined:
    """With references in phonemes where `tokenizer` is one of phonemes, in which CTC heads write."""
    units = tokenizer.load(Path(settings.tokenizer)) if settings.tokenizer else None
    if not isinstance(units, PhonemeTokenizer):
        return joined
    spoken = [
        replace(each, ref=" ".join(speak(each.ref, units.config))) if isinstance(each.ref, str) else each
        for each in joined.utterances
    ]
    return replace(joined, utterances=spoken)


def _characters(split_ascii: bool, space: list[str], delete_hyphens: bool) -> Split:
    def split(text: str) -> list[str]:
        pieces: list[str] = []
        for word in text.split():
            pieces += (space if pieces else []) + letters(word, split_ascii, delete_hyphens)
        return pieces

    return split


def _tokens(folder: Path) -> Split:
    units = tokenizer.load(folder)
    names: dict[int, str] = {}

    def name(label: int) -> str:
        """What the unit writes, with its number: two units may write the same, or half a letter."""
        if label not in names:
            names[label] = f"{units.decode([label]).replace(' ', '_')}#{label}"
        return names[label]

    return lambda text: [name(label) for label in units.encode(text)]


def _phones(path: Path) -> Split:
    table: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        phone, *mapped = line.split() or [""]
        if not phone or len(mapped) > 1:
            raise UserError(f"{path}: line {number}: expected a phone and what it counts as, found {line!r}")
        table[phone] = mapped
    return lambda text: [each for phone in text.split() for each in table.get(phone, [phone])]
