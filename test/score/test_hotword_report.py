"""Recall, precision and false insertions of hotwords, by hand and from the program."""

from pathlib import Path

import pytest

from asrllm.bin import score
from asrllm.score.align import align
from asrllm.score.hotwords import hotwords, line
from asrllm.score.scoring import read_score
from asrllm.score.utterances import Aligned, Utterance


def test_each_figure_by_hand() -> None:
    pairs = [
        ("in new york today", "in new york today"),  # right
        ("in new york", "in york"),  # missed, and york is right
        ("a new house", "a new york house"),  # false, and so is york
        ("new york new york", "new york new pork"),
        ("new york", "new x york"),  # the words are there, but not one after another
    ]
    alignments = [
        Aligned(Utterance(str(number), "", "s", ref, hyp), align(ref.split(), hyp.split()))
        for number, (ref, hyp) in enumerate(pairs)
    ]
    found = hotwords(alignments, ["new york", "york", "never said", "new york"])
    assert set(found.phrases) == {"new york", "york"}
    both, york = found.phrases["new york"], found.phrases["york"]
    assert (both.said, both.recognised, both.right, both.false_insertions) == (5, 3, 2, 1)
    assert (york.said, york.recognised, york.right) == (5, 5, 4)
    assert both.recall_percent == pytest.approx(40) and both.precision_percent == pytest.approx(200 / 3)
    assert line(found.total) == "hotword recall 60.00 [ 6 / 10 ], precision 75.00 [ 6 / 8 ], 2 false insertions"
    nothing = hotwords(alignments, ["z"])
    assert nothing.phrases == {} and line(nothing.total).startswith("hotword recall - [ 0 / 0 ], precision -")


def test_the_program_reports_them_after_the_normaliser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ref").write_text("s-1 In New York!\ns-2 the York\n")
    (tmp_path / "hyp").write_text("s-1 in new york\ns-2 the new york\n")
    (tmp_path / "words").write_text("New York\n")
    (tmp_path / "score.yaml").write_text("units: [char]\nreports: [sys]\n")
    options = {"config": "score.yaml", "ref": "ref", "hyp": "hyp", "out": "out", "hotwords": "words"}
    score.main([word for name, file in options.items() for word in (f"--{name}", str(tmp_path / file))])
    said = "hotword recall 100.00 [ 1 / 1 ], precision 50.00 [ 1 / 2 ], 1 false insertions"
    assert said in capsys.readouterr().out
    report = read_score(tmp_path / "out/score.json").hotwords
    assert report is not None and report.phrases["new york"].recognised == 2
