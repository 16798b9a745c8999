"""CTC units and the prompt: round trips, the LLM's own tokens, what is refused."""

import itertools
import random

import pytest
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from asrllm.console import UserError
from asrllm.text import tokenizer as tokenizers
from asrllm.text import tokenizer_training as training
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.prompt import PromptConfig, tokenize

TEXTS = ["the cat sat on the mat", "the dog sat", "a catalogue of cats", "don't sit"]


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory):
    """A small byte-level BPE tokenizer in transformers' form."""
    core = RustTokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    core.train_from_iterator([" " + text for text in TEXTS] * 3, trainer)
    folder = tmp_path_factory.mktemp("llm")
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>").save_pretrained(folder)
    return folder


def config_of(kind, llm_folder, **changes):
    given = {"type": kind, **({"llm": str(llm_folder)} if kind == "llm_subset" else {}), **changes}
    return training.TokenizerFile.model_validate({"tokenizer": given}).tokenizer


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("character", {}), ("sentencepiece", {"size": 25}), ("llm_subset", {}), ("llm_subset", {"min_count": 3})],
)
def test_text_survives_the_round_trip_and_the_folder(kind, changes, llm_folder, tmp_path):
    config = config_of(kind, llm_folder, **changes)
    training.train(config, TEXTS, tmp_path / "units")
    units = tokenizers.load(tmp_path / "units")
    for text in TEXTS:
        labels = units.encode(text)
        assert units.decode(labels) == text
        assert all(1 <= label < units.size for label in labels)
    assert training.is_trained(tmp_path / "units", config, TEXTS)
    assert not training.is_trained(tmp_path / "units", config, TEXTS[1:])


def test_subset_labels_are_the_llms_own_tokens(llm_folder):
    llm = LlmTokenizer(str(llm_folder))
    units = tokenizers.LlmSubsetTokenizer(llm, training.llm_subset(llm, TEXTS, 1))
    for text in TEXTS:
        assert [units.llm_ids[label - 1] for label in units.encode(text)] == llm.encode_transcript(text)


def test_characters_of_several_tokens_survive(llm_folder):
    llm = LlmTokenizer(str(llm_folder))
    units = tokenizers.LlmSubsetTokenizer(llm, training.llm_subset(llm, ["\u732b\u72d7 cat"], 1))
    assert units.decode(units.encode("\u72d7 cat\u732b")) == "\u72d7 cat\u732b"


@pytest.mark.parametrize("kind", ["character", "llm_subset"])
def test_units_can_be_spelled_in_characters(kind, llm_folder, tmp_path):
    training.train(config_of(kind, llm_folder), TEXTS, tmp_path / "units")
    spelling = tokenizers.characters(tokenizers.load(tmp_path / "units"))
    for text in TEXTS:
        assert len(spelling.encode(text)) == len(text) and spelling.decode(spelling.encode(text)) == text


def test_no_word_piece_of_the_subset_is_rarer_than_asked(llm_folder):
    llm = LlmTokenizer(str(llm_folder))
    units = tokenizers.LlmSubsetTokenizer(llm, training.llm_subset(llm, TEXTS, 2))
    used = [label for text in TEXTS for label in units.encode(text)]
    for label in range(1, units.size):
        string = llm.strings[units.llm_ids[label - 1]]
        assert len(string) == 1 or used.count(label) >= 2, string


def test_respelling_gives_the_llms_own_tokens_and_the_labels_they_cover(llm_folder):
    llm = LlmTokenizer(str(llm_folder))
    units = tokenizers.LlmSubsetTokenizer(llm, training.llm_subset(llm, TEXTS, 5))
    text = "the cat sat on a catalogue"
    labels = units.encode(text)
    spelled = units.respell(labels)
    assert [token for token, _, _ in spelled] == llm.encode_transcript(text) != [units.llm_ids[i - 1] for i in labels]
    for token, first, end in spelled:
        covered = "".join(llm.strings[units.llm_ids[label - 1]] for label in labels[first:end])
        assert llm.strings[token] in covered
    assert [first for _, first, _ in spelled] == sorted(first for _, first, _ in spelled)
    assert units.respell([]) == []


def test_words_never_seen_are_spelled_with_the_units(llm_folder):
    llm = LlmTokenizer(str(llm_folder))
    units = tokenizers.LlmSubsetTokenizer(llm, training.llm_subset(llm, TEXTS, 1))
    assert units.decode(units.encode("a zebra sat")) == "a zebra sat"
    with pytest.raises(UserError, match="cannot be written in the CTC units"):
        units.encode("\u732b")


def test_fewest_pieces_equals_trying_all_splits():
    draw = random.Random(0)
    known = {"a", "b", "ab", "ba", "aab", "bb"}
    for _ in range(100):
        word = "".join(draw.choice("abc" if draw.random() < 0.1 else "ab") for _ in range(draw.randint(1, 7)))
        sizes = []
        for cuts in itertools.product([0, 1], repeat=len(word) - 1):
            edges = [0, *(place for place, cut in enumerate(cuts, 1) if cut), len(word)]
            if all(word[i:j] in known for i, j in itertools.pairwise(edges)):
                sizes.append(len(edges) - 1)
        found = tokenizers.fewest_pieces(word, known)
        assert (None if found is None else len(found)) == (min(sizes) if sizes else None)
        assert found is None or "".join(found) == word


def test_unknown_character_is_marked_not_lost(llm_folder, tmp_path):
    training.train(config_of("character", llm_folder), TEXTS, tmp_path / "units")
    units = tokenizers.load(tmp_path / "units")
    assert units.decode(units.encode("cat!")) == "cat\u2047"


def test_mistakes_are_one_sentence(llm_folder, tmp_path):
    with pytest.raises(UserError, match="no tokenizer there: run stage 3"):
        tokenizers.load(tmp_path)
    with pytest.raises(UserError, match="sentencepiece cannot make 5000 pieces"):
        training.train(config_of("sentencepiece", llm_folder, size=5000), TEXTS, tmp_path / "units")
    assert not (tmp_path / "units").exists()
    with pytest.raises(UserError, match="no tokenizer loads"):
        LlmTokenizer(str(tmp_path / "nowhere"))


def test_prompt_has_one_slot_and_one_end_token(llm_folder):
    llm = LlmTokenizer(str(llm_folder))
    prompt = tokenize(PromptConfig(template="the<speech> cat", end="\n"), llm)
    assert llm.decode(prompt.before) == "the" and llm.decode(prompt.after) == "cat"
    assert prompt.end != llm.end_id == tokenize(PromptConfig(), llm).end
    with pytest.raises(ValueError, match="exactly once"):
        PromptConfig(template="no slot")
    with pytest.raises(UserError, match="exactly one"):
        tokenize(PromptConfig(end="the end"), llm)
