"""Text that nobody said: how often a decoding makes it up, each share with its exact binomial interval.

Definitions are ours (no two papers agree); the opposite fault, truncation, stands beside them, since a model is easily
cured of one by the other. Everything is counted after the normaliser, in the tokens of the alignment.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from scipy import stats

from asrllm.config import Config
from asrllm.score.align import Edit
from asrllm.score.utterances import Aligned

LENGTH_FACTOR, LENGTH_MORE, OVERLAP_BELOW = 1.5, 2, 0.2
INSERTED_IN_A_ROW = 5
LOOP_NGRAM, LOOP_TIMES = 8, 4
TRUNCATED = 0.5


class Share(Config):
    """Cases among utterances."""

    cases: int
    total: int
    percent: float | None  # None of nothing
    interval_percent: tuple[float, float] | None  # 95 %, Clopper and Pearson 1934
    examples: tuple[str, ...]  # the first utterance ids


class Hallucination(Config):
    """The shares of one set; the first three and truncation of utterances with speech, the last of those without."""

    unrelated: Share  # at least 1.5 x reference + 2 tokens, and token F1 below 0.2
    inserted: Share  # 5 insertions or more in a row
    looping: Share  # some n-gram, n <= 8, 4 times in a row, and none in the reference
    truncated: Share  # at most half as long as the reference
    non_speech: Share  # something recognised where nothing was said
    non_speech_letters_per_minute: float | None  # None without such utterances, or where their durations are unknown
    guarded: dict[str, Share] = {}  # guard of the decoding that changed a text -> of all utterances


NAMED = 5


def hallucination(
    alignments: Sequence[Aligned], seconds: Mapping[str, float], guards: Mapping[str, Sequence[str]] | None = None
) -> Hallucination:
    """Count a set.

    Args:
        alignments: of the set.
        seconds: utterance id -> duration, where known.
        guards: utterance id -> guards that changed its text, where known.
    """
    flags = [(guards or {}).get(each.utterance.utt_id, ()) for each in alignments]
    speech = [each for each in alignments if any(kind != "I" for kind, _, _ in each.edits)]
    silent = [each for each in alignments if all(kind == "I" for kind, _, _ in each.edits)]
    letters = sum(len(hyp) for each in silent for _, _, hyp in each.edits)
    known = [seconds.get(each.utterance.utt_id) for each in silent]
    minutes = sum(value for value in known if value is not None) / 60
    return Hallucination(
        unrelated=_share(speech, [_is_unrelated(each.edits) for each in speech]),
        inserted=_share(speech, [_has_inserted_run(each.edits) for each in speech]),
        looping=_share(speech, [_loops(each.edits) for each in speech]),
        truncated=_share(speech, [_is_truncated(each.edits) for each in speech]),
        non_speech=_share(silent, [bool(each.edits) for each in silent]),
        non_speech_letters_per_minute=letters / minutes if minutes and None not in known else None,
        guarded={
            name: _share(alignments, [name in each for each in flags])
            for name in sorted({name for each in flags for name in each})
        },
    )


def _share(alignments: Sequence[Aligned], found: Sequence[bool]) -> Share:
    names = [each.utterance.utt_id for each, case in zip(alignments, found, strict=True) if case]
    if not found:
        return Share(cases=0, total=0, percent=None, interval_percent=None, examples=())
    interval = stats.binomtest(len(names), len(found)).proportion_ci(method="exact")
    return Share(
        cases=len(names),
        total=len(found),
        percent=100 * len(names) / len(found),
        interval_percent=(100 * float(interval.low), 100 * float(interval.high)),
        examples=tuple(names[:NAMED]),
    )


def _sides(edits: Sequence[Edit]) -> tuple[list[str], list[str]]:
    return [ref for kind, ref, _ in edits if kind != "I" and ref], [
        hyp for kind, _, hyp in edits if kind != "D" and hyp
    ]


def _is_unrelated(edits: Sequence[Edit]) -> bool:
    if len(edits) < LENGTH_MORE or all(kind == "C" for kind, _, _ in edits):
        return False
    ref, hyp = _sides(edits)
    if len(hyp) < LENGTH_FACTOR * len(ref) + LENGTH_MORE:
        return False
    shared = (Counter(ref) & Counter(hyp)).total()
    return 2 * shared / (len(ref) + len(hyp)) < OVERLAP_BELOW


def _has_inserted_run(edits: Sequence[Edit]) -> bool:
    run = 0
    for kind, _, _ in edits:
        run = run + 1 if kind == "I" else 0
        if run == INSERTED_IN_A_ROW:
            return True
    return False


def _is_truncated(edits: Sequence[Edit]) -> bool:
    kinds = [edit[0] for edit in edits]
    return len(kinds) - kinds.count("D") <= TRUNCATED * (len(kinds) - kinds.count("I"))


def _loops(edits: Sequence[Edit]) -> bool:
    if all(kind == "C" for kind, _, _ in edits):
        return False
    ref, hyp = _sides(edits)
    return has_loop(hyp) and not has_loop(ref)


def has_loop(tokens: Sequence[str]) -> bool:
    """Whether some n-gram stands several times in a row."""
    if len(tokens) - len(set(tokens)) < LOOP_TIMES - 1:
        return False
    for size in range(1, min(LOOP_NGRAM, len(tokens) // LOOP_TIMES) + 1):
        run = 0
        for place in range(len(tokens) - size):
            run = run + 1 if tokens[place] == tokens[place + size] else 0
            if run == size * (LOOP_TIMES - 1):
                return True
    return False
