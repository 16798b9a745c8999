"""sclite's alignments: `pra` (by speaker), `prf` (in the order of scoring, with times and confidences) and `sgml`.

Byte for byte as sclite writes them, but for the date. Columns are as wide as the bytes of a word, as in sclite.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from asrllm.score.align import Edit
from asrllm.score.markup import Word
from asrllm.score.scoring import MatchConfig
from asrllm.score.utterances import Aligned

WIDTH = 1000  # sclite's default line width


class Writer:
    """Writes the alignments of one set."""

    def __init__(self, alignments: Sequence[Aligned], match: MatchConfig, characters: bool, title: str) -> None:
        self.alignments = alignments
        self.match = match
        self.characters = characters
        self.title = title
        self.speakers: dict[str, list[int]] = {}
        for place, each in enumerate(alignments):
            self.speakers.setdefault(each.utterance.speaker, []).append(place)
        self.has_confidence = any(
            word is not None and word.confidence is not None for each in alignments for word in each.hyp_words or ()
        )
        self._kept: dict[int, str] = {}
        self._correct: dict[str, tuple[str, str]] = {}

    def entropies(self) -> list[float] | None:
        """Normalised cross entropy of the confidences of each speaker, and of all; None where no word has one."""
        if not self.has_confidence:
            return None
        groups = [[self.alignments[place] for place in places] for places in self.speakers.values()]
        return [cross_entropy(group) for group in groups] + [cross_entropy(self.alignments)]

    def pra(self) -> Iterator[str]:
        """Pieces of `sclite -o pralign`."""
        yield self._head()
        for number, (speaker, places) in enumerate(self.speakers.items()):
            yield f"Speaker sentences{number:4d}:  {speaker}   #utts: {len(places)}\n"
            for place in places:
                yield self._shared(place) + "\n"
        yield "\n"

    def prf(self, ref: str, hyp: str, date: str) -> Iterator[str]:
        """Pieces of `sclite -o prf`; `ref` and `hyp` name the files, `date` as ctime writes it."""
        yield "NIST_TEXT_ALIGNMENT\nVERSION 0.1\n"
        options = "Fragment Correct Flag Set\n" * self.match.fragments
        options += "Optionally Deletable Flag Set\n" * self.match.optional_words
        files = f'Ref file:      {ref}\nHyp file:      {hyp}\nCreation date: "{date}"\n{options}'
        yield self._head(files, f"Speaker Count: {len(self.speakers)}\n") + "\n"
        numbers = {speaker: number for number, speaker in enumerate(self.speakers)}
        seen = dict.fromkeys(self.speakers, 0)
        for place, each in enumerate(self.alignments):
            speaker = each.utterance.speaker
            total = len(self.speakers[speaker])
            yield f"Speaker sentences{numbers[speaker]:4d}:  {speaker}   utt# {seen[speaker]} of {total}\n"
            plain = not self.characters and each.utterance.segment is None
            yield (self._shared(place) if plain else self._block(each, full=True)) + "\n"
            seen[speaker] += 1
        yield "\n"

    def sgml(self, ref: str, hyp: str, date: str) -> Iterator[str]:
        """Pieces of `sclite -o sgml`, which `sc_stats` reads."""
        flags = [str(flag).upper() for flag in (self.match.fragments, self.match.optional_words)]
        yield (
            f'<SYSTEM title="{self.title}" ref_fname="{ref}" hyp_fname="{hyp}" creation_date="{date}" format="2.4" '
            f'frag_corr="{flags[0]}" opt_del="{flags[1]}" weight_ali="FALSE" weight_filename="">\n'
        )
        for speaker, places in self.speakers.items():
            yield f'<SPEAKER id="{speaker}">\n'
            for place in places:
                each = self.alignments[place]
                words = f'id="({each.utterance.name})" word_cnt="{len(each.edits)}"'
                yield f"<PATH {words}{self._attributes(each, place)}>\n"
                yield self._sgml_edits(each) + "\n</PATH>\n"
            yield "</SPEAKER>\n"
        yield "</SYSTEM>\n"

    def _head(self, files: str = "", count: str = "") -> str:
        names = "".join(f"   {number:2d}:  {speaker}\n" for number, speaker in enumerate(self.speakers))
        top = f"\n\n\t\tDUMP OF SYSTEM ALIGNMENT STRUCTURE\n\nSystem name:   {self.title}\n{files}\n"
        return f"{top}{count}Speakers: \n{names}\n"

    def _shared(self, place: int) -> str:
        """The block of an utterance for `pra`, kept for `prf` where both write the same."""
        each = self.alignments[place]
        if self.characters or each.utterance.segment is not None:
            return self._block(each, full=False)
        return self._kept.pop(place, None) or self._kept.setdefault(place, self._block(each, full=False))

    def _block(self, each: Aligned, full: bool) -> str:
        kinds: list[str] = [edit[0] for edit in each.edits]
        figures = " ".join(str(kinds.count(kind)) for kind in "CSDI")
        segment = each.utterance.segment
        lines = [f"id: ({each.utterance.name})"]
        if segment is not None:
            lines += [f"Labels: {segment.labels}"] * bool(segment.labels)
            lines += [f"File: {segment.file}", f"Channel: {segment.channel}"]
        lines.append(f"Scores: (#C #S #D #I) {figures}")
        marks = "Character_align " * (full and self.characters) + "Case_sensitve " * self.match.case_sensitive
        lines += [f"Attributes: {marks}"] * bool(marks)
        timed = full and segment is not None
        if timed and segment is not None:
            lines.append(f"Ref times: t1= {segment.start:.2f} t2= {segment.end:.2f}")
        words = each.hyp_words if timed else None
        rows = self._rows(each.edits, words, 0, len(each.edits)) if each.edits else []
        if not rows or len(rows[0].encode()) < WIDTH:
            return "\n".join([*lines, *rows]) + "\n"
        for first, last in _lines_of(each.edits, 7 if words is not None else 0):
            lead = ">> " if first > 0 else ""
            lines += [""] * (first > 0) + [lead + line for line in self._rows(each.edits, words, first, last)]
        return "\n".join(lines) + "\n"

    def _rows(self, edits: Sequence[Edit], words: Sequence[Word | None] | None, first: int, last: int) -> list[str]:
        """REF, HYP and Eval of some edits, with times and confidences between where they are known."""
        refs, hyps, marks = ["REF:  "], ["HYP:  "], ["Eval: "]
        starts, ends, sure = ["H_T1: "], ["H_T2: "], ["CONF: "]
        least = 7 if words is not None else 0
        for place in range(first, last):
            kind, ref, hyp = edit = edits[place]
            if kind == "C" and ref is hyp and not least:
                cell, blank = self._correct.get(ref) or self._remember(ref)
                refs.append(cell)
                hyps.append(cell)
                marks.append(blank)
                continue
            ref_cell, hyp_cell, size = self._cells(edit, least)
            refs.append(ref_cell)
            hyps.append(hyp_cell)
            marks.append(("" if kind == "C" else kind).ljust(size) + " ")
            if words is not None:
                word = words[place]
                starts.append(("" if word is None else f"{word.start:.2f}").ljust(size) + " ")
                ends.append(("" if word is None else f"{word.start + word.seconds:.2f}").ljust(size) + " ")
                sure.append(("" if word is None else f"{word.confidence or 0:.4f}").ljust(size) + " ")
        rows = [refs, hyps, *([starts, ends] if words is not None else [])]
        rows += [sure] if words is not None and self.has_confidence else []
        return ["".join(row) for row in (*rows, marks)]

    def _remember(self, token: str) -> tuple[str, str]:
        cells = token + " ", " " * (len(token.encode()) + 1)
        self._correct[token] = cells
        return cells

    def _cells(self, edit: Edit, least: int) -> tuple[str, str, int]:
        """Reference and hypothesis filled to the same width: errors in capitals, stars for nothing."""
        kind, ref, hyp = edit
        ref_size, hyp_size = len(ref.encode()), len(hyp.encode())
        size = max(least, ref_size, hyp_size, 1 if kind in "ID" else 0)
        if kind == "I":
            ref, ref_size = "*" * hyp_size, hyp_size
        elif kind == "D":
            hyp, hyp_size = "*" * ref_size, ref_size
        if kind != "C" and not self.match.case_sensitive:
            ref, hyp = capitals(ref), capitals(hyp)
        return ref + " " * (size - ref_size + 1), hyp + " " * (size - hyp_size + 1), size

    def _attributes(self, each: Aligned, sequence: int) -> str:
        segment, text = each.utterance.segment, ""
        if segment is not None:
            text += f' labels="{segment.labels}"' * bool(segment.labels)
            text += f' file="{segment.file}" channel="{segment.channel}"'
        text += f' sequence="{sequence}"'
        if segment is not None:
            text += f' R_T1="{segment.start:.3f}" R_T2="{segment.end:.3f}"'
        text += ' char_align="1"' * self.characters + ' case_sense="1"' * self.match.case_sensitive
        if segment is not None:
            text += f' word_aux="h_t1+t2{",h_conf" * self.has_confidence}"'
        return text

    def _sgml_edits(self, each: Aligned) -> str:
        words = each.hyp_words if each.utterance.segment is not None else None
        parts = []
        for place, (kind, ref, hyp) in enumerate(each.edits):
            if ";" in ref or ";" in hyp:
                ref, hyp = ref.replace(";", "\\;"), hyp.replace(";", "\\;")
            if kind == "I":
                part = f'I,,"{hyp}"'
            elif kind == "D":
                part = f'D,"{ref}",'
            else:
                part = f'{kind},"{ref}","{hyp}"'
            if words is not None:
                word = words[place]
                part += "," if word is None else f",{word.start:.3f}+{word.start + word.seconds:.3f}"
                if self.has_confidence:
                    part += "," if word is None else f",{word.confidence or 0:.6f}"
            parts.append(part)
        return ":".join(parts)


def cross_entropy(alignments: Sequence[Aligned]) -> float:
    """How much confidences tell: 1 all, 0 nothing more than the share of correct words, below 0 less than that.

    (H + sum of log2 p over correct words + sum of log2 (1 - p) over others) / H, where H is the entropy of the share of
    correct words (NIST SCTK, doc/sclite.htm). 0 without a word or where H is 0.
    """
    right = wrong = 0
    gain = 0.0
    for each in alignments:
        for (kind, _, hyp), word in zip(each.edits, each.hyp_words or (), strict=False):
            right, wrong = right + (kind == "C"), wrong + (kind in "SI")
            if hyp and word is not None:
                sure = min(max(word.confidence or 0.0, 1e-7), 1 - 1e-7)
                gain += math.log2(sure if kind == "C" else 1 - sure)
    if not right or not wrong:
        return 0.0
    entropy = -right * math.log2(right / (right + wrong)) - wrong * math.log2(wrong / (right + wrong))
    return (entropy + gain) / entropy


def capitals(text: str) -> str:
    """ASCII letters in upper case and no others."""
    return text.upper() if text.isascii() else "".join(each.upper() if each.isascii() else each for each in text)


def _lines_of(edits: Sequence[Edit], least: int) -> Iterable[tuple[int, int]]:
    """Ranges of edits that share a line of sclite's width."""
    if not edits:
        return
    sizes = [
        1 + max(least, 1 if kind == "I" else len(ref.encode()), 1 if kind == "D" else len(hyp.encode()))
        for kind, ref, hyp in edits
    ]
    first = 0
    while first < len(edits):
        filled, last = (9 if first else 6), first
        while filled < WIDTH and last < len(edits):
            filled += sizes[last]
            last += 1
        if last < len(edits):
            last = max(last - 1, first + 1)
        yield first, last
        first = last
