"""The picture of made-up text: what is drawn, and that nothing lies over it."""

import pytest

from asrllm.analysis import pictures
from asrllm.score.hallucination import Share

NOTHING = {"percent": None, "interval_percent": None}


def share(cases: int, total: int) -> Share:
    known = {"percent": 100 * cases / total, "interval_percent": (0.0, 100.0)} if total else NOTHING
    return Share(cases=cases, total=total, examples=(), **known)


@pytest.mark.parametrize("decodings", [1, 40])
def test_what_has_no_utterances_is_not_drawn_and_the_legend_lies_beside(decodings: int) -> None:
    names = [f"train_align/decode_{number}" for number in range(decodings)]
    line = {"dev": share(1, 4), "noise": share(0, 0)}
    figure = pictures.shares(
        {
            "looping": dict.fromkeys(names, line),
            "non_speech": dict.fromkeys(names, {"dev": share(0, 0)}),
            "truncated": dict.fromkeys(names, line),
        }
    )
    figure.draw_without_rendering()
    assert [axis.get_ylabel() for axis in figure.axes] == ["looping, %", "truncated, %"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["dev"]
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    box = legend.get_window_extent()
    assert not any(axis.get_tightbbox().overlaps(box) for axis in figure.axes)
    assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
