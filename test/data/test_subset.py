"""Choices of utterances: those of Kaldi's programs where these are not random."""

import pytest

from asrllm.data import subset

# Printed by Kaldi's utils/subset_scp.pl for `seq N` and a count.
SPREAD = {
    (10, 3): [5, 7, 10],
    (17, 5): [4, 8, 12, 14, 17],
    (100, 7): [25, 37, 50, 62, 75, 87, 100],
    (6, 1): [6],
    (9, 8): [1, 2, 3, 4, 5, 6, 7, 9],
}
# Printed by the awk program of --per-spk in Kaldi's utils/subset_data_dir.sh for a speaker with N utterances.
PER_SPEAKER = {
    (10, 3): [1, 4, 7],
    (17, 5): [1, 4, 7, 10, 13],
    (100, 7): [1, 15, 29, 43, 57, 71, 85],
    (6, 1): [1],
    (9, 8): [1, 2, 3, 4, 5, 6, 7, 8],
    (4, 6): [1, 2, 3, 4],
}


@pytest.mark.parametrize(("size", "count"), SPREAD)
def test_spread_takes_what_kaldi_takes(size: int, count: int) -> None:
    assert subset.spread(range(1, size + 1), count) == SPREAD[size, count]


@pytest.mark.parametrize(("size", "count"), PER_SPEAKER)
def test_of_each_speaker_takes_what_kaldi_takes(size: int, count: int) -> None:
    numbers = [str(number) for number in range(1, size + 1)]
    assert [int(each) for each in subset.of_each_speaker({"a": numbers}, count)] == PER_SPEAKER[size, count]


def test_shortest_breaks_ties_by_name() -> None:
    assert subset.shortest({"c": 1.0, "a": 2.0, "b": 1.0, "d": 0.5}, 3) == ["d", "b", "c"]


def test_whole_speakers_stop_at_the_count() -> None:
    members = {name: [f"{name}{number}" for number in range(3)] for name in "abcdef"}
    chosen = subset.whole_speakers(members, 7)
    assert len(chosen) == 9 and chosen == subset.whole_speakers(dict(reversed(members.items())), 7)
    assert all(set(utt_ids) <= set(chosen) or not set(utt_ids) & set(chosen) for utt_ids in members.values())
    assert subset.whole_speakers(members, 7, seed=1) != chosen
