"""Rescoring: equal to delayed fusion at the end, to torch's CTC loss, to whole sequences; the order by weights."""

import pytest
import torch
import toy_speech_llm
from toy_llm import WIDTH, llama
from transformers import PreTrainedModel

from asrllm.batch import Batch, pad
from asrllm.console import UserError
from asrllm.decode.ctc_search import prefix_beam_search
from asrllm.decode.decoder import DecodeConfig, Decoder
from asrllm.decode.fusion import FusionConfig, Pieces
from asrllm.decode.rescore import (
    IMPOSSIBLE,
    CtcRescorer,
    LmRescorer,
    PriorRescorer,
    SpeechLlmRescorer,
    full_sums,
    rank,
    rescore,
)
from asrllm.decode.text_lm import TextLm
from asrllm.hypothesis import Hypothesis, NBest
from asrllm.text.tokenizer import CharacterTokenizer

LETTERS = " abc"
END = len(LETTERS) + 1


class Tokens:
    """A token for each letter."""

    def encode_transcript(self, text: str) -> list[int]:
        return [LETTERS.index(letter) if letter in LETTERS else END - 1 for letter in f" {text}"] if text else []

    def decode(self, ids: list[int]) -> str:
        return "".join(LETTERS[each] for each in ids)


class Toy:
    """Reads posteriors and prefix off the samples."""

    ctc_tokenizer = CharacterTokenizer(list(LETTERS))
    llm_tokenizer = Tokens()
    llm_end_ids = [END]

    def __init__(self) -> None:
        self.llm = llama(vocab_size=END + 1)

    def before(self) -> torch.Tensor:
        return torch.zeros(0, WIDTH)

    def prefix(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return batch.waves.unflatten(1, (-1, WIDTH)), batch.wave_lens // WIDTH

    def ctc_log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        frames, lens = self.prefix(batch)
        return torch.log_softmax(1.5 * frames[..., : self.ctc_tokenizer.size], 2), lens


def batch_of(*lens: int) -> Batch:
    waves, wave_lens = pad([torch.randn(size * WIDTH) for size in lens])
    return Batch([f"u{i}" for i in range(len(lens))], [""] * len(lens), waves, wave_lens)


def lists_of(*texts: list[str]) -> list[NBest]:
    return [
        NBest(f"u{i}", 1.0, [Hypothesis(text, -1.0, {"old": -float(rank)}) for rank, text in enumerate(group)])
        for i, group in enumerate(texts)
    ]


TEXTS = [["ab c", "ab", "", "ab a"], ["c", "b"], ["abc abc", "abc ab", "abc"]]


@pytest.fixture
def lm() -> TextLm:
    return TextLm(llama(vocab_size=END + 1), Tokens(), [END, 2], END)


def whole(llm: PreTrainedModel, embeds: torch.Tensor, tokens: list[int]) -> float:
    """Teacher forcing in one pass, no cache."""
    inputs = torch.cat([embeds, llm.get_input_embeddings()(torch.tensor(tokens))])
    logits = llm(inputs_embeds=inputs[None]).logits[0, len(embeds) - 1 : -1]
    return torch.log_softmax(logits, -1)[torch.arange(len(tokens)), torch.tensor(tokens)].sum().item()


@torch.inference_mode()
def test_lm_scores_are_those_of_whole_sequences(lm: TextLm) -> None:
    results = rescore(lists_of(*TEXTS), {"lm": LmRescorer(lm)}, None)
    context = lm.llm.get_input_embeddings()(torch.tensor(lm.context))
    for result in results:
        for each in result.hypotheses:
            expected = whole(lm.llm, context, [*lm.tokens(each.text), END])
            assert each.scores["lm"] == pytest.approx(expected, abs=1e-4)
        assert result.counts["lm_calls"] == 1
    distinct = {text[:i] for text in (f" {text}" if text else "" for text in TEXTS[0]) for i in range(len(text) + 1)}
    assert results[0].counts["lm_tokens"] == len(distinct - {""})


@torch.inference_mode()
def test_speech_llm_scores_are_those_of_teacher_forcing() -> None:
    model, batch = Toy(), batch_of(4, 7, 2)
    embeds, lens = model.prefix(batch)
    scorer = SpeechLlmRescorer(model, model.llm_tokenizer.encode_transcript)
    for result, row, size in zip(rescore(lists_of(*TEXTS), {"llm": scorer}, batch), embeds, lens, strict=True):
        for each in result.hypotheses:
            expected = whole(model.llm, row[:size], [*Tokens().encode_transcript(each.text), END])
            assert each.scores["llm"] == pytest.approx(expected, abs=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("projector", ["posterior", "linear"])
def test_speech_llm_scores_are_those_of_training(projector: str) -> None:
    """On a whole model, whose prompt has text before the audio and after it."""
    system = toy_speech_llm.model(toy_speech_llm.llama(), projector)
    texts = ["abc", "dd", "z"]
    batch = toy_speech_llm.batch([9000, 16000, 12000], texts)
    targets = [[*system.llm_tokenizer.encode_transcript(text), *system.llm_end_ids] for text in texts]
    log_probs = system.llm_log_probs(batch).split(list(map(len, targets)))
    scorer = SpeechLlmRescorer(system, system.llm_tokenizer.encode_transcript)
    results = rescore(lists_of(*[[text] for text in texts]), {"llm": scorer}, batch)
    for result, rows, row in zip(results, log_probs, targets, strict=True):
        assert result.best.scores["llm"] == pytest.approx(float(rows[range(len(row)), row].sum()), abs=1e-4)


def test_ctc_scores_are_minus_the_loss() -> None:
    model, batch = Toy(), batch_of(12, 9, 15)
    log_probs, lens = model.ctc_log_probs(batch)
    results = rescore(lists_of(*TEXTS), {"ctc": CtcRescorer(model, model.ctc_tokenizer)}, batch)
    for result, row, size in zip(results, log_probs, lens, strict=True):
        for each in result.hypotheses:
            labels = model.ctc_tokenizer.encode(each.text)
            sizes = torch.tensor([size]), torch.tensor([len(labels)])
            loss = torch.nn.functional.ctc_loss(
                row[:, None].double(), torch.tensor([labels]), *sizes, reduction="sum"
            ).item()
            assert each.scores["ctc"] == pytest.approx(-loss, abs=1e-9)


def test_ctc_of_what_cannot_be() -> None:
    log_probs = torch.log_softmax(torch.randn(3, 5), 1)
    sums = full_sums(log_probs, [[1, 2], [1, 1], [1, 1, 1], None, [1, 2, 3, 4], []])
    assert [each == IMPOSSIBLE for each in sums] == [False, False, True, True, True, False]
    assert full_sums(log_probs[:0], [[], [1]]) == [0.0, IMPOSSIBLE]
    assert full_sums(log_probs, [None]) == [IMPOSSIBLE]


@pytest.mark.parametrize("recombination", ["sum", "max"])
def test_delayed_fusion_at_the_end_is_rescoring_of_the_same_beam(lm: TextLm, recombination: str) -> None:
    model, batch = Toy(), batch_of(12, 9, 15, 0, 3)
    weights = {"ctc": 0.8, "lm": 0.5, "prior": -0.2, "length": 0.7}
    log_prior = torch.log_softmax(torch.randn(model.ctc_tokenizer.size), 0)
    settings = {"beam": 8, "nbest": 8, "recombination": recombination}
    end = FusionConfig.model_validate(
        {**settings, "lm": {"model": "toy"}, "trigger": {"type": "end"}, "weights": weights}
    )
    pieces = Pieces(model.ctc_tokenizer, lm, end, log_prior)
    fused = Decoder(model, DecodeConfig(search=end), pieces=pieces).decode(batch)
    plain = DecodeConfig.model_validate({"search": {**settings, "type": "ctc_prefix"}})
    with torch.inference_mode():
        scorers = {"lm": LmRescorer(lm), "prior": PriorRescorer(model.ctc_tokenizer, log_prior)}
    rescored = [rank(each, weights) for each in rescore(Decoder(model, plain).decode(batch), scorers, None)]
    for one, other in zip(fused, rescored, strict=True):
        assert [each.text for each in one.hypotheses] == [each.text for each in other.hypotheses]
        for left, right in zip(one.hypotheses, other.hypotheses, strict=True):
            assert left.scores == pytest.approx(right.scores, abs=1e-4)
            assert left.score == pytest.approx(right.score, abs=1e-4)
        assert one.counts == other.counts


def test_several_scorers_change_the_order_and_nothing_else(lm: TextLm) -> None:
    before = lists_of(*TEXTS)
    after = rescore(before, {"lm": LmRescorer(lm), "again": LmRescorer(lm)}, None)
    for old, new in zip(before, after, strict=True):
        assert [each.text for each in old.hypotheses] == [each.text for each in new.hypotheses]
        for each in new.hypotheses:
            assert set(each.scores) == {"old", "lm", "again", "length"}
            assert each.scores["lm"] == pytest.approx(each.scores["again"], abs=1e-5)
        ranked = rank(new, {"lm": 0.5, "old": -2.0})
        scores = [each.score for each in ranked.hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == max(0.5 * each.scores["lm"] - 2.0 * each.scores["old"] for each in new.hypotheses)


def test_a_weight_for_a_scorer_that_is_not_there() -> None:
    with pytest.raises(UserError, match="weights.llm: utterance u0 has no score of that name, only old: add a scorer"):
        rank(lists_of(["a"])[0], {"old": 1.0, "llm": 0.5})


def test_full_sums_are_those_of_a_beam_that_holds_every_prefix() -> None:
    log_probs = torch.log_softmax(torch.randn(1, 4, 4), 2)
    config = FusionConfig.model_validate({"beam": 10**5, "labels_per_frame": 3, "lm": {"model": "toy"}})
    (found,) = prefix_beam_search(log_probs, torch.tensor([4]), config)
    sums = full_sums(log_probs[0], [each.labels for each in found])
    assert [each.log_prob for each in found] == pytest.approx(sums, abs=1e-9)
