"""Tests of two systems against sc_stats (frozen, and live where it is installed) and scipy."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from scipy import stats

from asrllm.console import UserError
from asrllm.score.comparison import compare
from asrllm.score.matched import mapsswe, mcnemar, segments, sign, wilcoxon
from asrllm.score.sgml import read_sgml

spec = importlib.util.spec_from_file_location("sclite_golden", Path(__file__).parent / "sclite_golden.py")
assert spec is not None and spec.loader is not None
golden = importlib.util.module_from_spec(spec)
sys.modules["sclite_golden"] = golden
spec.loader.exec_module(golden)


def check(folder: Path, said: str) -> None:
    """Segments, z statistic and McNemar's table are those of sc_stats."""
    a, b = (read_sgml(folder / f"{name}.sgml") for name in "ab")
    found = {test.name: test for test in compare(a, b).tests}
    count = re.search(r"# segs: (\d+)\) .*\(Z Stat: +(-?[\d.]+)\)", said)
    totals = re.search(r"Totals +(\d+) +(\d+) +(\d+)", said)
    assert count is not None and totals is not None
    assert found["matched pairs (MAPSSWE)"].detail == f"{count[1]} segments, z = {count[2]}"
    errors = [sum(pair[side] for name in a for pair in segments(a[name].edits, b[name].edits)) for side in (0, 1)]
    assert errors == [int(totals[2]), int(totals[3])]
    tables = re.findall(r"corr +\d+ +(\d+)\n\s*incorr +(\d+) +\d+\n", said)
    only_a, only_b = (int(number) for number in tables[-1])  # the tables before it are of segments
    assert found["McNemar on sentences"].detail == f"{only_a} right in A alone, {only_b} in B alone"


def test_statistics_are_the_frozen_ones_of_sc_stats() -> None:
    folder = golden.FOLDER / "systems"
    check(folder, (folder / "sc_stats.txt").read_text())


@pytest.mark.skipif(not Path(golden.STATS[0]).exists(), reason="sc_stats (Debian package sctk) is not installed")
@pytest.mark.parametrize("seed", range(6))
def test_statistics_are_those_of_sc_stats(seed: int, tmp_path: Path) -> None:
    golden.write_systems(tmp_path, 50 + seed, 120)
    check(tmp_path, golden.run_sc_stats(tmp_path))


def test_exact_tests_by_hand() -> None:
    assert mcnemar([0, 0, 0, 0, 0, 1, 2], [1, 1, 1, 1, 1, 0, 2]).p_value == pytest.approx(0.21875)
    assert mcnemar([0, 1], [0, 2]).p_value == 1.0
    assert sign([10.0] * 8, [20.0] * 8).p_value == pytest.approx(2 * 0.5**8)
    assert sign([10.0, 10.0], [10.0, 10.0]).p_value == 1.0
    rates = [10.0, 12.0, 9.0, 30.0, 25.0], [11.0, 10.0, 12.0, 34.0, 30.0]
    found = wilcoxon(*rates)
    assert found is not None and found.p_value == pytest.approx(stats.wilcoxon(rates[0], rates[1]).pvalue)
    assert wilcoxon([1.0], [1.0]) is None
    assert mapsswe([]) is None


def test_equal_systems_do_not_differ() -> None:
    a = read_sgml(golden.FOLDER / "systems" / "a.sgml")
    found = compare(a, a)
    assert all(test.p_value == 1.0 for test in found.tests)
    assert found.sentence("A", "B", "WER").startswith("No difference is shown: WER ")


def test_other_sets_are_refused(tmp_path: Path) -> None:
    a = read_sgml(golden.FOLDER / "systems" / "a.sgml")
    with pytest.raises(UserError, match="1 utterances are in one system alone"):
        compare(a, dict(list(a.items())[1:]))
    other = {name: type(read)(read.speaker, [("D", "x", ""), *read.edits]) for name, read in a.items()}
    with pytest.raises(UserError, match="scored on other references"):
        compare(a, other)
    for text, message in (
        ("", "no alignment in it"),
        ('<SPEAKER id="s">\n<PATH id="(u)" word_cnt="2">\nC,"a","a"\n</PATH>\n', "line 3: found 1 edits of"),
    ):
        (tmp_path / "x.sgml").write_text(text)
        with pytest.raises(UserError, match=message):
            read_sgml(tmp_path / "x.sgml")
