"""sclite's markup inside a transcript: alternatives `{ a / b c / @ }`, optional words `(uh)`, fragments `th-`.

It reads one transcript into words and alternatives and knows neither files nor costs. Rules: NIST SCTK, doc/infmts.htm
("trn") and the behaviour of sclite 2.10. A semicolon parts a word from its tags, which are dropped; a backslash before
it keeps it; a star at the end of a word is dropped; `@` is no word at all.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

NULL = "@"
_SPACE = " \t\n\v\f\r"
_ASCII_RUN = re.compile(r"[^\x00-\x7f]|[\x00-\x7f]+")
_HYPHEN = re.compile(r"(?<![^\s(])-|-(?![^\s)])")


class MarkupError(ValueError):
    """What is wrong with a transcript, in words that follow its file and line."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a transcript, as it is printed."""

    text: str
    start: float = 0.0  # seconds, where the words are timed
    seconds: float = 0.0
    confidence: float | None = None
    optional: bool = False  # may be left out, and is correct then
    fragment: bool = False  # is correct where it begins (or ends) the other word

    @property
    def bare(self) -> str:
        """What is compared: an optional word without its parentheses."""
        return self.text[1:-1] if self.optional else self.text


Item = Word | tuple[tuple["Item", ...], ...]  # a word, or alternatives of items


def is_plain(text: str, optional_words: bool, fragments: bool) -> bool:
    """Whether plain words hold none that is optional or a fragment: then they need no network."""
    return not (optional_words and "(" in text) and not (fragments and _HYPHEN.search(text))


def parse(text: str) -> tuple[Item, ...]:
    """Items of a transcript.

    Raises:
        MarkupError: a brace that is not closed or not opened or inside a word, an alternative without a word.
    """
    items: list[Item] = []
    place = 0
    while place < len(text):
        if text[place] in _SPACE:
            place += 1
        elif text[place] == "{":
            end = _closing(text, place)
            items.append(tuple(_alternative(part) for part in _parts(text[place + 1 : end])))
            place = end + 1
        else:
            match = re.compile(rf"[^{_SPACE}]+").match(text, place)
            assert match is not None
            if "}" in match[0] or "{" in match[0]:
                found = "opens inside" if "{" in match[0] else "closes nothing in"
                raise MarkupError(f"a brace {found} {match[0]!r}: expected {{ a / b }}, the braces in pairs")
            items.append(Word(_value(match[0])))
            place = match.end()
    return tuple(items)


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    raise MarkupError(f"the alternatives {text[start : start + 30]!r} are not closed: expected a }}")


def _parts(body: str) -> list[str]:
    """Alternatives of a body, cut at the slashes outside inner braces."""
    parts, depth = [""], 0
    for letter in body:
        depth += (letter == "{") - (letter == "}")
        if letter == "/" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _alternative(part: str) -> tuple[Item, ...]:
    if not part.strip(_SPACE):
        raise MarkupError(f"an alternative is empty: write {NULL} where nothing may be said")
    return parse(part)


def _value(token: str) -> str:
    """The word of a token without its tags; see the module."""
    word = re.sub(r"\\(.?)", r"\1", re.split(r"(?<!\\);", token, maxsplit=1)[0])
    return word[:-1] if len(word) > 1 and word.endswith("*") else word


def mark(items: Sequence[Item], optional_words: bool, fragments: bool) -> tuple[Item, ...]:
    """Tell optional words and fragments from others, as sclite -D and -F do."""

    def change(word: Word) -> Word:
        optional = optional_words and len(word.text) > 1 and word.text[0] == "(" and word.text[-1] == ")"
        hyphens = word.text[:1] == "-" or word.text[-1:] == "-" or (optional and word.text[-2:-1] == "-")
        return replace(word, optional=optional, fragment=fragments and hyphens)

    return change_words(items, change)


def letters(word: str, split_ascii: bool, delete_hyphens: bool) -> list[str]:
    """Characters of a word; without `split_ascii` ASCII letters that follow each other stay together.

    A word that is one letter stays, as does one of nothing but hyphens.
    """
    if len(word) == 1:
        return [word]
    kept = word.replace("-", "") if delete_hyphens else word
    return (list(kept) if split_ascii else _ASCII_RUN.findall(kept)) or [word]


def characters(word: Word, split_ascii: bool, delete_hyphens: bool) -> list[Word]:
    """The characters of a word, as sclite -c (NOASCII unless `split_ascii`, DH), each with its share of the time."""
    pieces = letters(word.bare, split_ascii, delete_hyphens)
    share = (word.start + word.seconds - word.start) / len(pieces)
    starts = accumulate([word.start, *[share] * (len(pieces) - 1)])  # summed one by one: reports show the rounding
    return [
        replace(word, text=f"({piece})" if word.optional else piece, start=start, seconds=share)
        for piece, start in zip(pieces, starts, strict=True)
    ]


def change_words(items: Sequence[Item], change: Callable[[Word], Word]) -> tuple[Item, ...]:
    """The same items with every word changed."""
    return tuple(
        change(item) if isinstance(item, Word) else tuple(change_words(part, change) for part in item) for item in items
    )


def change_runs(items: Sequence[Item], change: Callable[[str], str]) -> tuple[Item, ...]:
    """The same items with each run of plain words changed as one text, such as by a normaliser.

    An optional word is a run of its own and stays optional; a fragment keeps its hyphen; `@` stays.
    """
    changed: list[Item] = []
    run: list[str] = []

    def flush() -> None:
        changed.extend(Word(word) for word in change(" ".join(run)).split())
        run.clear()

    for item in items:
        if isinstance(item, tuple):
            flush()
            parts = (change_runs(part, change) for part in item)
            changed.append(tuple(part or (Word(NULL),) for part in parts))
        elif item.text == NULL or _is_special(item.text):
            flush()
            changed.extend(_change_special(item.text, change))
        else:
            run.append(item.text)
    flush()
    return tuple(changed)


def _is_special(text: str) -> bool:
    return len(text) > 1 and ((text[0] == "(" and text[-1] == ")") or text[0] == "-" or text[-1] == "-")


def _change_special(text: str, change: Callable[[str], str]) -> list[Word]:
    if text == NULL:
        return [Word(NULL)]
    before = re.match(r"\(?-?", text)
    after = re.search(r"-?\)?$", text)
    assert before is not None and after is not None
    words = change(text[before.end() : after.start()]).split()
    return [Word(before[0] + word + after[0]) for word in words]
