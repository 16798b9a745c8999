"""A language model over text alone: an LLM, its tokenizer, and what it reads before a transcript.

It knows text and tokens; not audio, not search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.decode.token_tree import TokenTree
from asrllm.text.llm_tokenizer import LlmTokenizer


class TextLmConfig(Config):
    """Where the LM comes from, and the text around a transcript.

    `context` may hold examples of transcripts, special tokens spelled out; where it is empty, the end token of the
    tokenizer stands before the transcript. `end` is the one token that ends a transcript; empty: the same end token.
    """

    model: str  # hub id, local folder, or path of a .gguf file
    dtype: Literal["fp32", "bf16"] = "fp32"  # of the weights in memory
    context: str = ""
    end: str = ""


@dataclass(frozen=True)
class TextLm:
    """Log-probabilities of whole transcripts, end token included."""

    llm: Any
    tokenizer: LlmTokenizer
    context: Sequence[int]
    end: int

    def tree(self) -> TokenTree:
        """A tree of tokens after the context."""
        ids = torch.tensor(self.context, device=self.llm.device)
        return TokenTree(self.llm, self.llm.get_input_embeddings()(ids))

    def tokens(self, text: str) -> list[int]:
        """Tokens of a transcript, or of some of its words, without the end token."""
        return self.tokenizer.encode_transcript(" ".join(text.split()))


def text_lm(config: TextLmConfig, llm: Any, tokenizer: LlmTokenizer) -> TextLm:
    """Tie an LLM to the text around a transcript.

    Raises:
        UserError: `end` is more than one token of this LLM.
    """
    end = tokenizer.encode_template(config.end) or [tokenizer.end_id]
    if len(end) != 1:
        raise UserError(f"lm.end {config.end!r} is {len(end)} tokens of {config.model}: give text that is exactly one")
    return TextLm(llm, tokenizer, tokenizer.encode_template(config.context) or [tokenizer.end_id], end[0])
