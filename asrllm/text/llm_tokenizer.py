"""The LLM's own tokenizer, with the one rule that all of the project shares: a transcript begins with a space.

So the first word has the same token as any other, and CTC labels taken from the LLM's vocabulary are the very tokens
that the LLM is trained to write.
"""

from functools import cached_property
from pathlib import Path

from asrllm.console import UserError


class LlmTokenizer:
    """A tokenizer of transformers, from a hub id, a folder or a GGUF file."""

    def __init__(self, source: str) -> None:
        from transformers import AutoTokenizer

        path = Path(source)
        try:
            if path.suffix == ".gguf":
                self._tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
            else:
                self._tokenizer = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{source}: no tokenizer loads from this folder, file or hub id ({reason})") from None
        if self._tokenizer.eos_token_id is None:
            raise UserError(f"{source}: the tokenizer has no end token, which ends a transcript")

    @property
    def end_id(self) -> int:
        """The token that ends a transcript."""
        return int(self._tokenizer.eos_token_id)

    def same_vocabulary(self, other: "LlmTokenizer") -> bool:
        """Whether both give every token the same id."""
        return bool(self._tokenizer.get_vocab() == other._tokenizer.get_vocab())

    def encode_transcript(self, text: str) -> list[int]:
        """Tokens of a transcript, written with one space before it, without begin and end tokens."""
        return list(self._tokenizer.encode(" " + text, add_special_tokens=False)) if text else []

    def encode_template(self, text: str) -> list[int]:
        """Tokens of a piece of the prompt; special tokens may be spelled out in it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False)) if text else []

    def decode(self, ids: list[int]) -> str:
        """Text of tokens, special tokens left out, without the space before it."""
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    @cached_property
    def strings(self) -> dict[int, str]:
        """Token id -> its text, spaces as spaces; tokens that are no whole characters are left out."""
        special = set(self._tokenizer.all_special_ids)
        ids = [number for number in self._tokenizer.get_vocab().values() if number not in special]
        anchor = self._tokenizer.encode("a", add_special_tokens=False)
        strings: dict[int, str] = {}
        for number in ids:
            text = str(self._tokenizer.decode([*anchor, number], clean_up_tokenization_spaces=False))[1:]
            if text and "\ufffd" not in text:
                strings[number] = text
        return strings

    @cached_property
    def id_of_string(self) -> dict[str, int]:
        """Text -> the lowest token id with that text."""
        return {text: number for number, text in sorted(self.strings.items(), reverse=True)}

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files to a folder that this class reads."""
        self._tokenizer.save_pretrained(str(folder))
