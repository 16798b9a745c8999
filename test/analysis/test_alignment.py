"""Alignments: times of labels worked out by hand, ctm files there and back, and what does not match the audio."""

from pathlib import Path

import pytest
import torch
import toy_speech_llm

from asrllm.analysis import alignment
from asrllm.analysis.alignment import Alignment, Timed
from asrllm.console import UserError
from asrllm.decode.forced_align import Span
from asrllm.text.tokenizer import CharacterTokenizer

UNITS = CharacterTokenizer([" ", "a", "b"])
LONG = "abcdefghijklmnopqrstuvwxyz" * 4


def test_silence_between_labels_is_shared_and_spaces_part_words() -> None:
    """Frames of 0.04 s: a at 2, b at 4, a space at 6, a at 20."""
    a, b, space = (UNITS.encode(text)[0] for text in ("a", "b", " "))
    spans = [Span(label, first, first + 1, 0.0) for label, first in ((a, 2), (b, 4), (space, 6), (a, 20))]
    found = alignment._timed(spans, UNITS, 0.04)
    times = [(each.name, round(each.start, 3), round(each.end, 3)) for each in found.units]
    assert times == [("a", 0.0, 0.14), ("b", 0.14, 0.22), ("a", 0.7, 0.94)]
    assert [(each.name, round(each.start, 3), round(each.end, 3)) for each in found.words] == [
        ("ab", 0.0, 0.22),
        ("a", 0.7, 0.94),
    ]
    assert [found.spelled(word) for word in found.words] == [[0, 1], [2]]


def test_frames_get_the_unit_at_their_centre() -> None:
    made = Alignment((Timed("a", 0.2, 0.5), Timed("b", 0.5, 0.66)), (Timed("ab", 0.2, 0.66),))
    assert made.at(10, 1.0) == ["", "", "a", "a", "a", "b", "b", "", "", ""]
    assert made.span(made.words[0], 10, 1.0) == slice(2, 7)
    assert alignment.labels(made.at(4, 1.0), {"a": 0, "b": 1}).tolist() == [-1, 0, 1, -1]


def test_ctm_files_there_and_back(tmp_path: Path) -> None:
    made = {
        "u2": Alignment((Timed("A", 0.0, 0.25),), (Timed("Ab", 0.0, 0.5),)),
        "u1": Alignment((Timed("x", 0.1, 0.2), Timed("y", 0.2, 0.3)), (Timed("xy", 0.1, 0.3),)),
    }
    alignment.write(made, tmp_path / "units.ctm", tmp_path / "words.ctm")
    read = alignment.read(tmp_path / "units.ctm", tmp_path / "words.ctm")
    assert read.keys() == made.keys()
    for utt_id, each in made.items():
        for kind in ("units", "words"):
            pairs = zip(getattr(read[utt_id], kind), getattr(each, kind), strict=True)
            assert all(one.name == other.name and one.end == pytest.approx(other.end) for one, other in pairs)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ({"u1": 1.0, "u2": 1.0}, "x.ctm: does not match the audio: 1 utterances have no alignment: u2"),
        ({"u1": 0.5}, "x.ctm: does not match the audio: u1 has 0.50 s, its alignment ends at 0.90 s"),
    ],
)
def test_an_alignment_of_other_audio_is_refused(seconds: dict[str, float], said: str) -> None:
    made = {"u1": Alignment((Timed("a", 0.2, 0.9),), ())}
    alignment.check(made, {"u1": 0.85}, "x.ctm")
    with pytest.raises(UserError, match=said):
        alignment.check(made, seconds, "x.ctm")


def test_files_of_other_utterances_are_refused(tmp_path: Path) -> None:
    (tmp_path / "units.ctm").write_text("u1 1 0.0 0.5 a\n")
    (tmp_path / "words.ctm").write_text("u2 1 0.0 0.5 a\n")
    with pytest.raises(UserError, match="not of the same utterances: u1 is in one of them alone"):
        alignment.read(tmp_path / "units.ctm", tmp_path / "words.ctm")
    with pytest.raises(UserError, match="none.ctm: no such file: expected a ctm"):
        alignment.read(tmp_path / "none.ctm", tmp_path / "words.ctm")


def test_utterances_too_short_for_their_labels_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    model = toy_speech_llm.model(toy_speech_llm.llama())
    model.language.units.starts_word = lambda label: label == 1
    batch = toy_speech_llm.batch([16000, 8000], ["ab", LONG])
    found = alignment.by_ctc(model, [batch], torch.device("cpu"))
    assert list(found) == batch.utt_ids[:1] and batch.utt_ids[1] in caplog.text
    assert "".join(unit.name for unit in found[batch.utt_ids[0]].units) == "ab"
    with pytest.raises(UserError, match="no utterance could be aligned"):
        alignment.by_ctc(model, [toy_speech_llm.batch([8000], [LONG])], torch.device("cpu"))
