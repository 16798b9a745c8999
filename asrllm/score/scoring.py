"""Error rates of one decoded set: joined utterances in, alignments and a `SetScore` out.

It knows no search, no model and no file but its own `score.json`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from asrllm.config import Config
from asrllm.console import UserError, write_atomically
from asrllm.score.align import Counts, align_all, count
from asrllm.score.hallucination import Hallucination
from asrllm.score.hotwords import HotwordScore
from asrllm.score.markup import Word, characters, is_plain
from asrllm.score.network import align_networks, as_edits, network, time_cost, word_cost
from asrllm.score.significance import bootstrap_interval, cluster
from asrllm.score.transcripts import Transcript, fold
from asrllm.score.utterances import Aligned, Joined, Utterance, items_of
from asrllm.text.normalize import NormalizerName

Unit = Literal["word", "char", "mixed", "token", "phone"]
Report = Literal["sys", "raw", "pra", "prf", "dtl", "spk", "sgml", "html"]
UttCounts = tuple[int, int, int, int]  # correct, substitutions, deletions, insertions

RATE: dict[Unit, str] = {"word": "WER", "char": "CER", "mixed": "MIXER", "token": "TER", "phone": "PER"}
TOKEN: dict[Unit, str] = {"word": "Wrd", "char": "Chr", "mixed": "Mix", "token": "Tok", "phone": "Phn"}
ALL_REPORTS: tuple[Report, ...] = ("sys", "raw", "pra", "prf", "dtl", "spk", "sgml", "html")


class MatchConfig(Config):
    """What counts as the same, beyond the normaliser; sclite's options."""

    case_sensitive: bool = False  # -s; otherwise ASCII letters are folded, after the normaliser
    optional_words: bool = False  # -D: a word in parentheses may be left out
    fragments: bool = False  # -F: th- is correct for any word that begins so
    delete_hyphens: bool = False  # DH: hyphens are no characters
    time_mediated: bool = False  # -T: of two ctm files, words are aligned that lie close in time


class ScoreConfig(MatchConfig):
    """Keys of `conf/score.yaml`."""

    normalizer: NormalizerName = "basic"
    spelling_table: str | None = None  # normalizer.json of a Whisper checkpoint, for Whisper's English
    units: Annotated[tuple[Unit, ...], pydantic.Field(min_length=1)] = ("word", "char")
    tokenizer: str | None = None  # folder of the units that `token` counts
    phone_map: str | None = None  # lines `phone mapped`, for `phone`; a phone that maps to nothing is left out
    reports: tuple[Report, ...] = ALL_REPORTS


class UnitScore(Config):
    """Figures of one set in one unit."""

    unit: Unit
    sentences: int
    tokens: int
    correct: int
    substitutions: int
    deletions: int
    insertions: int
    err_percent: float | None  # None where the references hold no token
    match_err_percent: float | None  # MER: errors per edit (Morris et al. 2004)
    information_lost_percent: float | None  # WIL: 1 - (C / reference) (C / hypothesis) (Morris et al. 2004)
    interval_percent: tuple[float, float] | None  # 95 % bootstrap over utterances
    speaker_interval_percent: tuple[float, float] | None  # 95 % bootstrap over speakers
    sentence_errors: int
    utterances: dict[str, UttCounts]

    def errors(self, utt_ids: Sequence[str]) -> list[int]:
        """Errors per utterance, in the order of `utt_ids`."""
        return [sum(self.utterances[utt_id][1:]) for utt_id in utt_ids]


class SetScore(Config):
    """Content of `score.json`."""

    normalizer: str
    normalizer_version: str
    match: MatchConfig
    missing: tuple[str, ...]  # no hypothesis: counted as deletions
    extra: tuple[str, ...]  # no reference: not counted
    ignored: tuple[str, ...]  # stm segments that are not to be scored
    speakers: dict[str, str]
    units: tuple[UnitScore, ...]
    hallucination: Hallucination  # in the first unit
    hotwords: HotwordScore | None = None  # where a list of them was given


