"""The tokens of the LLM, spelled in CTC labels, so that both can score one hypothesis.

Where a token is a chain of labels of its own, by `spell_tokens`; where only a whole word is, by `Words`. It knows text
and units; not posteriors, not searches.
"""

import unicodedata
from functools import lru_cache

from asrllm.console import UserError
from asrllm.text.lexicon import Lexicon
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.phonemes import PhonemeTokenizer
from asrllm.text.tokenizer import CharacterTokenizer, LlmSubsetTokenizer, SentencePieceTokenizer


def frames_needed(labels: list[int]) -> int:
    """Fewest frames in which CTC can write the labels: one each, and a blank between two equal ones."""
    return len(labels) + sum(first == second for first, second in zip(labels, labels[1:], strict=False))


def is_unspaced(letter: str) -> bool:
    """Whether a letter is of a writing without spaces between words; none is not."""
    return bool(letter) and unicodedata.name(letter, "").startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))


def spell_tokens(units: object, llm: LlmTokenizer) -> dict[int, list[int]]:
    """Labels of each token of the LLM that can be written in these units.

    With characters a text has no space before it, though the LLM's first token has one: see `first_space`.

    Raises:
        UserError: units in which a token has no spelling of its own.
    """
    match units:
        case LlmSubsetTokenizer():
            spelled = {llm_id: units.spell(llm_id) for llm_id in {*llm.strings, *units.llm_ids}}
            return {llm_id: labels for llm_id, labels in spelled.items() if labels is not None}
        case CharacterTokenizer():
            known = set(units.characters)
            texts = {llm_id: text if " " in known else text.replace(" ", "") for llm_id, text in llm.strings.items()}
            return {llm_id: units.encode(text) for llm_id, text in texts.items() if known.issuperset(text)}
        case PhonemeTokenizer():
            raise UserError(
                "CTC units that are phonemes spell no token of the LLM: for weights.ctc give search.lexicon, for "
                "weights.prior train the tokenizer with type llm_subset or character, or decode without them"
            )
        case _:
            raise UserError(
                f"CTC units of type {type(units).__name__} cannot be joined with the tokens of the LLM: "
                "train the tokenizer with type llm_subset or character, or decode without weights.ctc"
            )


def first_space(units: object) -> int | None:
    """The label that tokens of the LLM begin a transcript with and the units do not; None where both do."""
    return units.encode(" ")[0] if isinstance(units, CharacterTokenizer) and " " in units.characters else None


class Words:
    """Words of the LLM's tokens, in sentencepiece, whose pieces do not cross the borders of words, or by a lexicon."""

    def __init__(self, units: SentencePieceTokenizer | Lexicon, llm: LlmTokenizer) -> None:
        self.starts = {llm_id for llm_id, text in llm.strings.items() if text.startswith(" ")}
        ways = units.spell if isinstance(units, Lexicon) else lambda text: [units.encode(text)]
        self.spell = lru_cache(maxsize=100_000)(lambda tokens: ways(llm.decode(list(tokens))))
