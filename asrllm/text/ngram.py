"""A back-off n-gram LM over CTC labels: estimated from transcripts, kept and read in ARPA format.

Label 0, the blank, is in no transcript: here it stands for the begin of one. Smoothing is that of Witten and Bell
(1991), interpolated down to equal probabilities (Chen and Goodman 1999, section 2.4). With c counts and t(h) the number
of distinct labels after h, h' being h without its first label,

    p(w | h) = (c(hw) + t(h) p(w | h')) / (c(h) + t(h)),

which is a back-off LM: the weight of h is t(h) / (c(h) + t(h)). It needs no counts of counts, which a small text over
few labels has not. It knows labels and text; not posteriors, not search.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asrllm.console import UserError, write_atomically
from asrllm.text.tokenizer import Tokenizer

BEGIN, END, UNKNOWN = 0, -1, -2  # <s> </s> <unk>
LOG_10 = math.log(10)  # ARPA files hold logarithms to the base 10
NEVER = -99.0 * LOG_10  # how they write the probability of <s>, which is never asked for
AGAIN = "run asrllm.bin.estimate_ngram with the tokenizer of this model"


@dataclass(frozen=True)
class Ngrams:
    """Natural logarithms of the probability of each n-gram, and of the back-off weight of each context."""

    order: int
    log_probs: dict[tuple[int, ...], float]
    log_backoffs: dict[tuple[int, ...], float]

    def context(self, labels: Sequence[int]) -> tuple[int, ...]:
        """What the LM sees of the labels of a transcript so far."""
        seen = (BEGIN, *labels)
        return tuple(seen[max(0, len(seen) - self.order + 1) :])

    def log_prob(self, label: int, context: tuple[int, ...]) -> float:
        """Natural logarithm of p(label | context)."""
        total, ngram = 0.0, (*context, label)
        while len(ngram) > 1 and ngram not in self.log_probs:
            total += self.log_backoffs.get(ngram[:-1], 0.0)
            ngram = ngram[1:]
        return total + self.log_probs[ngram]


def witten_bell(transcripts: Iterable[Sequence[int]], order: int, size: int) -> Ngrams:
    """Estimate from the labels of transcripts; `size` is the number of labels, the blank included."""
    counts: Counter[tuple[int, ...]] = Counter()
    for transcript in transcripts:
        whole = (BEGIN, *transcript, END)
        for end in range(2, len(whole) + 1):
            counts.update(whole[start:end] for start in range(max(0, end - order), end))
    sums: Counter[tuple[int, ...]] = Counter()
    kinds: Counter[tuple[int, ...]] = Counter()
    for ngram, count in counts.items():
        sums[ngram[:-1]] += count
        kinds[ngram[:-1]] += 1
    counts.update({(label,): 0 for label in (*range(1, size), END)})
    probs: dict[tuple[int, ...], float] = {}
    for ngram in sorted(counts, key=lambda each: (len(each), each)):
        context = ngram[:-1]
        lower = probs[ngram[1:]] if context else 1 / size  # all labels but the blank, and the end
        probs[ngram] = (counts[ngram] + kinds[context] * lower) / (sums[context] + kinds[context])
    log_probs = {(BEGIN,): NEVER} | {ngram: math.log(prob) for ngram, prob in probs.items()}
    weights = {context: math.log(kinds[context] / (sums[context] + kinds[context])) for context in sums if context}
    return Ngrams(order, log_probs, weights)


def symbols(units: Tokenizer) -> dict[int, str]:
    """Names of labels in ARPA files: their text, a low line block for a space; a number behind what is not unique."""
    texts = {}
    for label in range(1, units.size):
        text = "\u2581".join(units.decode([label]).split())
        texts[label] = "\u2581" * units.starts_word(label) + text
    often = Counter(texts.values())
    names = {label: text if text and often[text] == 1 else f"{text}#{label}" for label, text in texts.items()}
    special = {BEGIN: "<s>", END: "</s>", UNKNOWN: "<unk>"}
    return special | {label: "<unk>" if name == "\u2047" else name for label, name in names.items()}


def write_arpa(ngrams: Ngrams, units: Tokenizer, path: Path) -> None:
    """Write an ARPA file, whole or not at all."""
    names = symbols(units)
    with write_atomically(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in _lines(ngrams, names)), encoding="utf-8")


def _lines(ngrams: Ngrams, names: dict[int, str]) -> Iterator[str]:
    sections = [[each for each in ngrams.log_probs if len(each) == size] for size in range(1, ngrams.order + 1)]
    yield "\\data\\"
    yield from (f"ngram {size}={len(section)}" for size, section in enumerate(sections, 1))
    for size, section in enumerate(sections, 1):
        yield f"\n\\{size}-grams:"
        for ngram in section:
            backoff = f"\t{ngrams.log_backoffs[ngram] / LOG_10:.9g}" if ngram in ngrams.log_backoffs else ""
            words = " ".join(names[label] for label in ngram)
            yield f"{ngrams.log_probs[ngram] / LOG_10:.9g}\t{words}{backoff}"
    yield "\n\\end\\"


def read_arpa(path: Path, units: Tokenizer) -> Ngrams:
    """Read an ARPA file over these units, by whatever program it was made.

    Raises:
        UserError: no such file, a broken line, n-grams of other units, or not as many as its head says.
    """
    label_of = {name: label for label, name in symbols(units).items()}
    promised: Counter[int] = Counter()
    log_probs: dict[tuple[int, ...], float] = {}
    log_backoffs: dict[tuple[int, ...], float] = {}
    size: int | None = None  # of the n-grams of this section; 0 in the head, None before it
    line = ""
    for number, line in enumerate(_read(path), 1):
        try:
            if line == "\\end\\":
                break
            if line == "\\data\\":
                size = 0
            elif line.startswith("\\"):
                size = int(line[1:].removesuffix("-grams:"))
            elif line and size == 0:
                order, count = line.removeprefix("ngram").split("=")
                promised[int(order)] = int(count)
            elif line and size:
                ngram, log_prob, log_backoff = _entry(line, size, label_of)
                log_probs[ngram] = log_prob
                if log_backoff is not None:
                    log_backoffs[ngram] = log_backoff
        except KeyError as unknown:
            raise UserError(f"{path}: line {number}: {unknown} is no CTC unit of this model: {AGAIN}") from None
        except ValueError:
            wanted = f"log10 p, {size} units and at most a back-off weight" if size else "'ngram N=COUNT' or a section"
            raise UserError(f"{path}: line {number}: found {line!r}, expected {wanted}: {AGAIN}") from None
    if line != "\\end\\":
        raise UserError(f"{path}: no line \\end\\, so it is cut off or no ARPA file: {AGAIN}")
    if (found := Counter(map(len, log_probs))) != promised:
        raise UserError(f"{path}: n-grams by size: found {dict(found)}, its head says {dict(promised)}: {AGAIN}")
    missing = [name for name, label in label_of.items() if label > 0 and (label,) not in log_probs]
    if missing:
        raise UserError(f"{path}: no 1-gram for {len(missing)} of the CTC units, such as {missing[0]!r}: {AGAIN}")
    return Ngrams(max(promised), log_probs, log_backoffs)


def _read(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_bytes().decode().split("\n")]
    except UnicodeDecodeError as fault:
        raise UserError(f"{path}: not UTF-8 ({fault}): {AGAIN}") from None
    except OSError as fault:
        raise UserError(f"{path}: no readable ARPA file ({fault.strerror}): {AGAIN}") from None


def _entry(line: str, size: int, label_of: dict[str, int]) -> tuple[tuple[int, ...], float, float | None]:
    """An n-gram, natural logarithms of its probability and, where the line has one, of its back-off weight."""
    first, *words = line.split()
    log_backoff = float(words.pop()) * LOG_10 if len(words) == size + 1 else None
    log_prob = float(first) * LOG_10
    if len(words) != size or not -math.inf < log_prob <= 0 or not abs(log_backoff or 0.0) < math.inf:
        raise ValueError
    return tuple(label_of[word] for word in words), log_prob, log_backoff
