"""Joint decoding where the CTC has units of its own: the CTC score is that of the text, whatever tokens write it."""

import itertools
from pathlib import Path

import pytest
import torch
import toy_corpus
from transformers import AutoModelForCausalLM

from asrllm import api
from asrllm.batch import Batch, pad
from asrllm.console import UserError
from asrllm.decode.beam import Finished
from asrllm.decode.ctc_prefix import CtcPrefix
from asrllm.decode.joint import Companions, JointConfig, Weights, ctc_scorer, joint_search
from asrllm.decode.rescore import IMPOSSIBLE, full_sums
from asrllm.decode.scorer import Opening
from asrllm.text import tokenizer as tokenizers
from asrllm.text import tokenizer_training as training
from asrllm.text.lexicon import Lexicon
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.phonemes import PhonemeConfig, PhonemeTokenizer

TEXTS = ["red green blue", "white black", "green red green red", "blue", ""]


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llm")
    toy_corpus.write_llm(folder)
    return folder


class Heard:
    """A random LLM and a CTC head that heard `TEXTS`, not too clearly."""

    def __init__(self, llm_folder: Path, units: tokenizers.Tokenizer) -> None:
        self.llm = AutoModelForCausalLM.from_pretrained(llm_folder)
        self.llm_tokenizer, self.ctc_tokenizer = LlmTokenizer(str(llm_folder)), units
        self.llm_end_ids = [self.llm_tokenizer.end_id]
        rows = [[label for each in units.encode(text) for label in (each, 0)] for text in TEXTS]
        self.paths, self.lens = pad([torch.tensor([0, *row]) for row in rows])
        scores = torch.randn(*self.paths.shape, units.size) + 9.0 * torch.nn.functional.one_hot(self.paths, units.size)
        self.log_probs = scores.log_softmax(-1)
        self.embeds = torch.randn(len(TEXTS), 3, 32)

    def encode(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(batch), 0, 1), torch.zeros(len(batch), dtype=torch.long)

    def before(self) -> torch.Tensor:
        return torch.zeros(0, 32)

    def heard(self, batch: Batch) -> None:
        return None

    def prefix(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.embeds, torch.full((len(batch),), 3)

    def ctc_log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.log_probs, self.lens


def units_of(kind: dict[str, object], llm_folder: Path, folder: Path) -> tokenizers.Tokenizer:
    given = kind | ({"llm": str(llm_folder)} if kind["type"] == "llm_subset" else {})
    config = training.TokenizerFile.model_validate({"tokenizer": given}).tokenizer
    training.train(config, TEXTS[:4], folder / "units")
    return tokenizers.load(folder / "units")


KINDS = [
    {"type": "llm_subset"},
    {"type": "llm_subset", "min_count": 3},
    {"type": "character"},
    {"type": "sentencepiece", "size": 20},
]


def ctc(model: Heard, row: int, text: str) -> float:
    labels = torch.tensor([model.ctc_tokenizer.encode(text)], dtype=torch.long)
    log_probs, sizes = model.log_probs[row, : model.lens[row], None].double(), torch.tensor([labels.shape[1]])
    loss = torch.nn.functional.ctc_loss(log_probs, labels, model.lens[row, None], sizes, reduction="none")
    return -loss.item()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_sum_over_the_tokens_is_the_score_of_the_text(
    kind: dict[str, object], llm_folder: Path, tmp_path: Path
) -> None:
    """In the LLM's own tokens and, unless they are other labels, by letters; also of a text that was not said."""
    model = Heard(llm_folder, units_of(kind, llm_folder, tmp_path))
    tokens = model.llm_tokenizer
    for row, heard in enumerate(TEXTS):
        for text in {heard, "red white"}:
            letters = [tokens.id_of_string[letter] for letter in f" {text}"] if text else []
            for spelled in (tokens.encode_transcript(text), *([] if kind["type"] == "llm_subset" else [letters])):
                scorer = ctc_scorer(model, CtcPrefix(model.log_probs[row : row + 1], model.lens[row : row + 1]))
                state, total = scorer.start(), 0.0
                for token in [*spelled, tokens.end_id]:
                    candidates = torch.tensor([[[token, letters[0] if letters else 5]]])
                    total += scorer.score_candidates(state, candidates)[0, 0, 0].item()
                    if token != tokens.end_id:
                        state = scorer.advance(state, torch.tensor([[0]]), candidates[..., 0])
                assert total == pytest.approx(ctc(model, row, text), abs=1e-9)


def search(model: Heard, config: JointConfig) -> tuple[list[list[Finished]], list[dict[str, int]]]:
    """All texts, by the model that has heard them."""
    batch = Batch([str(row) for row in range(5)], TEXTS, None, torch.zeros(5, dtype=torch.long))
    return joint_search(model, batch, config, [3.0] * 5, Companions(), Opening(model.llm, model.before()))


@pytest.mark.parametrize("kind", KINDS[:3], ids=str)
def test_an_llm_that_knows_nothing_writes_what_was_heard(
    kind: dict[str, object], llm_folder: Path, tmp_path: Path
) -> None:
    model = Heard(llm_folder, units_of(kind, llm_folder, tmp_path))
    config = JointConfig(beam=6, candidates=300, weights=Weights(ctc=3.0))
    found, counts = search(model, config)
    assert [model.llm_tokenizer.decode(pool[0].tokens) for pool in found] == TEXTS
    for row, pool in enumerate(found):
        assert pool[0].scores["ctc"] == pytest.approx(ctc(model, row, TEXTS[row]), abs=1e-5)
        assert counts[row]["llm_calls"] >= len(pool[0].tokens) + 1  # the first reads the prompt, the last gives the end


def test_with_a_lexicon_the_sum_is_that_of_all_pronunciations(llm_folder: Path) -> None:
    units = PhonemeTokenizer(PhonemeConfig(type="phoneme"), sorted({*"ABEGINRTUWHDLK", "EH"}))
    said = {"red": ["RED"], "green": ["GRIN"], "blue": ["BLU", "BALU"], "white": ["WAIT", "HWAIT", "HWEIT"]}
    said["black"] = ["BLAK"]
    lexicon = Lexicon(units, {word: [[units.label_of[each] for each in way] for way in said[word]] for word in said})
    units.encode = lambda text: [  # type: ignore[method-assign]
        label for word in text.split() for label in lexicon.spell(word)[-1]
    ]
    units.pronunciations = lambda piece: [[1]]  # type: ignore[method-assign]
    model = Heard(llm_folder, units)
    tokens = model.llm_tokenizer
    for row, text in itertools.product(range(5), ("blue white", "white black blue", "blue", "")):
        log_probs = model.log_probs[row : row + 1], model.lens[row : row + 1]
        scorer = ctc_scorer(model, CtcPrefix(*log_probs), lexicon)
        state, total = scorer.start(), 0.0
        for token in [*tokens.encode_transcript(text), tokens.end_id]:
            total += scorer.score_candidates(state, torch.tensor([[[token]]])).item()
            if token != tokens.end_id:
                state = scorer.advance(state, torch.tensor([[0]]), torch.tensor([[token]]))
        ways = itertools.product(*(lexicon.spell(word) for word in text.split()))
        sums = full_sums(model.log_probs[row, : model.lens[row]], [sum(way, []) for way in ways])
        if max(sums) > IMPOSSIBLE:
            assert total == pytest.approx(torch.tensor(sums).logsumexp(0).item(), rel=1e-5)
    with pytest.raises(UserError, match="for weights.ctc give search.lexicon"):
        search(model, JointConfig(weights=Weights(ctc=1.0)))


def test_other_units_are_refused(llm_folder: Path) -> None:
    model = Heard(llm_folder, tokenizers.CharacterTokenizer(list(" abcdeghiklnrtuw")))

    class Sounds:
        """Units that no text can be written in."""

        size = 5

        def encode(self, text: str) -> list[int]:
            return [1]

        def decode(self, ids: list[int]) -> str:
            return ""

    model.ctc_tokenizer = Sounds()
    with pytest.raises(UserError, match="units of type Sounds cannot be joined"):
        search(model, JointConfig(weights=Weights(ctc=1.0)))


def test_a_lexicon_that_nobody_reads_is_refused(llm_folder: Path) -> None:
    with pytest.raises(ValueError, match="lexicon is given, but not weights.ctc"):
        JointConfig(lexicon="dictionary")
    model = Heard(llm_folder, tokenizers.CharacterTokenizer(list(" abcdeghiklnrtuw")))
    config = JointConfig(lexicon="dictionary", weights=Weights(ctc=1.0))
    with pytest.raises(
        UserError, match="search.lexicon is dictionary, but the CTC units are no phonemes: leave it out"
    ):
        api._lexicon(config, model)
