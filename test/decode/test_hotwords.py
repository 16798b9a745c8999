"""Hotwords in the search: letters against counting phrases in the whole text; a search that a hotword turns."""

import random
import re
from pathlib import Path

import pytest
import torch
from toy_corpus import decode_options, refused

from asrllm.bin import decode
from asrllm.console import UserError
from asrllm.decode.beam import BeamConfig, beam_search
from asrllm.decode.hotwords import HotwordScorer, HotwordTree
from asrllm.hypothesis import read_decoding
from asrllm.text.hotwords import check_hotwords, read_hotwords
from asrllm.text.tokenizer import CharacterTokenizer

TOKENS = [" a", "a", "b", " b", "ab", " ab", " ", "ba", "'", "ab a", "\u4eca", "\u5929", None]  # None: half a letter
STRINGS = {number: text for number, text in enumerate(TOKENS) if text is not None}
END = len(TOKENS)


def walked(tree: HotwordTree, tokens: list[int]) -> list[float]:
    """The sum after each token."""
    place, total, sums = 0, 0.0, []
    for token in tokens:
        gain, place = tree.step(place, token, token == END)
        total += gain
        sums.append(total)
    return sums


def counted(phrases: list[str], text: str) -> int:
    """Letters of the phrases that occur in a text as whole words; Han phrases anywhere."""
    total = 0
    for phrase in phrases:
        wide = phrase[0] > "\u4000"
        pattern = re.escape(phrase) if wide else f"(?<= ){re.escape(phrase)}(?![ab\u4eca\u5929\ufffd])"
        total += len(phrase) * len(
            re.findall(f"(?={pattern})" if wide else pattern.replace("(?<= )", "(?<= )(?=") + ")", text)
        )
    return total


def test_the_sum_over_a_text_is_its_phrases_however_it_is_cut_into_tokens() -> None:
    draw = random.Random(0)
    some = 0
    for _ in range(400):
        words = ["a", "b", "ab", "ba", "aab", "a b", "ab a", "b ab", "\u4eca\u5929", "\u5929"]
        phrases = draw.sample(words, draw.randint(1, 5))
        tree = HotwordTree(phrases, STRINGS, END + 1)
        for _ in range(10):
            tokens = [draw.randrange(END) for _ in range(draw.randint(0, 10))]
            text = "".join(STRINGS.get(token, "\ufffd") for token in tokens)
            truth = counted(phrases, text)
            some += truth > 0
            assert (walked(tree, [*tokens, END]) or [0.0])[-1] == truth, (phrases, text)
    assert some > 1000


def test_letters_are_given_as_they_are_written_and_taken_back() -> None:
    tree = HotwordTree(["ab ba", "ab"], STRINGS, END + 1)
    ids = {text: token for token, text in STRINGS.items()}
    assert walked(tree, [ids[" a"], ids["b"], ids[" b"], ids["a"], END]) == [1, 2, 2 + 4, 2 + 5, 2 + 5]
    assert walked(tree, [ids[" a"], ids["b"], ids[" b"], ids["b"], END]) == [1, 2, 2 + 4, 2, 2]
    assert walked(tree, [ids[" ab"], ids["b"], END]) == [2, 0, 0]  # abb is another word
    assert walked(tree, [ids["a"], ids["b"], END]) == [0, 0, 0]  # inside of a word
    assert walked(tree, [ids[" ab"], ids["'"], END]) == [2, 2, 2]
    assert walked(tree, [ids[" ab"], 12, END]) == [2, 0, 0]


class Fixed:
    """Scores that do not depend on what was written."""

    bounds = (-torch.inf, 0.0)

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows  # (L, V)

    def start(self) -> tuple[torch.Tensor, int]:
        return self.rows[0].expand(2, 1, -1), 1

    def score(self, tokens: torch.Tensor, state: int) -> tuple[torch.Tensor, int]:
        return self.rows[min(state, len(self.rows) - 1)].expand(*tokens.shape, -1), state + 1

    def select(self, state: int, rows: torch.Tensor) -> int:
        return state


