"""Fusion: a slow loop over a dictionary, rescoring, label-wise against delayed, no cache, other batch mates."""

import itertools
import math
import random
from pathlib import Path

import pydantic
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from asrllm.batch import pad
from asrllm.console import UserError
from asrllm.decode import token_tree
from asrllm.decode.ctc_search import prefix_beam_search
from asrllm.decode.fusion import Fusion, FusionConfig, Pieces
from asrllm.decode.text_lm import TextLm
from asrllm.hypothesis import Hypothesis
from asrllm.text.ngram import Ngrams, witten_bell
from asrllm.text.tokenizer import CharacterTokenizer, LlmSubsetTokenizer

WORDS = [
    " ab",
    " a",
    "b",
    " ba",
    "c",
    " ",
    "a",
    "\u2047",
]  # token n of the LM is the n-th of them, its end token the last
END = len(WORDS)
CONTEXT = [END, 1, 3]
WIDE = 4000
AHEAD = {"look_ahead": {"arpa": "toy", "weight": 0.7}}


class Tokens:
    """A tokenizer of the LM: the longest token that fits, word by word."""

    strings = dict(enumerate(WORDS))

    def encode_transcript(self, text: str) -> list[int]:
        rest, tokens = f" {text}" if text else "", []
        while rest:
            token = max((each for each in WORDS if rest.startswith(each)), key=len)
            tokens.append(WORDS.index(token))
            rest = rest.removeprefix(token)
        return tokens

    def decode(self, ids: list[int]) -> str:
        return "".join(WORDS[each] for each in ids).strip()

    def same_vocabulary(self, other: object) -> bool:
        return isinstance(other, Tokens)


class Subset(LlmSubsetTokenizer):
    """Label n is token n - 1 of the LM."""

    def __init__(self) -> None:
        self.llm, self.llm_ids, self.size = Tokens(), list(range(len(WORDS))), len(WORDS) + 1


UNITS = {"subset": Subset(), "characters": CharacterTokenizer([" ", "a", "b", "c"])}


@pytest.fixture
def lm() -> TextLm:
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    llm = LlamaForCausalLM(LlamaConfig(**size, vocab_size=END + 1, initializer_range=0.5)).eval()
    return TextLm(llm, Tokens(), CONTEXT, END)


def config(trigger: object = "end", **more: object) -> FusionConfig:
    kind = {"type": "interval", "frames": trigger} if isinstance(trigger, int) else {"type": trigger}
    settings = {"lm": {"model": "toy"}, "trigger": kind, "units": "labels" if trigger == "label" else "text"}
    weights = {"lm": 0.6, "prior": -0.3, "length": 0.4}
    return FusionConfig.model_validate({**settings, "weights": weights, **more})


def log_prior(size: int) -> torch.Tensor:
    return torch.log_softmax(torch.linspace(-1, 1, size), 0)


def ngrams(units: str, settings: FusionConfig) -> Ngrams | None:
    size, draws = UNITS[units].size, random.Random(1)
    transcripts = [[draws.randrange(1, size) for _ in range(8)] for _ in range(20)]
    return witten_bell(transcripts, 3, size) if settings.look_ahead else None


@torch.inference_mode()
def search(
    lm: TextLm, units: str, settings: FusionConfig, log_probs: torch.Tensor, lens: torch.Tensor
) -> tuple[list[list[Hypothesis]], Fusion]:
    pieces = Pieces(UNITS[units], lm, settings, log_prior(UNITS[units].size), ngrams(units, settings))
    fusion = Fusion(pieces, lens)
    return fusion.finish(prefix_beam_search(log_probs, lens, settings, fusion)), fusion


