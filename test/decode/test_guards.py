"""Guards on constructed cases: loops by their definition, posteriors whose text is known, batches in any order."""

import random
from dataclasses import replace

import pytest
import torch
from toy_speech_llm import Letters as LetterTokens
from toy_speech_llm import batch, llama, model, rows_of

from asrllm.batch import Batch
from asrllm.config import parse
from asrllm.console import UserError
from asrllm.decode.beam import BeamConfig, beam_search
from asrllm.decode.decoder import DecodeConfig, Decoder
from asrllm.decode.guards import (
    AgreementConfig,
    GuardsConfig,
    LoopConfig,
    NoSpeechConfig,
    ctc_text,
    ends_in_loop,
    guarded,
    has_speech,
    silence,
)
from asrllm.decode.scorer import LlmScorer
from asrllm.decode.speculative import SpeculativeConfig, speculative_search
from asrllm.hypothesis import Hypothesis
from asrllm.score.align import align
from asrllm.score.hallucination import hallucination
from asrllm.score.utterances import Aligned, Utterance

LOOP = LoopConfig(ngram=3, times=3)
END = 0


def test_a_loop_is_what_its_definition_says() -> None:
    draw = random.Random(0)
    found = 0
    for _ in range(3000):
        tokens = [draw.randrange(2) for _ in range(draw.randrange(12))]
        truth = any(
            len(tokens) >= 3 * size and tokens[-3 * size :] == tokens[-size:] * 3 for size in range(1, LOOP.ngram + 1)
        )
        found += truth
        assert bool(ends_in_loop(torch.tensor(tokens), LOOP)) == truth
    assert found > 300
    assert not ends_in_loop(torch.ones(2, 5, 30), None).any()


