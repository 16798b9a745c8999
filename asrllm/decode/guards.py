"""Guards against text that nobody said: each has a switch, and what it does is counted in the result (ours).

- A hypothesis that says one n-gram over and over ends there (`loop`, in the beam).
- A text that the CTC head finds far less probable than its own gives way to that (`ctc_agreement`).
- Where the CTC head says blank throughout nothing is recognised (`no_speech`), and the LLM is not asked.

The token limit from the duration is a guard as well, always on (`BeamConfig.tokens_per_second`). Each looks at one
utterance, so that none depends on batch mates. It does not know how a search works.
"""

from collections.abc import Callable, Sequence

import pydantic
import torch

from asrllm.batch import Batch
from asrllm.config import Config
from asrllm.console import UserError
from asrllm.decode.ctc_search import BLANK, ctc_greedy
from asrllm.decode.rescore import full_sums
from asrllm.decode.scorer import CtcTokenizer, SpeechModel, encoded
from asrllm.hypothesis import Hypothesis

TOKEN_LIMIT, LOOP, CTC_AGREEMENT, NO_SPEECH = (
    f"guard_{name}" for name in ("token_limit", "loop", "ctc_agreement", "no_speech")
)
SAID = {
    TOKEN_LIMIT: "reached the token limit without an end token",
    LOOP: "stopped in a loop",
    CTC_AGREEMENT: "given the text of CTC, which that of the search was far from",
    NO_SPEECH: "without speech, given an empty text",
}


Found = tuple[list[list[Hypothesis]], list[dict[str, int]]]  # for each utterance its hypotheses, and counts


class LoopConfig(Config):
    """A hypothesis ends where an n-gram of up to `ngram` tokens stands `times` times in a row."""

    ngram: int = pydantic.Field(8, ge=1)
    times: int = pydantic.Field(6, ge=2)


class AgreementConfig(Config):
    """The text of CTC replaces one whose CTC log-probability per label is more than `margin` below its own."""

    margin: float = pydantic.Field(gt=0.0)  # natural logarithm


class NoSpeechConfig(Config):
    """Without speech is audio of which at least the share `blank_rate` of frames is most probably blank."""

    blank_rate: float = pydantic.Field(1.0, gt=0.0, le=1.0)


class GuardsConfig(Config):
    """Which guards are on."""

    loop: LoopConfig | None = None
    ctc_agreement: AgreementConfig | None = None
    no_speech: NoSpeechConfig | None = None


def ends_in_loop(tokens: torch.Tensor, config: LoopConfig | None) -> torch.Tensor:
    """Whether sequences (..., L) end in repetitions; False without a configuration."""
    found = torch.zeros(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
    if config is None:
        return found
    for size in range(1, min(config.ngram, tokens.shape[-1] // config.times) + 1):
        tail = tokens[..., -size * config.times :]
        found |= (tail[..., size:] == tail[..., :-size]).all(-1)
    return found


def guarded(model: SpeechModel, batch: Batch, config: GuardsConfig, search: Callable[[Batch], Found]) -> Found:
    """What `search` finds, but for utterances without speech, which it is not given, and what CTC objects to.

    Where CTC objects its text comes first and the hypotheses of the search after it.
    """
    if config.no_speech is None and config.ctc_agreement is None:
        hypotheses, counts = search(batch)
        return hypotheses, [count | _cut(pool[0], config) for pool, count in zip(hypotheses, counts, strict=True)]
    batch = encoded(model, batch)
    log_probs, lens = model.ctc_log_probs(batch)
    rows = [row[:size] for row, size in zip(log_probs, lens.tolist(), strict=True)]
    hypotheses, counts = [[silence(row)] for row in rows], [{NO_SPEECH: 1} for _ in rows]
    if not (speech := [place for place, row in enumerate(rows) if has_speech(row, config.no_speech)]):
        return hypotheses, counts
    for place, pool, count in zip(speech, *search(batch.take(speech)), strict=True):
        hypotheses[place], counts[place] = pool, count | _cut(pool[0], config)
        if text := ctc_text(pool[0], rows[place], model.ctc_tokenizer, config.ctc_agreement):
            hypotheses[place] = [text, *pool]
            counts[place][CTC_AGREEMENT] = 1
    return hypotheses, counts


def has_speech(log_probs: torch.Tensor, config: NoSpeechConfig | None) -> bool:
    """Of an utterance with posteriors (T, V); True without a configuration."""
    if config is None:
        return True
    blank = log_probs.argmax(1) == BLANK
    return bool(len(blank)) and blank.double().mean().item() < config.blank_rate


def silence(log_probs: torch.Tensor) -> Hypothesis:
    """No text, with its CTC score by posteriors (T, V)."""
    total = float(log_probs[:, BLANK].double().sum())
    return Hypothesis("", total, {"ctc": total})


def ctc_text(
    best: Hypothesis, log_probs: torch.Tensor, units: CtcTokenizer, config: AgreementConfig | None
) -> Hypothesis | None:
    """What CTC hears in posteriors (T, V), where `best` is far from it; None where it is not, or nobody asks."""
    if config is None:
        return None
    ((labels, total),) = ctc_greedy(log_probs[None], torch.tensor([len(log_probs)], device=log_probs.device))
    try:
        written: list[int] | None = units.encode(best.text)
    except UserError:  # a character that is no unit
        written = None
    own, other = full_sums(log_probs, [labels, written])
    if other / _count(written) >= own / _count(labels) - config.margin:
        return None
    return Hypothesis(units.decode(labels), total, {"ctc": total}, labels)


def _cut(best: Hypothesis, config: GuardsConfig) -> dict[str, int]:
    """How a hypothesis was cut off, if it was."""
    if best.ended:
        return {}
    return {LOOP if bool(ends_in_loop(torch.tensor(best.tokens), config.loop)) else TOKEN_LIMIT: 1}


def _count(labels: Sequence[int] | None) -> int:
    return max(1, len(labels or ()))