def draw(count: int, frames: int, units: str, sharpness: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    lens = torch.randint(frames // 2, frames + 1, (count,))
    return torch.log_softmax(sharpness * torch.randn(count, frames, UNITS[units].size), 2), lens


@torch.inference_mode()
def lm_score(lm: TextLm, tokens: list[int]) -> float:
    """The whole sequence at once, no cache."""
    logits = lm.llm(torch.tensor([[*CONTEXT, *tokens]])).logits[0, len(CONTEXT) - 1 : -1]
    return torch.log_softmax(logits.double(), -1)[torch.arange(len(tokens)), torch.tensor(tokens)].sum().item()


def by_dictionary(
    lm: TextLm, units: str, settings: FusionConfig, log_probs: torch.Tensor, every: int
) -> dict[tuple[int, ...], float]:
    """Beam of a textbook's loop over one utterance: score of each final hypothesis. `every` 0 is label-wise."""
    tokenizer, weights = UNITS[units], settings.weights
    prior = log_prior(tokenizer.size).tolist()
    ahead = ngrams(units, settings)

    def look_ahead(labels: tuple[int, ...], fused: int) -> float:
        if ahead is None:
            return 0.0
        steps = [
            weights.lm * ahead.log_prob(labels[i], (0, *labels[:i])[-2:])
            + weights.prior * prior[labels[i]]
            + weights.length
            for i in range(fused, len(labels))
        ]
        return settings.look_ahead.weight * sum(steps)

    def bonus(labels: tuple[int, ...], is_end: bool) -> float:
        if settings.units == "labels":
            tokens, fused = [label - 1 for label in labels], labels
        else:
            starts = [i for i, label in enumerate(labels) if tokenizer.starts_word(label)]
            fused = labels if is_end else labels[: max(starts, default=0)]
            tokens = lm.tokens(tokenizer.decode(list(fused)))
        tokens = [*tokens, END] if is_end else tokens
        total = weights.lm * lm_score(lm, tokens) if tokens else 0.0
        total += weights.prior * sum(prior[label] for label in fused) + weights.length * len(fused)
        return total + (0.0 if is_end else look_ahead(labels, len(fused)))

    def total(entry: tuple[float, float, float]) -> float:
        blank, label, added = entry
        if (high := max(blank, label)) == -math.inf:
            return high
        return added + high + math.log(math.exp(blank - high) + math.exp(label - high))

    beam = {(): (0.0, -math.inf, 0.0)}
    for number, frame in enumerate(log_probs.double().tolist()):
        after: dict[tuple[int, ...], tuple[float, float, float]] = {}

        def add(key: tuple[int, ...], kind: int, score: float, added: float) -> None:
            entry = list(after.setdefault(key, (-math.inf, -math.inf, added)))  # noqa: B023
            high = max(entry[kind], score)
            if high > -math.inf:
                entry[kind] = high + math.log(math.exp(entry[kind] - high) + math.exp(score - high))
            after[key] = tuple(entry)  # noqa: B023

        for labels, entry in beam.items():
            blank, label, added = entry
            both = total(entry) - added
            add(labels, 0, both + frame[0], added)
            if labels:
                add(labels, 1, label + frame[labels[-1]], added)
        for labels, entry in beam.items():
            blank, _, added = entry
            both = total(entry) - added
            for unit in range(1, len(frame)):
                grown = (*labels, unit)
                source = blank if labels and unit == labels[-1] else both
                add(
                    grown,
                    1,
                    source + frame[unit],
                    bonus(grown, False) if not every else added + look_ahead(grown, len(labels)),
                )
        beam = dict(sorted(after.items(), key=lambda item: -total(item[1]))[: settings.beam])
        if every and (number + 1) % every == 0 and number + 1 < len(log_probs):
            beam = {labels: (*entry[:2], bonus(labels, False)) for labels, entry in beam.items()}
    return {labels: total((*entry[:2], bonus(labels, True))) for labels, entry in beam.items()}


@pytest.mark.parametrize("ahead", [{}, AHEAD])
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("every", [1, 3, 100])
def test_delayed_is_the_loop_over_a_dictionary(lm: TextLm, units: str, every: int, ahead: dict[str, object]) -> None:
    log_probs, lens = draw(4, 10, units)
    settings = config(every, beam=4, nbest=4, labels_per_frame=UNITS[units].size - 1, **ahead)
    found, _ = search(lm, units, settings, log_probs, lens)
    for row, length, pool in zip(log_probs, lens, found, strict=True):
        expected = by_dictionary(lm, units, settings, row[:length], every)
        assert {tuple(each.tokens): each.score for each in pool} == pytest.approx(expected, abs=1e-4)


def test_label_wise_is_the_loop_over_a_dictionary(lm: TextLm) -> None:
    log_probs, lens = draw(4, 10, "subset")
    settings = config("label", beam=4, nbest=4, labels_per_frame=8)
    found, _ = search(lm, "subset", settings, log_probs, lens)
    for row, length, pool in zip(log_probs, lens, found, strict=True):
        expected = by_dictionary(lm, "subset", settings, row[:length], 0)
        assert {tuple(each.tokens): each.score for each in pool} == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("trigger", [1, 2, "word", "shortest", "end", "label"])
@pytest.mark.parametrize("units", UNITS)
def test_components_are_those_computed_from_scratch(lm: TextLm, units: str, trigger: object) -> None:
    """LM scores without a tree; CTC by torch's loss, with a beam that holds every prefix."""
    if trigger == "label" and units != "subset":
        pytest.skip("only tokens of the LM are fused label-wise")
    log_probs, lens = draw(3, 4, units)
    ahead = {} if trigger == "label" else AHEAD
    settings = config(trigger, beam=WIDE, nbest=50, labels_per_frame=8, **ahead)
    found, _ = search(lm, units, settings, log_probs, lens)
    for row, length, pool in zip(log_probs, lens, found, strict=True):
        for each in pool:
            labels = torch.tensor([each.tokens])
            frames = row[:length, None].double()
            loss = torch.nn.functional.ctc_loss(frames, labels, length[None], torch.tensor([len(each.tokens)]))
            tokens = [label - 1 for label in each.tokens] if trigger == "label" else lm.tokens(each.text)
            expected = {
                "ctc": -loss.item() * max(1, len(each.tokens)),  # the loss is a mean over labels
                "lm": lm_score(lm, [*tokens, END]),
                "prior": log_prior(UNITS[units].size)[each.tokens].sum().item(),
                "length": len(each.tokens),
            }
            assert each.scores == pytest.approx(expected, abs=1e-4)
            weights = settings.weights.model_dump()
            assert each.score == pytest.approx(sum(weights[name] * each.scores[name] for name in weights), abs=1e-9)


def ranked(found: list[list[Hypothesis]]) -> list[list[tuple[tuple[int, ...], float]]]:
    return [[(tuple(each.tokens), pytest.approx(each.score, abs=1e-4)) for each in pool] for pool in found]


def test_label_wise_is_delayed_at_every_label_where_nothing_is_pruned(lm: TextLm) -> None:
    log_probs, lens = draw(4, 4, "subset")
    wide = {"beam": WIDE, "nbest": 20, "labels_per_frame": 8, "units": "labels"}
    label_wise, _ = search(lm, "subset", config("label", **wide), log_probs, lens)
    for trigger in (1, 2, "end"):
        delayed, _ = search(lm, "subset", config(trigger, **wide), log_probs, lens)
        assert ranked(delayed) == ranked(label_wise)


@pytest.mark.parametrize("trigger", [2, "word", "shortest", "end"])
def test_look_ahead_only_prunes(lm: TextLm, trigger: object) -> None:
    """Nothing changes where nothing is pruned or where its weight is 0; in a small beam it does."""

    def found(log_probs: torch.Tensor, lens: torch.Tensor, **settings: object) -> list[object]:
        return ranked(search(lm, "characters", config(trigger, **settings), log_probs, lens)[0])

    wide = {"beam": WIDE, "nbest": 20, "labels_per_frame": 8}
    few = draw(3, 4, "characters")
    assert found(*few, **wide, **AHEAD) == found(*few, **wide)
    many, small = draw(6, 14, "characters"), {"beam": 3, "nbest": 3}
    without, off = found(*many, **small), {"look_ahead": {"arpa": "toy", "weight": 0.0}}
    assert found(*many, **small, **off) == without != found(*many, **small, **AHEAD)


def test_word_is_an_interval_of_one_frame(lm: TextLm) -> None:
    log_probs, lens = draw(6, 20, "characters")
    word, one = (search(lm, "characters", config(each, beam=4, nbest=4), log_probs, lens) for each in ("word", 1))
    assert ranked(word[0]) == ranked(one[0])
    assert (word[1].lm_calls, word[1].lm_tokens) == (one[1].lm_calls, one[1].lm_tokens)


def test_shortest_fuses_as_many_pieces_of_each_prefix(lm: TextLm, monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, lens = draw(6, 24, "subset", sharpness=3.0)
    depths: list[list[int]] = []
    bonus = Pieces.bonus
    record = Fusion._evened

    def recorded(self: Fusion, *args: object) -> object:
        evened = record(self, *args)
        depths.extend([piece.depth for piece in pieces] for pieces in evened.values())
        return evened

    monkeypatch.setattr(Fusion, "_evened", recorded)
    monkeypatch.setattr(Pieces, "bonus", bonus)
    search(lm, "subset", config("shortest", beam=5, nbest=5), log_probs, lens)
    assert len(depths) > 6 and all(len(set(each)) == 1 and each[0] >= 1 for each in depths)


def test_later_fusion_calls_the_lm_less(lm: TextLm) -> None:
    log_probs, lens = draw(6, 40, "subset", sharpness=3.0)
    calls = [
        sum(search(lm, "subset", config(trigger, beam=5), log_probs, lens)[1].lm_calls)
        for trigger in ("label", 1, 5, 20, "end")
    ]
    assert calls == sorted(calls, reverse=True) and calls[-1] == 6 < calls[0]


@pytest.mark.parametrize(
    ("trigger", "ahead"),
    [*((each, {}) for each in (3, "word", "shortest", "end", "label")), (3, AHEAD), ("end", AHEAD)],
)
def test_batch_mates_change_nothing(lm: TextLm, trigger: object, ahead: dict[str, object]) -> None:
    log_probs, lens = draw(32, 16, "subset", sharpness=2.5)
    settings = config(trigger, beam=4, nbest=4, **ahead)
    alone = [search(lm, "subset", settings, log_probs[i : i + 1], lens[i : i + 1]) for i in range(32)]
    for size in (7, 32):
        for group in torch.randperm(32).split(size):
            rows, row_lens = pad([log_probs[i, : lens[i]] for i in group])
            found, fusion = search(lm, "subset", settings, rows, row_lens)
            for place, i in enumerate(group.tolist()):
                assert ranked(found[place : place + 1]) == ranked(alone[i][0])
                counts = alone[i][1].lm_calls[0], alone[i][1].lm_tokens[0]
                assert (fusion.lm_calls[place], fusion.lm_tokens[place]) == counts


def test_what_is_dropped_from_the_cache_changes_nothing(lm: TextLm, monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, lens = draw(5, 30, "subset")
    settings = config(2, beam=4, nbest=4)
    kept, _ = search(lm, "subset", settings, log_probs, lens)
    monkeypatch.setattr(token_tree, "LEAST_COLUMNS", 1)
    dropped, _ = search(lm, "subset", settings, log_probs, lens)
    assert ranked(dropped) == ranked(kept)


def test_frames_without_labels_and_no_frames_at_all(lm: TextLm) -> None:
    log_probs = torch.full((2, 5, 8), -20.0)
    log_probs[..., 0] = 0.0
    found, _ = search(lm, "subset", config(1, beam=3), log_probs, torch.tensor([5, 0]))
    for pool in found:
        assert pool[0].text == "" and pool[0].tokens == []
        assert pool[0].scores["lm"] == pytest.approx(lm_score(lm, [END]), abs=1e-5)


@pytest.mark.parametrize("units", UNITS)
def test_tokens_of_pieces_are_tokens_of_the_whole(lm: TextLm, units: str) -> None:
    tokenizer = UNITS[units]
    pieces = Pieces(tokenizer, lm, config())
    start = next(label for label in range(1, tokenizer.size) if tokenizer.starts_word(label))
    for labels in itertools.product(range(1, tokenizer.size), repeat=4):
        root = Fusion(pieces, torch.tensor([1]))._roots[0] if labels == (1, 1, 1, 1) else root  # noqa: F821
        node = pieces.complete(root, [*labels, start]).node
        spelled = [each.token for each in node.ancestors()][::-1]
        assert spelled == pieces.whole(list(labels))


def test_tokens_of_pieces_are_tokens_of_the_whole_with_a_real_tokenizer(pretrained: Path) -> None:
    from asrllm.text.llm_tokenizer import LlmTokenizer

    tokenizer = LlmTokenizer(str(pretrained / "smollm2-135m-instruct"))
    sentences = (Path(__file__).parents[2] / "egs/mini/asr1/corpus/train/text").read_text().splitlines()
    extra = ["it's 25 o'clock", "e-mail re: no. 7", "naïve café"]
    for text in [*(line.partition(" ")[2] for line in sentences), *extra]:
        parts = [token for word in text.split() for token in tokenizer.encode_transcript(word)]
        assert parts == tokenizer.encode_transcript(text)


def test_refuses_units_that_are_no_tokens_of_the_lm(lm: TextLm) -> None:
    with pytest.raises(UserError, match="the CTC units are no tokens of toy: take units: text"):
        Pieces(UNITS["characters"], lm, config("label"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"beam": 0}, "greater than or equal to 1"),
        ({"beam": 2, "nbest": 3}, "nbest is 3, but a beam of 2"),
        ({"weights": {"lm": 0.5, "speech_llm": 1.0}}, "speech_llm"),
        ({"trigger": {"type": "label"}}, "trigger label wants units: labels, found text"),
        ({"trigger": {"type": "word"}, "units": "labels"}, "trigger word wants units: text, found labels"),
        ({"trigger": {"type": "label"}, "units": "labels", **AHEAD}, "with trigger label none does: leave it out"),
        ({"trigger": {"type": "interval", "frames": 0}}, "greater than or equal to 1"),
    ],
)
def test_refuses_senseless_settings(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=sentence):
        FusionConfig.model_validate({"lm": {"model": "toy"}, **changes})
