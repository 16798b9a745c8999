"""The choice of encoders on a line of snapshots whose CKA is known: 1 - distance / 10."""

import logging
from pathlib import Path

import pytest

from asrllm.config import parse
from asrllm.console import UserError
from asrllm.train import swap
from asrllm.train.snapshot import Snapshot
from asrllm.train.swap import SwapConfig


def config(**keys: object) -> SwapConfig:
    return parse({"pretraining": "exp/encoder", **keys}, SwapConfig, "swaps")


def along(places: dict[int, float], final: float) -> tuple[list[Snapshot], Snapshot, swap.Measure]:
    """Snapshots by step at places on a line; shares are steps per hundred."""
    where = {**places, 100: final}

    def measure(one: Snapshot, other: Snapshot) -> float:
        return 1 - abs(where[one.step] - where[other.step]) / 10

    snapshots = [Snapshot(step, step / 100, Path(f"step-{step}")) for step in places]
    return snapshots, Snapshot(100, 1.0, Path("final")), measure


def test_the_rule_takes_each_first_fall_below_the_threshold_as_the_new_reference() -> None:
    """Watched from step 30 on; 0.975 is a distance of 0.25."""
    places = {10: 0.0, 20: 5.0, 30: 9.0, 40: 9.2, 50: 9.3, 60: 9.5, 70: 9.5, 80: 9.6, 90: 9.7}
    chosen = swap.replay(*along(places, 9.75)[:2], config(start=0.3), along(places, 9.75)[2])
    assert [(choice.step, choice.last) for choice in chosen] == [(50, False), (80, False), (100, True)]
    assert chosen[0].reason == "CKA 0.9700 to step 30 is below 0.975"
    watched = [[(value.snapshot, value.reference) for value in choice.watched] for choice in chosen]
    assert watched == [[(40, 30), (50, 30)], [(60, 50), (70, 50), (80, 50)], [(90, 80), (100, 80)]]
    assert chosen[2].watched[-1].cka == pytest.approx(0.985)


@pytest.mark.parametrize(("slope", "fired"), [(0.0004, 0), (0.04, 8)])
def test_where_the_rule_fails_encoders_come_at_equal_arc_lengths(
    caplog: pytest.LogCaptureFixture, slope: float, fired: int
) -> None:
    """Even steps on a line: equal arcs are equal steps. From 10 to 100 the thirds are 40 and 70."""
    places = {step: step * slope for step in range(10, 100, 10)}
    snapshots, final, measure = along(places, 100 * slope)
    with caplog.at_level(logging.WARNING):
        chosen = swap.replay(snapshots, final, config(start=0.1), measure)
    assert f"CKA fell below 0.975 {fired} times, wanted are 1 to 2" in caplog.text
    assert [choice.step for choice in chosen] == [40, 70, 100]
    assert chosen[-1].last and len(chosen[0].watched) >= 9


def test_one_fall_is_enough_and_leaves_the_other_share_to_the_last() -> None:
    snapshots, final, measure = along({30: 0.0, 60: 0.3, 90: 0.4}, 0.4)
    chosen = swap.replay(snapshots, final, config(), measure)
    assert [choice.step for choice in chosen] == [60, 100]
    steps = [swap.turn_steps(100, (0.25, 0.25, 0.5), turn, choice.last) for turn, choice in enumerate(chosen)]
    assert steps == [25, 75]


def test_fixed_takes_the_nearest() -> None:
    snapshots, final, measure = along({step: step / 100 for step in range(10, 110, 20)}, 1.0)
    snapshots.append(Snapshot(100, 1.0, Path("step-100")))
    chosen = swap.fixed(snapshots, final, config(mode="fixed", fractions=[0.5, 0.66, 1.0]), measure)
    assert [(choice.folder, choice.last) for choice in chosen] == [
        ("step-50", False),
        ("step-70", False),
        ("final", True),
    ]
    assert [value.cka for choice in chosen for value in choice.watched] == pytest.approx([0.98, 0.97])
    with pytest.raises(UserError, match="fractions \\[0.5, 0.55, 1.0\\] are of steps 50, 50, 100: keep more snapshots"):
        swap.fixed(snapshots, final, config(mode="fixed", fractions=[0.5, 0.55, 1.0]), measure)


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 101])
@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.5), (1.0, 0.0, 0.0), (0.3, 0.3, 0.4)])
def test_turns_add_up_to_the_phase(steps: int, shares: tuple[float, ...]) -> None:
    assert sum(swap.turn_steps(steps, shares, turn, False) for turn in range(3)) == steps
    assert swap.turn_steps(steps, shares, 0, False) + swap.turn_steps(steps, shares, 1, True) == steps


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"shares": [0.5, 0.6]}, "expected numbers that add up to 1"),
        ({"mode": "fixed"}, "fractions belong to mode fixed"),
        ({"fractions": [0.5]}, "fractions belong to mode fixed"),
        ({"mode": "fixed", "fractions": [0.5, 1.0]}, "as many fractions as shares"),
        ({"mode": "fixed", "fractions": [0.5, 0.5, 1.0]}, "expected ascending numbers"),
        ({"mode": "fixed", "fractions": [0.5, 0.6, 1.1]}, "expected ascending numbers"),
        ({"threshold": 1.0}, "threshold"),
    ],
)
def test_mistakes_are_sentences(keys: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        config(**keys)
