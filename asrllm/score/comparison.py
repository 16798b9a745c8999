"""What follows from two systems' alignments of the same references: tests, intervals and one plain sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asrllm.console import UserError
from asrllm.score.align import Counts, count
from asrllm.score.matched import Test, mapsswe, mcnemar, sign, wilcoxon
from asrllm.score.sgml import Read
from asrllm.score.significance import Difference, cluster, paired_bootstrap

ALPHA = 0.05  # a smaller p value is called a difference


@dataclass(frozen=True)
class Comparison:
    """System B against system A."""

    percent_a: float
    percent_b: float
    over_utterances: Difference | None
    over_speakers: Difference | None
    tests: Sequence[Test]  # the first one decides

    def sentence(self, a: str, b: str, rate: str) -> str:
        """What follows."""
        gap = self.percent_b - self.percent_a
        figures = f"{rate} {self.percent_b:.2f} % of {b} against {self.percent_a:.2f} % of {a} ({gap:+.2f} points)"
        if not self.tests:
            return f"Too few utterances to tell: {figures}."
        first, others = self.tests[0], self.tests[1:]
        agree = sum((test.p_value < ALPHA) == (first.p_value < ALPHA) for test in others)
        support = f"{agree} of the {len(others)} other tests agree"
        if first.p_value < ALPHA:
            better = b if gap < 0 else a
            return f"{better} is better: {figures}, {first.name} {shown(first.p_value)}; {support}."
        return (
            f"No difference is shown: {figures}, {first.name} {shown(first.p_value)}; {support}. "
            "This does not say that the systems are equal: a larger set might tell them apart."
        )


def shown(p_value: float) -> str:
    """A p value in words."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def compare(a: Mapping[str, Read], b: Mapping[str, Read]) -> Comparison:
    """All tests on the utterances of both systems.

    Raises:
        UserError: different utterances, or other references.
    """
    if a.keys() != b.keys():
        alone = sorted(a.keys() ^ b.keys())
        raise UserError(f"{len(alone)} utterances are in one system alone, such as {alone[0]}: score the same set")
    counts = {name: (count(a[name].edits), count(b[name].edits)) for name in a}
    other = [name for name in a if _reference(a[name]) != _reference(b[name])]
    if 2 * len(other) > len(a):  # alternatives in the references make some differ
        raise UserError(f"utterance {other[0]} and {len(other) - 1} more: scored on other references: score both again")
    errors = [[pair[side].errors for pair in counts.values()] for side in (0, 1)]
    tokens = [pair[0].tokens for pair in counts.values()]
    speakers = [read.speaker for read in a.values()]
    speaker_errors_a, speaker_errors_b, speaker_tokens = cluster(speakers, *errors, tokens)
    spoken = speaker_tokens > 0
    rates = [100 * column[spoken] / speaker_tokens[spoken] for column in (speaker_errors_a, speaker_errors_b)]
    tests = [mapsswe((a[name].edits, b[name].edits) for name in a), mcnemar(*errors)]
    over_utterances = paired_bootstrap(errors[0], errors[1], tokens)
    if over_utterances is not None:
        tests.append(Test("paired bootstrap over utterances", over_utterances.p_value, _interval(over_utterances)))
    over_speakers = None
    if spoken.sum() > 1:
        over_speakers = paired_bootstrap(speaker_errors_a, speaker_errors_b, speaker_tokens)
        tests += [sign(*rates), wilcoxon(*rates)]
    if over_speakers is not None:
        tests.append(Test("paired bootstrap over speakers", over_speakers.p_value, _interval(over_speakers)))
    total_a, total_b = (sum((pair[side] for pair in counts.values()), Counts()) for side in (0, 1))
    return Comparison(
        100 * total_a.errors / max(total_a.tokens, 1),
        100 * total_b.errors / max(total_b.tokens, 1),
        over_utterances,
        over_speakers,
        [test for test in tests if test is not None],
    )


def _reference(read: Read) -> list[str]:
    return [ref for kind, ref, _ in read.edits if kind != "I"]


def _interval(found: Difference) -> str:
    low, high = found.interval
    return f"{found.points:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
