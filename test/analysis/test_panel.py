"""The panel on frames made so that the truth is known, and nats of transcripts against the LLM's own forward pass."""

import math

import numpy as np
import pytest
import torch
import toy_speech_llm

from asrllm.analysis import entropy
from asrllm.analysis import panel as panels
from asrllm.analysis.alignment import Alignment, Timed
from asrllm.analysis.attention import attention, looked_at
from asrllm.analysis.listening import Held
from asrllm.analysis.panel import Panel, Settings
from asrllm.console import UserError
from asrllm.data.kaldi import Utterance
from asrllm.models import llm as llms
from asrllm.models import packing

FRAME = 0.04
WORDS = {"ab": "ab", "AB": "ab", "c": "c"}  # the first two sound alike


def made(speakers: int = 6) -> tuple[Held, list[Utterance], dict[str, Alignment]]:
    """60 utterances of 8 words; a frame says its unit, and which of the words that sound alike it is of."""
    draw = np.random.default_rng(0)
    held, utterances, alignments = Held(), [], {}
    for number in range(60):
        words = [str(word) for word in draw.choice(list(WORDS), 8)]
        units, spans, rows = [], [], []
        for word in words:
            first = len(rows)
            for letter in WORDS[word]:
                units.append(Timed(letter, len(rows) * FRAME, (len(rows) + 2) * FRAME))
                row = np.eye(5)["abc".index(letter)] + (word == "AB") * np.eye(5)[4]
                rows += [row + 0.05 * draw.standard_normal(5) for _ in range(2)]
            spans.append(Timed(word, first * FRAME, len(rows) * FRAME))
        frames = torch.tensor(np.array(rows), dtype=torch.float32)
        utt_id = f"u{number:02}"
        utterances.append(Utterance(utt_id, f"s{number % speakers}", f"{number}", "", seconds=len(rows) * FRAME))
        alignments[utt_id] = Alignment(tuple(units), tuple(spans))
        held.utt_ids.append(utt_id)
        held.layers.setdefault("encoder", []).append(frames)
        held.log_probs.append(torch.full((len(frames), 4), -math.log(4)))
        held.positions.append(frames.view(-1, 10))  # of two frames; no unit begins in the second of them
        held.owners.append(torch.arange(len(frames)) // 2)
    return held, utterances, alignments


def test_what_the_frames_say_is_found_at_both_sites() -> None:
    held, utterances, alignments = made()
    found = panels.measure(held, utterances, alignments, Settings(min_count=20)).figures
    for site in ("encoder", "projector"):
        assert found["PAI"][site].value > 0.9
        assert abs(found["PAI, frames exchanged"][site].value) < 0.05
        assert found["CSAI"][site].value > 0.9
        assert abs(found["CSAI, frames exchanged"][site].value) < 0.1
    frames = np.concatenate([rows.numpy() for rows in held.layers["encoder"]])
    assert found["NSE"]["encoder"].value == pytest.approx(entropy.spectral_entropy(frames))
    assert found["NSE without silence"]["encoder"].value == pytest.approx(found["NSE"]["encoder"].value)
    assert found["CTC entropy"][""].value == pytest.approx(1.0)


def test_a_position_of_two_frames_is_read_by_two_probes() -> None:
    """Each half of a position says its own frame; one probe for both could not tell them apart."""
    draw = np.random.default_rng(0)
    units = draw.integers(0, 4, 4000)
    pairs = np.repeat(np.eye(4)[units].reshape(-1, 8), 2, 0)
    owners, speakers = np.arange(4000) // 40, [f"s{n // 400}" for n in range(4000)]
    both, _ = entropy.pai(pairs, units, owners, speakers, slots=np.arange(4000) % 2)
    one, _ = entropy.pai(pairs, units, owners, speakers)
    assert both.value > 0.9 and one.value < 0.7


def test_one_speaker_is_refused_and_rare_words_are_told() -> None:
    held, utterances, alignments = made(speakers=1)
    with pytest.raises(UserError, match="three disjoint parts"):
        panels.measure(held, utterances, alignments, Settings())
    held, utterances, alignments = made()
    found = panels.measure(held, utterances, alignments, Settings(min_count=1000)).figures
    assert "0 words occur 1000 times" in found["CSAI"]["encoder"].note


def test_nats_are_the_loss_and_without_speech_those_of_the_llm_alone() -> None:
    model = toy_speech_llm.model(toy_speech_llm.llama())
    batch = toy_speech_llm.batch([16000, 9000, 12000], ["abc", "d", "efgh"])
    with torch.no_grad():
        assert float(model.nats(batch).sum()) == pytest.approx(float(model(batch, ("llm",))["llm"].sum), rel=1e-5)
        alone = model.nats(batch, listens=False)
        for text, found in zip(batch.texts, alone.tolist(), strict=True):
            gold = [*model.llm_tokenizer.encode_transcript(text), 39]
            log_probs = model.llm(torch.tensor([[30, 31, 32, *gold]])).logits[0].log_softmax(-1)
            assert found == pytest.approx(
                -sum(float(log_probs[2 + n, token]) for n, token in enumerate(gold)), rel=1e-4
            )


def test_allocation_of_a_model_that_knows_nothing_is_told() -> None:
    model = toy_speech_llm.model(toy_speech_llm.llama())
    panel = Panel()
    panels.allocate(
        panel, model, [toy_speech_llm.batch([16000, 9000, 12000], ["ab", "ba", "aab"])], torch.device("cpu")
    )
    assert math.isnan(panel.figures["R_enc"][""].value) and "learned nothing" in panel.figures["R_enc"][""].note


@pytest.mark.parametrize("projector", ["linear", "posterior"])
def test_attention_is_that_of_the_row_and_leaves_the_model_as_it_was(projector: str) -> None:
    model = toy_speech_llm.model(toy_speech_llm.llama(), projector)
    batch = toy_speech_llm.batch([16000], ["abc"])
    with torch.no_grad():
        before = model.nats(batch)
        weights, pieces = attention(model, batch)
        assert model.nats(batch).equal(before)
    assert model.llm.config._attn_implementation == packing.IMPLEMENTATION
    size = sum(pieces.values())
    assert weights.shape == (2, 4, size, size) and pieces["before"] == 2 and pieces["transcript"] == 3
    assert weights.sum(-1) == pytest.approx(1.0, abs=1e-5)
    assert np.triu(weights, 1).max() == 0
    shares = looked_at(weights, pieces)
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
    assert shares["before"][1, 2] == pytest.approx(weights[1, 2, -3:, :2].sum(-1).mean())
    embeds, _ = model.row(batch)
    assert embeds[:2].equal(llms.embed(model.llm, torch.tensor([30, 31])))


def test_attention_wants_an_llm_with_audio_in_its_row() -> None:
    model = toy_speech_llm.model(toy_speech_llm.llama())
    model.llm = None
    with pytest.raises(UserError, match="no LLM"):
        attention(model, toy_speech_llm.batch([8000], ["a"]))
