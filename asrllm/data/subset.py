"""Which utterances make a smaller directory: rules of Kaldi's `subset_data_dir.sh`. It knows ids and lengths only."""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items, evenly from all of the list: each half of it gives half of them, as in Kaldi."""
    if count in (0, len(items)):
        return list(items[:count])
    middle = len(items) // 2
    return spread(items[:middle], count // 2) + spread(items[middle:], count - count // 2)


def shortest(seconds: Mapping[str, float], count: int) -> list[str]:
    """The `count` shortest utterances; of equal length, the first by name."""
    return sorted(seconds, key=lambda utt_id: (seconds[utt_id], utt_id))[:count]


def whole_speakers(spk2utt: Mapping[str, Sequence[str]], count: int, seed: int = 0) -> list[str]:
    """All utterances of speakers drawn in random order until at least `count` are together."""
    speakers = sorted(spk2utt)
    random.Random(seed).shuffle(speakers)
    chosen: list[str] = []
    for speaker in speakers:
        if len(chosen) >= count:
            break
        chosen += spk2utt[speaker]
    return chosen


def of_each_speaker(spk2utt: Mapping[str, Sequence[str]], count: int) -> list[str]:
    """Up to `count` utterances of every speaker at a constant step, as in Kaldi."""
    chosen: list[str] = []
    for utt_ids in spk2utt.values():
        step = max(1, len(utt_ids) // count)
        chosen += utt_ids[: count * step : step]
    return chosen
