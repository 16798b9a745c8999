"""Benchmarks are not run here, but what they import and the options they take must be there."""

from pathlib import Path

import pytest
from shell import module_of

BENCHMARKS = sorted((Path(__file__).resolve().parents[1] / "benchmark").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_finds_what_it_imports_and_explains_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(path.parent)
    module = module_of(path)
    said = " ".join(module.parser().format_help().split())
    assert " ".join(module.__doc__.split())[:60] in said
