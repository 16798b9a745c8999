"""Does what is recognised depend on the utterances beside it? Checked on a user's own data.

It knows what turns a batch into n-best lists, not how.
"""

import math
import random
from collections.abc import Callable, Sequence

from asrllm.batch import Batch
from asrllm.console import UserError
from asrllm.data import kaldi
from asrllm.data.dataset import Dataset, batches
from asrllm.hypothesis import NBest
from asrllm.models.frontend import SAMPLE_RATE

SIZES = (7, 32)
TOLERANCE = 1e-5  # of a score; float32 sums in another order differ by less


def check_batch_invariance(utterances: Sequence[kaldi.Utterance], recognise: Callable[[Batch], list[NBest]]) -> float:
    """Recognise each utterance alone, then all of them shuffled in batches of 7 and of 32.

    Returns:
        The largest difference of two scores of one text, as a share of the score (of 1, if that is more).

    Raises:
        UserError: names the utterances of which a text differs, or a score by more than 1e-5 of it.
    """
    dataset = Dataset(utterances, SAMPLE_RATE)
    draw = random.Random(0)
    alone = _recognise(dataset, [[number] for number in range(len(utterances))], recognise)
    worst = dict.fromkeys(alone, 0.0)
    for size in SIZES:
        order = draw.sample(range(len(utterances)), len(utterances))
        plan = [order[first : first + size] for first in range(0, len(order), size)]
        for utt_id, result in _recognise(dataset, plan, recognise).items():
            worst[utt_id] = max(worst[utt_id], _difference(alone[utt_id], result))
    if differ := sorted(utt_id for utt_id, each in worst.items() if each > TOLERANCE):
        raise UserError(
            f"{len(differ)} of {len(utterances)} utterances are recognised otherwise in a batch than alone: "
            + ", ".join(f"{utt_id} ({_said(worst[utt_id])})" for utt_id in differ)
        )
    return max(worst.values(), default=0.0)


def _recognise(
    dataset: Dataset, plan: Sequence[Sequence[int]], recognise: Callable[[Batch], list[NBest]]
) -> dict[str, NBest]:
    return {result.utt_id: result for batch in batches(dataset, plan) for result in recognise(batch)}


def _difference(one: NBest, other: NBest) -> float:
    if [each.text for each in one.hypotheses] != [each.text for each in other.hypotheses]:
        return math.inf
    pairs = zip(one.hypotheses, other.hypotheses, strict=True)
    return max(abs(first.score - second.score) / max(1.0, abs(first.score)) for first, second in pairs)


def _said(difference: float) -> str:
    return "other text" if math.isinf(difference) else f"scores differ by {difference:.1e}"
