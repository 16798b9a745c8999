"""sclite's detailed report of a set (`dtl`) and of each speaker (`spk`): words confused, inserted, deleted."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from asrllm.score.align import Counts, count
from asrllm.score.table import percent, rounded
from asrllm.score.utterances import Aligned

_NOTES = {
    "SUBSTITUTIONS": (
        "* NOTE: The 'Substitution' words are those reference words\n"
        "        for which the recognizer supplied an incorrect word.\n"
    ),
    "FALSELY RECOGNIZED": (
        "* NOTE: The 'Falsely Recognized' words are those hypothesis words\n"
        "        which the recognizer incorrectly substituted for a reference word.\n"
    ),
}


@dataclass
class Tally:
    """What was said and heard wrong in some utterances."""

    counts: list[Counts] = field(default_factory=list)
    confusions: Counter[tuple[str, str]] = field(default_factory=Counter)
    insertions: Counter[str] = field(default_factory=Counter)
    deletions: Counter[str] = field(default_factory=Counter)

    def add(self, alignments: Iterable[Aligned]) -> "Tally":
        """Count some utterances more."""
        for each in alignments:
            self.counts.append(count(each.edits))
            for kind, ref, hyp in each.edits:
                if kind == "S":
                    self.confusions[ref, hyp] += 1
                elif kind == "I":
                    self.insertions[hyp] += 1
                elif kind == "D":
                    self.deletions[ref] += 1
        return self

    def merge(self, other: "Tally") -> None:
        """Count everything that another counted."""
        self.counts += other.counts
        self.confusions.update(other.confusions)
        self.insertions.update(other.insertions)
        self.deletions.update(other.deletions)


def overall(tally: Tally, title: str) -> str:
    """The report of `sclite -o dtl`."""
    return f"DETAILED OVERALL REPORT FOR THE SYSTEM: {title}\n\n" + _body(tally)


def of_speaker(tally: Tally, speaker: str, title: str) -> str:
    """The report of `sclite -o spk` for one speaker."""
    return f"SCORING FOR SPEAKER: {speaker}\n     of {title}\n\n" + _body(tally)


def _body(tally: Tally) -> str:
    lists = {
        "CONFUSION PAIRS": Counter({f"{ref} ==> {hyp}": number for (ref, hyp), number in tally.confusions.items()}),
        "INSERTIONS": tally.insertions,
        "DELETIONS": tally.deletions,
        "SUBSTITUTIONS": _sums((ref, number) for (ref, _), number in tally.confusions.items()),
        "FALSELY RECOGNIZED": _sums((hyp, number) for (_, hyp), number in tally.confusions.items()),
    }
    parts = [_sentences(tally.counts), _words(sum(tally.counts, Counts()))]
    parts += [
        f"\n{_list(title, found)}\n{_NOTES.get(title, '')}" + "\n" * (title in _NOTES) for title, found in lists.items()
    ]
    return "".join(parts)


def _sums(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for word, number in pairs:
        sums[word] += number
    return sums


def _sentences(counts: Sequence[Counts]) -> str:
    total = len(counts)
    rows = [
        ("with errors", 28, sum(each.errors > 0 for each in counts)),
        ("  with substitions", 21, sum(each.substitutions > 0 for each in counts)),
        ("  with deletions", 23, sum(each.deletions > 0 for each in counts)),
        ("  with insertions", 22, sum(each.insertions > 0 for each in counts)),
    ]
    lines = [
        f" {name.ljust(39)}{rounded(percent(number, total), 1):5.1f}%   ({number:4d})\n" for name, _, number in rows
    ]
    head = f"SENTENCE RECOGNITION PERFORMANCE\n\n sentences                                        {total:4d}\n"
    return f"{head}{lines[0]}\n{''.join(lines[1:])}\n\n"


def _words(total: Counts) -> str:
    def line(name: str, number: int) -> str:
        share = f"{rounded(percent(number, total.tokens), 1):5.1f}" if total.tokens else "UNDEF"
        return f"{name.ljust(26)}=  {share}%   ({number:4d})\n"

    accuracy = f"{rounded(100.0 - percent(total.errors, total.tokens), 1):5.1f}" if total.tokens else "UNDEF"
    return (
        "WORD RECOGNITION PERFORMANCE\n\n"
        + line("Percent Total Error", total.errors)
        + "\n"
        + line("Percent Correct", total.correct)
        + "\n"
        + line("Percent Substitution", total.substitutions)
        + line("Percent Deletions", total.deletions)
        + line("Percent Insertions", total.insertions)
        + f"Percent Word Accuracy     =  {accuracy}%\n\n\n"
        + f"Ref. words                =           ({total.tokens:4d})\n"
        + f"Hyp. words                =           ({total.hyp_tokens:4d})\n"
        + f"Aligned words             =           ({total.tokens + total.insertions:4d})\n"
    )


def _list(title: str, found: Counter[str]) -> str:
    """Words by falling count, then by their bytes."""
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0].encode()))
    lines = [f"{place:4d}: {number:4d}  ->  {word}\n" for place, (word, number) in enumerate(ranked, 1)]
    head = f"{title:<30}   Total                 ({len(ranked)})\n{'':<30}   With >=  1 occurrences ({len(ranked)})\n\n"
    return f"{head}{''.join(lines)}     -------\n     {sum(found.values()):5d}\n\n"
