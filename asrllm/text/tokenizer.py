"""Units of the CTC head: characters, sentencepiece, phonemes, or the LLM's own tokens, which CTC and LLM then share.

Id 0 is the blank in every kind. A tokenizer is trained on transcripts once (`text/tokenizer_training.py`), kept in a
folder and loaded from there; it knows nothing of audio or models.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import sentencepiece

from asrllm.console import UserError
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.phonemes import PhonemeConfig, PhonemeTokenizer

BLANK = 0


class Tokenizer(Protocol):
    """Text to CTC labels and back."""

    size: int  # units, the blank included

    def encode(self, text: str) -> list[int]:
        """Labels of a text, none of them the blank."""

    def decode(self, ids: list[int]) -> str:
        """Text of labels; decode(encode(text)) == text for text made of known characters and single spaces.

        Phonemes alone are no spelling: they give themselves.
        """

    def starts_word(self, label: int) -> bool:
        """Whether the label begins with a space, so that all words before it are complete."""


class CharacterTokenizer:
    """One label a character; characters never seen in training become `<unk>`."""

    def __init__(self, characters: list[str]) -> None:
        self.characters = characters
        self.size = len(characters) + 2  # blank, unknown
        self._id = {character: number for number, character in enumerate(characters, 2)}

    def encode(self, text: str) -> list[int]:
        """Labels of a text; 1 where a character is unknown."""
        return [self._id.get(character, 1) for character in text]

    def decode(self, ids: list[int]) -> str:
        """Text of labels."""
        return "".join("\u2047" if number == 1 else self.characters[number - 2] for number in ids)

    def starts_word(self, label: int) -> bool:
        """Whether the label is a space."""
        return label > 1 and self.characters[label - 2] == " "


class SentencePieceTokenizer:
    """A sentencepiece model, its ids moved up by one to make room for the blank."""

    def __init__(self, model: bytes) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size = self._processor.get_piece_size() + 1

    def encode(self, text: str) -> list[int]:
        """Labels of a text."""
        return [number + 1 for number in self._processor.encode(text)]

    def decode(self, ids: list[int]) -> str:
        """Text of labels."""
        return str(self._processor.decode([number - 1 for number in ids]))

    def starts_word(self, label: int) -> bool:
        """Whether the label's piece begins with sentencepiece's mark of a space."""
        return str(self._processor.id_to_piece(label - 1)).startswith("\u2581")


class LlmSubsetTokenizer:
    """Label i stands for the LLM's token `llm_ids[i - 1]`."""

    def __init__(self, llm: LlmTokenizer, llm_ids: list[int]) -> None:
        self.llm = llm
        self.llm_ids = llm_ids
        self.size = len(llm_ids) + 1
        self._label = {llm_id: label for label, llm_id in enumerate(llm_ids, 1)}
        self._label_of_string = {llm.strings[i]: label for label, i in enumerate(llm_ids, 1) if i in llm.strings}

    def encode(self, text: str) -> list[int]:
        """Labels of a text; characters that are no unit are an error.

        Raises:
            UserError: a character that never occurred in the training text and is not printable ASCII.
        """
        labels: list[int] = []
        for llm_id in self.llm.encode_transcript(text):
            spelled = self.spell(llm_id)
            if spelled is None:
                raise UserError(
                    f"transcript {text!r}: the LLM's token {llm_id} in it cannot be written in the CTC units: "
                    "train the tokenizer on text that holds its characters"
                )
            labels += spelled
        return labels

    def spell(self, llm_id: int) -> list[int] | None:
        """Labels of one token of the LLM; None where it cannot be written in them."""
        if llm_id in self._label:
            return [self._label[llm_id]]
        string = self.llm.strings.get(llm_id)
        pieces = None if string is None else fewest_pieces(string, self._label_of_string)
        return None if pieces is None else [self._label_of_string[piece] for piece in pieces]

    def decode(self, ids: list[int]) -> str:
        """Text of labels."""
        return self.llm.decode([self.llm_ids[label - 1] for label in ids])

    def starts_word(self, label: int) -> bool:
        """Whether the label's token begins with a space."""
        return self.llm.strings.get(self.llm_ids[label - 1], "").startswith(" ")

    def respell(self, ids: list[int]) -> list[tuple[int, int, int]]:
        """The text of labels in the tokens that the LLM would write it with.

        Returns:
            For each token of the LLM its id and the labels it covers, as (llm_id, first, last + 1). Two tokens may
            share a label. Where a label is only a part of a character, the labels' own tokens.
        """
        own = [self.llm_ids[label - 1] for label in ids]
        strings = [self.llm.strings.get(llm_id) for llm_id in own]
        text = "".join(string or "" for string in strings)
        tokens = self.llm.encode_template(text)
        if None in strings or "".join(self.llm.strings.get(token, "") for token in tokens) != text:
            return [(llm_id, place, place + 1) for place, llm_id in enumerate(own)]
        owner = [place for place, string in enumerate(strings) for _ in string or ""]  # character -> label
        spelled, start = [], 0
        for token in tokens:
            end = start + len(self.llm.strings[token])
            spelled.append((token, owner[start], owner[end - 1] + 1))
            start = end
        return spelled


def characters(units: Tokenizer) -> CharacterTokenizer:
    """The units that are single characters, as units of their own: a spelling of the same text.

    Raises:
        UserError: the units are phonemes.
    """
    if isinstance(units, PhonemeTokenizer):
        raise UserError("model.intermediate_units is character, but the CTC units are phonemes: choose same")
    texts = (units.decode([label]) for label in range(1, units.size))
    return CharacterTokenizer(sorted({" ", *(text for text in texts if len(text) == 1 and text != "\u2047")}))


def fewest_pieces(string: str, known: Iterable[str]) -> list[str] | None:
    """Split `string` into as few known pieces as possible; None where that cannot be done."""
    best: list[list[str] | None] = [[]] + [None] * len(string)
    for end in range(1, len(string) + 1):
        for start in range(end):
            before = best[start]
            if before is not None and string[start:end] in known:
                now = best[end]
                if now is None or len(before) + 1 < len(now):
                    best[end] = [*before, string[start:end]]
    return best[-1]


def load(folder: Path) -> CharacterTokenizer | SentencePieceTokenizer | LlmSubsetTokenizer | PhonemeTokenizer:
    """The tokenizer that was trained into `folder`."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: no tokenizer there: run stage 3 (train_tokenizer) first")
    saved = json.loads(path.read_text(encoding="utf-8"))
    match saved["type"]:
        case "character":
            return CharacterTokenizer(saved["characters"])
        case "sentencepiece":
            return SentencePieceTokenizer((folder / "model.spm").read_bytes())
        case "llm_subset":
            return LlmSubsetTokenizer(LlmTokenizer(str(folder / "llm")), saved["llm_ids"])
        case "phoneme":
            config = PhonemeConfig(type="phoneme", stress=saved["stress"], tones=saved["tones"])
            return PhonemeTokenizer(config, saved["phonemes"])
        case other:
            raise UserError(f"{path}: unknown type {other!r}")
