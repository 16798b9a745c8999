"""Times of words from posteriors in which every frame's label is known, and the files that they are written to."""

import math
from pathlib import Path

import pytest
import torch

from asrllm.decode import subtitles
from asrllm.decode.subtitles import cues
from asrllm.decode.word_times import TimedWord, spread, time_words
from asrllm.score.timed import read_ctm
from asrllm.text.tokenizer import CharacterTokenizer, load
from asrllm.text.tokenizer_training import SentencePieceConfig, train

CHARACTERS = CharacterTokenizer([" ", "a", "b", "c", "\u4eca", "\u5929"])


def posteriors(path: list[int], size: int, sure: float = 0.9) -> torch.Tensor:
    """(T, V) with `sure` on the label of each frame and the rest on all others."""
    rows = torch.full((len(path), size), (1 - sure) / (size - 1), dtype=torch.float64)
    rows[torch.arange(len(path)), torch.tensor(path)] = sure
    return rows.log()


def test_words_lie_where_their_labels_were_put() -> None:
    a, b, c, space = (CHARACTERS.encode(letter)[0] for letter in "abc ")
    path = [0, 0, a, a, b, 0, space, space, 0, c, 0, 0, c, c, c, 0]
    log_probs = posteriors(path, CHARACTERS.size)[None]
    (timed,) = time_words(log_probs, torch.tensor([16]), ["ab  cc"], CHARACTERS, 0.04)
    assert not timed.fault and [each.word for each in timed.words] == ["ab", "cc"]
    assert [(round(each.start / 0.04), round(each.end / 0.04)) for each in timed.words] == [(2, 5), (9, 15)]
    assert [each.confidence for each in timed.words] == pytest.approx([0.9, 0.9])


def test_confidence_is_the_geometric_mean_over_the_frames_of_the_labels() -> None:
    a = CHARACTERS.encode("a")[0]
    log_probs = posteriors([a, a, 0, a], CHARACTERS.size)
    log_probs[0, a] = math.log(0.6)
    (timed,) = time_words(log_probs[None], torch.tensor([4]), ["aa"], CHARACTERS, 1.0)
    assert timed.words[0].confidence == pytest.approx((0.6 * 0.9 * 0.9) ** (1 / 3))


def test_a_letter_of_a_writing_without_spaces_is_a_word() -> None:
    text = "\u4eca\u5929ab c"
    labels = CHARACTERS.encode(text)
    (timed,) = time_words(posteriors(labels, CHARACTERS.size)[None], torch.tensor([6]), [text], CHARACTERS, 1.0)
    assert [(each.word, each.start) for each in timed.words] == [("\u4eca", 0), ("\u5929", 1), ("ab", 2), ("c", 5)]


def test_sentencepiece_and_unknown_letters_keep_the_words_of_the_text(tmp_path: Path) -> None:
    config = SentencePieceConfig(type="sentencepiece", size=10)
    train(config, ["abba cab back", "a cab", "back abba"] * 5, tmp_path / "units")
    units = load(tmp_path / "units")
    for text in ("abba cab", "back x cab a"):
        labels = units.encode(text)
        path = [label for each in labels for label in (each, 0)]
        (timed,) = time_words(posteriors(path, units.size)[None], torch.tensor([len(path)]), [text], units, 0.5)
        assert [each.word for each in timed.words] == text.split()
        starts = [2 * place for place, label in enumerate(labels) if units.starts_word(label)]
        assert all(
            start <= each.start / 0.5 <= start + 2 for start, each in zip(starts, timed.words, strict=True)
        )  # a piece that is only the space belongs to no word


def test_what_cannot_be_aligned_is_spread_and_said_whatever_the_batch() -> None:
    log_probs = posteriors([2, 3, 4, 0, 0, 0], CHARACTERS.size).expand(3, -1, -1)
    lens = torch.tensor([2, 6, 0])
    some = time_words(log_probs, lens, ["abc c", "ab", ""], CHARACTERS, 0.5)
    assert [each.fault for each in some] == ["its 5 CTC labels need 5 frames, the audio has 2", "", ""]
    assert some[0].words == [TimedWord("abc", 0.0, 0.75, 0.0), TimedWord("c", 0.75, 1.0, 0.0)]
    assert some[2].words == []
    alone = time_words(log_probs[1:2], lens[1:2], ["ab"], CHARACTERS, 0.5)
    assert alone == some[1:2]
    assert spread("", 3.0) == []


def test_ctm_is_read_back_by_the_scorer(tmp_path: Path) -> None:
    words = [TimedWord("two", 1.25, 1.5, 0.5), TimedWord("one", 0.1, 0.45, 0.875)]
    (tmp_path / "x.ctm").write_text(subtitles.ctm(words, "tape", "A"))
    (items,) = read_ctm(tmp_path / "x.ctm").values()
    assert [(each.text, each.start, each.seconds, each.confidence) for each in items] == [
        ("one", 0.1, 0.35, 0.875),
        ("two", 1.25, 0.25, 0.5),
    ]


def test_cues_fit_on_a_screen_and_end_at_pauses() -> None:
    words = [TimedWord(f"word{number:04}", number * 0.3, number * 0.3 + 0.25, 1.0) for number in range(30)]
    words += [TimedWord("late", 30.0, 30.2, 1.0), TimedWord("slow", 31.0, 39.0, 1.0)]
    made = cues(words)
    assert [word for cue in made for line in cue.lines for word in line.split()] == [each.word for each in words]
    assert all(len(cue.lines) <= 2 and len(line) <= 42 for cue in made for line in cue.lines)
    assert [cue.lines for cue in made[-2:]] == [("late",), ("slow",)]


def test_subtitles_are_written_as_their_formats_want_them() -> None:
    shown = cues([TimedWord("a<b", 3599.9996, 3600.25, 1.0), TimedWord("c", 3602.0, 3602.5, 1.0)])
    assert subtitles.srt(shown) == ("1\n01:00:00,000 --> 01:00:00,250\na<b\n\n2\n01:00:02,000 --> 01:00:02,500\nc\n")
    assert subtitles.vtt(shown) == (
        "WEBVTT\n\n01:00:00.000 --> 01:00:00.250\na&lt;b\n\n01:00:02.000 --> 01:00:02.500\nc\n"
    )
    assert subtitles.srt([]) == "" and subtitles.vtt([]) == "WEBVTT\n"
