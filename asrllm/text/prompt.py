"""The prompt: text with one slot for the audio, stored with the weights.

It knows tokens, not embeddings: `models/prefix.py` joins the pieces with the audio.
"""

from dataclasses import dataclass

import pydantic

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.text.llm_tokenizer import LlmTokenizer

SLOT = "<speech>"


def with_one(slot: str, template: str) -> str:
    """The template, which must hold the slot once; ValueError if it does not."""
    if template.count(slot) != 1:
        raise ValueError(f"the template must hold {slot} exactly once, found it {template.count(slot)} times")
    return template


class PromptConfig(Config):
    """`template` holds `<speech>` once; the transcript follows it after one space, then `end` (SLAM-ASR, section 3.1).

    An empty `end` means the tokenizer's own end token; a frozen LLM that reads examples wants their line end.
    """

    template: str = "USER: <speech> Transcribe speech to text. ASSISTANT:"
    end: str = ""

    @pydantic.field_validator("template")
    @classmethod
    def _one_slot(cls, template: str) -> str:
        return with_one(SLOT, template)


@dataclass(frozen=True)
class Prompt:
    """The tokens before and after the audio, and the token that ends the transcript."""

    before: list[int]
    after: list[int]
    end: int
    line: int = 0  # tokens of `before` on lines above that of the audio; 0 where a token crosses the border


def tokenize(config: PromptConfig, llm: LlmTokenizer) -> Prompt:
    """Tokens of a template.

    Raises:
        UserError: `end` is more than one token of this LLM.
    """
    before, after = config.template.split(SLOT)
    end = llm.encode_template(config.end) if config.end else [llm.end_id]
    if len(end) != 1:
        raise UserError(f"prompt.end {config.end!r} is {len(end)} tokens of the LLM: give text that is exactly one")
    tokens, above = llm.encode_template(before), llm.encode_template(before[: before.rfind("\n") + 1])
    line = len(above) if tokens[: len(above)] == above else 0
    return Prompt(tokens, llm.encode_template(after), end[0], line)