class Parrot:
    """A scorer that says its line and then the token after it over and over; other tokens are improbable."""

    bounds = (-torch.inf, 0.0)

    def __init__(self, lines: list[list[int]]) -> None:
        self.lines = lines

    def _scores(self, rows: list[list[int]]) -> torch.Tensor:
        scores = torch.full((len(rows), len(rows[0]), 9), -5.0)
        for i, row in enumerate(rows):
            for k, step in enumerate(row):
                line = self.lines[i]
                scores[i, k, line[min(step, len(line) - 1)]] = -0.1
        return scores

    def start(self) -> tuple[torch.Tensor, object]:
        self.alive = list(range(len(self.lines)))
        return self._scores([[0]] * len(self.lines)), 1

    def score(self, tokens: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        return self._scores([[int(state)] * tokens.shape[1]] * tokens.shape[0]), int(state) + 1

    def select(self, state: object, rows: torch.Tensor) -> object:
        return state


@pytest.mark.parametrize("beam", [1, 3])
def test_the_beam_ends_what_loops_and_only_that(beam: int) -> None:
    config = BeamConfig(beam=beam)
    for line, tokens in (([4, 5, 6], [4, 5, 6, 6, 6]), ([3, 4, END], [3, 4])):
        (pool,) = beam_search({"llm": Parrot([line])}, {"llm": 1.0}, [END], [40], config, loop=LOOP)
        ended = line[-1] == END
        if beam == 1:
            assert pool[0].tokens == tokens and pool[0].ended == ended
        assert all(each.ended or ends_in_loop(torch.tensor(each.tokens), LOOP) for each in pool)
    (pool,) = beam_search({"llm": Parrot([[4, 5, 6]])}, {"llm": 1.0}, [END], [40], BeamConfig(beam=1))
    assert len(pool[0].tokens) == 40 and not pool[0].ended


def test_a_loop_in_one_utterance_leaves_its_batch_mates_alone() -> None:
    """Each stops where it would have gone on alone, by greedy and by speculative search."""
    llm = llama()  # a random one: it loops soon
    embeds, lens = torch.randn(5, 6, 32), torch.tensor([3, 5, 4, 6, 2])
    config = SpeculativeConfig(draft_tokens=4)
    scorer = LlmScorer(llm, embeds, lens, 30)
    plain = [pool[0] for pool in beam_search({"llm": scorer}, {"llm": 1.0}, [2], [30] * 5, config.greedy)]

    def searched(rows: list[int]) -> list[list[int]]:
        scorer = LlmScorer(llm, embeds[rows], lens[rows], 30)
        pools = beam_search({"llm": scorer}, {"llm": 1.0}, [2], [30] * len(rows), config.greedy, loop=LOOP)
        drafts = [plain[row].tokens[:9] for row in rows]
        scorer = LlmScorer(llm, embeds[rows], lens[rows], 30)
        drafted, _ = speculative_search(scorer, drafts, [2], [30] * len(rows), config, LOOP)
        assert [each.tokens for each in drafted] == [pool[0].tokens for pool in pools]
        return [pool[0].tokens for pool in pools]

    together = searched([0, 1, 2, 3, 4])
    assert together == [searched([row])[0] for row in range(5)] == searched([4, 3, 2, 1, 0])[::-1]
    for tokens, whole in zip(together, plain, strict=True):
        stops = [n for n in range(1, len(whole.tokens) + 1) if ends_in_loop(torch.tensor(whole.tokens[:n]), LOOP)]
        assert tokens == whole.tokens[: stops[0] if stops else None]
    assert any(len(tokens) < len(whole.tokens) for tokens, whole in zip(together, plain, strict=True))


class Letters:
    """Label n is the n-th letter; x is none."""

    def encode(self, text: str) -> list[int]:
        if "x" in text:
            raise UserError("x is no unit")
        return [ord(letter) - 96 for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(each + 96) for each in ids)


def posteriors(path: str, sure: float = 0.9) -> torch.Tensor:
    rows = torch.full((len(path), 6), (1 - sure) / 5)
    rows[torch.arange(len(path)), torch.tensor([0 if letter == "-" else ord(letter) - 96 for letter in path])] = sure
    return rows.log()


@pytest.mark.parametrize(
    ("text", "margin", "given"),
    [
        ("abc", 1.0, None),  # the very text
        ("abd", 1.5, None),  # one of three labels at odds: at most log(0.9 / 0.02) / 3 = 1.27 below
        ("abd", 0.8, "abc"),
        ("dead", 1.0, "abc"),
        ("", 1.0, "abc"),
        ("abx", 9.0, "abc"),  # what CTC cannot write
        ("abcdeabcde", 9.0, "abc"),  # what the frames cannot hold
    ],
)
def test_ctc_objects_to_what_is_far_from_its_text(text: str, margin: float, given: str | None) -> None:
    config = AgreementConfig(margin=margin)
    found = ctc_text(Hypothesis(text, 0.0), posteriors("-a-b-c-"), Letters(), config)
    assert (found and found.text) == given


def test_margin_is_per_label_over_all_paths() -> None:
    rows = posteriors("-a-b-c-")
    score = {
        text: float(torch.nn.functional.ctc_loss(
            rows[:, None].double(), torch.tensor([Letters().encode(text)]), torch.tensor([7]),
            torch.tensor([len(text)]), reduction="sum",
        ))
        for text in ("abc", "abdd")
    }  # fmt: skip
    distance = score["abdd"] / 4 - score["abc"] / 3
    best = Hypothesis("abdd", 0.0)
    assert ctc_text(best, rows, Letters(), AgreementConfig(margin=distance + 1e-6)) is None
    assert ctc_text(best, rows, Letters(), AgreementConfig(margin=distance - 1e-6)) is not None


def test_speech_is_told_by_the_rate_of_blanks() -> None:
    assert [has_speech(posteriors("-" * 9 + "a"), NoSpeechConfig(blank_rate=rate)) for rate in (1.0, 0.91, 0.9)] == [
        True,
        True,
        False,
    ]
    assert not has_speech(posteriors("---"), NoSpeechConfig()) and not has_speech(posteriors("a")[:0], NoSpeechConfig())
    assert has_speech(posteriors("---"), None)
    assert silence(posteriors("--")).scores["ctc"] == pytest.approx(2 * torch.tensor(0.9).log().item())


class Model:
    """Posteriors by utterance id."""

    ctc_tokenizer = Letters()
    paths = {"speech": "-a-b-c-", "silent": "-----", "other": "aab--"}

    def encode(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(batch), 7, 1), torch.tensor([len(self.paths[each]) for each in batch.utt_ids])

    def ctc_log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [posteriors(self.paths[each]) for each in batch.utt_ids]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), self.encode(batch)[1]