def align_set(joined: Joined, unit: Unit, match: MatchConfig, split: Callable[[str], list[str]]) -> list[Aligned]:
    """Alignment of every utterance; those with markup or times go through networks."""
    results: dict[int, Aligned] = {}
    plain = []
    for place, each in enumerate(joined.utterances):
        ref, hyp = _plain(each.ref, match), _plain(each.hyp, match)
        if ref is None or hyp is None:
            results[place] = _align_items(each, unit, match)
        else:
            plain.append((place, split(ref), split(hyp)))
    for (place, _, _), edits in zip(plain, align_all([(ref, hyp) for _, ref, hyp in plain]), strict=True):
        results[place] = Aligned(joined.utterances[place], edits)
    return [results[place] for place in range(len(joined.utterances))]


def _plain(transcript: Transcript, match: MatchConfig) -> str | None:
    """Plain words to be split, None where there is markup."""
    if not isinstance(transcript, str) or not is_plain(transcript, match.optional_words, match.fragments):
        return None
    return transcript if match.case_sensitive else fold(transcript)


def _align_items(each: Utterance, unit: Unit, match: MatchConfig) -> Aligned:
    def spell(word: Word) -> list[Word]:
        return characters(word, unit == "char", match.delete_hyphens)

    spelled = spell if unit in ("char", "mixed") else None
    ref, hyp = (items_of(side, match.optional_words, match.fragments) for side in (each.ref, each.hyp))
    cost = time_cost if match.time_mediated else word_cost
    steps = align_networks(network(ref, spelled), network(hyp, spelled), cost)
    if each.segment is None:
        return Aligned(each, as_edits(steps))
    unsaid = Word("")  # what an optional word that was left out stands against
    return Aligned(each, as_edits(steps), [word or (unsaid if kind == "C" else None) for kind, _, word in steps])


def score_unit(unit: Unit, alignments: Sequence[Aligned]) -> UnitScore:
    """Sum the alignments of a set."""
    counts = [count(each.edits) for each in alignments]
    total = Counts(*(sum(column) for column in zip(*map(_tuple, counts), strict=True))) if counts else Counts()
    errors, tokens = [each.errors for each in counts], [each.tokens for each in counts]
    speaker_errors, speaker_tokens = cluster([each.utterance.speaker for each in alignments], errors, tokens)
    share = total.correct * total.correct / (total.tokens * total.hyp_tokens) if total.correct else 0.0
    return UnitScore(
        unit=unit,
        sentences=len(counts),
        tokens=total.tokens,
        correct=total.correct,
        substitutions=total.substitutions,
        deletions=total.deletions,
        insertions=total.insertions,
        err_percent=100 * total.errors / total.tokens if total.tokens else None,
        match_err_percent=100 * total.errors / (total.errors + total.correct) if sum(_tuple(total)) else None,
        information_lost_percent=100 * (1 - share) if total.tokens else None,
        interval_percent=bootstrap_interval(errors, tokens),
        speaker_interval_percent=bootstrap_interval(speaker_errors, speaker_tokens),
        sentence_errors=sum(number > 0 for number in errors),
        utterances={each.utterance.utt_id: _tuple(numbers) for each, numbers in zip(alignments, counts, strict=True)},
    )


def _tuple(counts: Counts) -> UttCounts:
    return counts.correct, counts.substitutions, counts.deletions, counts.insertions


def write_score(score: SetScore, path: Path) -> None:
    """Write `score.json`."""
    with write_atomically(path) as temporary:
        temporary.write_text(score.model_dump_json() + "\n", encoding="utf-8")


def read_score(path: Path) -> SetScore:
    """Read `score.json`.

    Raises:
        UserError: unreadable, or written by another release.
    """
    try:
        return SetScore.model_validate_json(path.read_bytes())
    except (OSError, pydantic.ValidationError):
        raise UserError(f"{path}: not a score of this release: delete it and score again (stage 9)") from None