def test_a_wide_beam_finds_the_best_of_all_texts_and_keeps_the_letters() -> None:
    size, limit = END + 1, 3
    rows = torch.randn(limit, size).log_softmax(-1)
    tree = HotwordTree(["ab a", "b"], STRINGS, size)
    scorer = HotwordScorer(tree, [END], 2, torch.device("cpu"))
    config = BeamConfig(beam=size**2, candidates=size, nbest=1)
    weights = {"llm": 1.0, "hotword": 0.7}
    pools = beam_search({"llm": Fixed(rows)}, weights, [END], [limit] * 2, config, {"hotword": scorer})
    best = -torch.inf
    for one in range(size):
        for two in range(size) if one != END else [None]:
            for three in range(size) if two not in (END, None) else [None]:
                tokens = [token for token in (one, two, three) if token is not None]
                total = sum(float(rows[place, token]) for place, token in enumerate(tokens))
                best = max(best, total + 0.7 * walked(tree, tokens)[-1])
    for pool in pools:
        assert pool[0].score == pytest.approx(best, abs=1e-5)
        tokens = [*pool[0].tokens, END] if pool[0].ended else pool[0].tokens
        assert pool[0].scores["hotword"] == walked(tree, tokens)[-1]


def test_a_hotword_turns_the_search_of_a_real_model(work: Path) -> None:
    """Of the toy's words one is wanted so much that it is written; its letters are in the result, and none without."""
    joint = ["--set", "search.weights={ctc: 0.5, hotword: 30.0}", "--set", "search.hotwords=words"]
    Path("words").write_text("black\n\n  black \n")
    decode.main([*decode_options("decode_beam", "exp/train_joint", "hot"), *joint])
    decode.main([*decode_options("decode_beam", "exp/train_joint", "alone"), *joint, "--set", "batch_seconds=0.1"])
    plain = read_decoding(Path("exp/train_joint/decode_beam/test"))
    results = read_decoding(Path("hot"))
    for utt_id, result in results.items():
        for each in result.hypotheses:
            if each.ended:
                assert each.scores["hotword"] == 5 * each.text.split().count("black")
        assert result.best.text == read_decoding(Path("alone"))[utt_id].best.text
    more = sum(each.best.text.split().count("black") for each in results.values())
    assert more > sum(each.best.text.split().count("black") for each in plain.values())


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("black\nz\u00fcrich\n", {}, "words: 'z\u00fcrich': no token of the LLM is written with '\u00fc'"),
        ("\n \n", {}, "words: no phrase in it"),
        (None, {}, "words: no readable file of hotwords"),
        ("black\n", {"search.weights": "{ctc: 0.5}"}, "hotwords is given, but not weights.hotword"),
    ],
)
def test_mistakes_are_one_sentence(
    work: Path, capsys: pytest.CaptureFixture[str], text: str | None, options: dict[str, str], says: str
) -> None:
    if text is not None:
        Path("words").write_text(text)
    keys = {"search.weights": "{hotword: 1.0}", "search.hotwords": "words"} | options
    more = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    assert says in refused(capsys, "decode", [*decode_options("decode_beam", "exp/train_joint", "new"), *more])[0]


def test_letters_that_are_no_ctc_units_are_named(tmp_path: Path) -> None:
    class Llm:
        strings = STRINGS

    units = CharacterTokenizer([" ", "a"])
    check_hotwords(["a a"], Llm(), units, "words")
    check_hotwords(["ab"], Llm(), None, "words")
    with pytest.raises(UserError, match="words: 'ab': 'b' is no CTC unit, so that joint decoding would never write it"):
        check_hotwords(["a a", "ab"], Llm(), units, "words")
    (tmp_path / "words").write_text("\ufeffone  two\none two\n")
    assert read_hotwords(tmp_path / "words") == ["one two"]
