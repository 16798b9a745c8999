"""Hotwords in the prompt: those of a list that the CTC head may have heard, in a line of text above that of the audio.

That CTC chooses is from Yang et al. 2024 (CTC-assisted LLM-based contextual ASR). The match is ours, 1 - edits / length
by the fewest edits between the phrase and any piece of the greedy CTC hypothesis. Compared are letters, and a phrase
must begin and end where words do; or, where the CTC units are phonemes, sounds. It does not know of searches.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
import pydantic
import torch

from asrllm.config import Config
from asrllm.console import UserError
from asrllm.decode.ctc_search import ctc_greedy
from asrllm.decode.scorer import CtcTokenizer, LlmTokenizer
from asrllm.text.phonemes import PhonemeTokenizer
from asrllm.text.prompt import with_one
from asrllm.text.spelling import is_unspaced

SLOT = "<hotwords>"


class HotwordPromptConfig(Config):
    """At most `most` phrases of `file`, whose match is at least `match`, best first, stand in `template`."""

    file: str  # one phrase a line
    most: int = pydantic.Field(10, ge=1)
    match: float = pydantic.Field(0.75, gt=0.0, le=1.0)
    template: str = f"Hotwords: {SLOT}\n"

    @pydantic.field_validator("template")
    @classmethod
    def _one_slot(cls, template: str) -> str:
        return with_one(SLOT, template)


class HotwordPrompt:
    """The phrases of a list, ready to be matched."""

    def __init__(
        self, config: HotwordPromptConfig, phrases: Sequence[str], units: CtcTokenizer, tokens: LlmTokenizer
    ) -> None:
        """Read phrases, CTC units and the tokens of the LLM.

        Raises:
            UserError: a phrase has neither letters nor sounds.
        """
        self.config, self.phrases, self.units, self.tokens = config, phrases, units, tokens
        symbols = [self._symbols(phrase) for phrase in phrases]
        if [] in symbols:
            phrase = phrases[symbols.index([])]
            raise UserError(f"{config.file}: {phrase!r}: no letter in it, so that nobody can hear it: take it out")
        self._lens = np.array([len(row) for row in symbols])
        if not self._by_sound:
            symbols = [_within_words(row) for row in symbols]
        self._patterns = symbols

    @property
    def _by_sound(self) -> bool:
        return isinstance(self.units, PhonemeTokenizer)

    def hints(self, log_probs: torch.Tensor, lens: torch.Tensor) -> tuple[list[list[int]], list[dict[str, int]]]:
        """For each utterance the tokens of its line of the prompt, and how many phrases matched and were prompted.

        Args:
            log_probs: (B, T, U) of the CTC head.
            lens: (B,) frames that are real.
        """
        hints, counts = [], []
        for labels, _ in ctc_greedy(log_probs, lens):
            matched = self.matched(labels)
            prompted = matched[: self.config.most]
            text = self.config.template.replace(SLOT, ", ".join(prompted)) if prompted else ""
            hints.append(self.tokens.encode_template(text))
            counts.append({"hotwords_matched": len(matched), "hotwords_prompted": len(prompted)})
        return hints, counts

    def matched(self, labels: list[int]) -> list[str]:
        """The phrases that the CTC hypothesis `labels` may hold, best match first, equal ones as in the list."""
        heard = labels if self._by_sound else _within_words(self._symbols(self.units.decode(labels)))
        match = 1.0 - fewest_edits(self._patterns, heard) / self._lens
        order = np.argsort(-match, kind="stable")
        return [self.phrases[place] for place in order if match[place] >= self.config.match]

    def _symbols(self, text: str) -> list[int]:
        """Sounds, or letters of words with single spaces between them."""
        if self._by_sound:
            return self.units.encode(text)
        letters = (each if unicodedata.category(each)[0] in "LMN" else " " for each in text.casefold())
        return [ord(letter) for letter in " ".join("".join(letters).split())]


def fewest_edits(patterns: Sequence[Sequence[int]], heard: Sequence[int]) -> np.ndarray:
    """The least edit distance (N,) from each pattern to any piece of `heard` (Sellers 1980), for all at once."""
    lens = np.array([len(pattern) for pattern in patterns])
    table = np.full((len(patterns), lens.max(initial=0)), -1)
    for row, pattern in zip(table, patterns, strict=True):
        row[: len(pattern)] = pattern
    steps = np.arange(table.shape[1] + 1)
    edits = np.tile(steps, (len(patterns), 1))  # of each beginning of a pattern, to the best piece that ends here
    best = lens
    for symbol in heard:
        changed, added = edits[:, :-1] + (table != symbol), edits[:, 1:] + 1
        edits = np.pad(np.minimum(changed, added), ((0, 0), (1, 0)))
        edits = np.minimum.accumulate(edits - steps, 1) + steps  # symbols of the pattern that nobody said
        best = np.minimum(best, edits[np.arange(len(patterns)), lens])
    return best


def _within_words(letters: list[int]) -> list[int]:
    """With a space at each end, unless the writing has none there."""
    space = ord(" ")
    if not letters:
        return [space]
    first, last = ([] if is_unspaced(chr(letter)) else [space] for letter in (letters[0], letters[-1]))
    return [*first, *letters, *last]