def test_what_each_guard_did_is_counted_and_the_search_never_sees_silence() -> None:
    asked: list[str] = []

    def search(batch: Batch) -> tuple[list[list[Hypothesis]], list[dict[str, int]]]:
        asked.extend(batch.utt_ids)
        said = {
            "speech": Hypothesis("eeee", -1.0, {"llm": -1.0}, [5] * 9, ended=False),
            "other": Hypothesis("ab", -2.0),
        }
        return [[said[each]] for each in batch.utt_ids], [{"llm_calls": 3} for _ in batch.utt_ids]

    names = ["silent", "speech", "other"]
    some = Batch(names, [""] * 3, None, torch.tensor([5, 7, 5]))
    config = GuardsConfig(loop=LOOP, ctc_agreement=AgreementConfig(margin=2.0), no_speech=NoSpeechConfig())
    hypotheses, counts = guarded(Model(), some, config, search)
    assert asked == ["speech", "other"]
    assert [[each.text for each in pool] for pool in hypotheses] == [[""], ["abc", "eeee"], ["ab"]]
    assert counts == [
        {"guard_no_speech": 1},
        {"llm_calls": 3, "guard_loop": 1, "guard_ctc_agreement": 1},
        {"llm_calls": 3},
    ]
    for row in range(3):
        alone = guarded(Model(), some.take([row]), config, search)
        assert alone == ([hypotheses[row]], [counts[row]])
    off = guarded(Model(), some.take([1, 2]), GuardsConfig(), search)
    assert [pool[0].text for pool in off[0]] == ["eeee", "ab"] and off[1][0] == {"llm_calls": 3, "guard_token_limit": 1}
    only = guarded(Model(), some.take([0]), config, lambda _: pytest.fail("the search was asked"))
    assert only[0][0][0].text == ""


@pytest.mark.parametrize(
    ("search", "guards", "says"),
    [
        (
            {"type": "ctc_greedy"},
            {"loop": {}},
            "guards.loop stops an LLM that writes, which search.type ctc_greedy has not",
        ),
        (
            {"type": "ctc_prefix"},
            {"ctc_agreement": {"margin": 1.0}},
            "search.type ctc_prefix gives the text of CTC itself",
        ),
        ({"type": "pretrained", "model": "x"}, {"no_speech": {}}, "which search.type pretrained has not"),
        ({"type": "beam"}, {"ctc_agreement": {}}, "guards.ctc_agreement.margin: required"),
    ],
)
def test_guards_that_do_not_fit_are_refused(search: dict[str, str], guards: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse({"search": search, "guards": guards}, DecodeConfig, "x.yaml")


def test_a_guarded_search_of_a_whole_model_does_not_depend_on_the_batch() -> None:
    class Known(LetterTokens):
        def encode(self, text: str) -> list[int]:
            if not all("a" <= letter <= "z" for letter in text):
                raise UserError("not a letter")
            return super().encode(text)

    whole, toy = batch([16000, 4000, 9000], ["", "", ""]), model(llama())
    toy.language = replace(toy.language, units=Known())
    config = parse(
        {"search": {"type": "beam", "beam": 2}, "guards": {"loop": {"times": 3}, "ctc_agreement": {"margin": 0.01}}},
        DecodeConfig,
        "x",
    )
    decoder = Decoder(toy, config)
    together = decoder.decode(whole)
    assert sum(each.counts.get("guard_ctc_agreement", 0) for each in together)
    for one, other in zip(together, [decoder.decode(row)[0] for row in rows_of(whole)], strict=True):
        assert [each.text for each in one.hypotheses] == [each.text for each in other.hypotheses]
        assert one.counts == other.counts


def test_the_hallucination_report_sees_the_flags() -> None:
    alignments = [
        Aligned(Utterance(name, name, "s", "a", "a"), align(["a"], ["a"])) for name in ("one", "two", "three", "four")
    ]
    share = hallucination(alignments, {}, {"one": ["guard_loop"], "two": []}).guarded["guard_loop"]
    assert (share.cases, share.total, share.examples) == (1, 4, ("one",))
    assert hallucination(alignments, {}).guarded == {}
