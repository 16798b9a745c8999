"""References joined with their hypotheses by utterance id, both sides normalised: what is aligned, and the alignment.

A missing hypothesis is an empty one, so that it counts as deletions: a set in which crashed utterances are left out
would look better than it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from asrllm.console import UserError
from asrllm.score.align import Edit
from asrllm.score.markup import Item, Word, change_runs, mark
from asrllm.score.transcripts import Line, Transcript

Normalize = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Segment:
    """Where an utterance lies, for those that come from stm."""

    file: str
    channel: str
    labels: str  # such as <o,f0,male>, empty where there are none
    start: float  # seconds
    end: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """One reference with what was recognised."""

    utt_id: str  # what references and hypotheses were joined by
    name: str  # what reports call it
    speaker: str
    ref: Transcript
    hyp: Transcript
    segment: Segment | None = None


@dataclass(frozen=True, slots=True)
class Aligned:
    """One utterance with its alignment."""

    utterance: Utterance
    edits: list[Edit]
    hyp_words: Sequence[Word | None] | None = None  # with times, one for each edit; None where the words have none


@dataclass(frozen=True)
class Joined:
    """The utterances of a set, and what had no partner."""

    utterances: Sequence[Utterance]
    missing: tuple[str, ...] = ()  # no hypothesis: counted as deletions
    extra: tuple[str, ...] = ()  # no reference: not counted
    ignored: tuple[str, ...] = ()  # stm segments that are not to be scored
    seconds: Mapping[str, float] = field(default_factory=dict)  # durations by utterance id, where known
    guards: Mapping[str, Sequence[str]] = field(default_factory=dict)  # utterance id -> guards that changed its text


def join(refs: Mapping[str, str], hyps: Mapping[str, str], speakers: Mapping[str, str], normalize: Normalize) -> Joined:
    """Join plain texts.

    Raises:
        UserError: not one utterance in common.
    """
    _check_common(refs, hyps)
    utterances = [
        Utterance(
            utt_id=utt_id,
            name=f"{speakers[utt_id]}-{utt_id}",
            speaker=speakers[utt_id],
            ref=normalize(text),
            hyp=normalize(hyps.get(utt_id, "")),
        )
        for utt_id, text in refs.items()
    ]
    return Joined(utterances, *_left_over(refs, hyps))


def join_trn(refs: Mapping[str, Line], hyps: Mapping[str, Line], normalize: Normalize | None) -> Joined:
    """Join trn files, in the order of the hypotheses as in sclite; those without one come last.

    Raises:
        UserError: not one utterance in common.
    """
    _check_common(refs, hyps)
    missing, extra = _left_over(refs, hyps)
    utterances = [
        Utterance(
            utt_id=utt_id,
            name=utt_id,
            speaker=refs[utt_id].speaker,
            ref=normalized(refs[utt_id].transcript, normalize),
            hyp=normalized(hyps[utt_id].transcript, normalize) if utt_id in hyps else "",
        )
        for utt_id in [*(each for each in hyps if each in refs), *missing]
    ]
    return Joined(utterances, missing, extra)


def _check_common(refs: Mapping[str, object], hyps: Mapping[str, object]) -> None:
    if not refs.keys() & hyps.keys():
        raise UserError(
            f"no utterance in common: the {len(refs)} references begin with {min(refs, default='nothing')}, "
            f"the {len(hyps)} hypotheses with {min(hyps, default='nothing')}: give the --ref that was decoded"
        )


def _left_over(refs: Mapping[str, object], hyps: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    missing = tuple(utt_id for utt_id in refs if utt_id not in hyps)
    return missing, tuple(sorted(utt_id for utt_id in hyps if utt_id not in refs))


def normalized(transcript: Transcript, normalize: Normalize | None) -> Transcript:
    """A transcript after a normaliser, which sees runs of plain words and never the markup; None changes nothing."""
    if normalize is None:
        return transcript
    return normalize(transcript) if isinstance(transcript, str) else change_runs(transcript, normalize)


def items_of(transcript: Transcript, optional_words: bool, fragments: bool) -> tuple[Item, ...]:
    """The items to be aligned under sclite's options -D and -F."""
    items = tuple(Word(word) for word in transcript.split()) if isinstance(transcript, str) else transcript
    return mark(items, optional_words, fragments)
