"""CTC greedy against itertools.groupby; prefix beam search against enumeration of all paths and flashlight-text."""

import itertools
import math

import pytest
import torch

from asrllm.batch import pad
from asrllm.decode.ctc_search import CtcPrefixConfig, Found, ctc_greedy, prefix_beam_search

WIDE = 10**6


def spelled(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(unit for unit, _ in itertools.groupby(path) if unit != 0)


def posteriors(*shape: int, sharpness: float = 2.0) -> torch.Tensor:
    return torch.log_softmax(sharpness * torch.randn(*shape), dim=-1)


def enumerated(log_probs: torch.Tensor, recombination: str) -> dict[tuple[int, ...], float]:
    """Log-probability of every label sequence that a path of all frames of (T, V) spells."""
    groups: dict[tuple[int, ...], list[float]] = {}
    frames = log_probs.double().tolist()
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(frames)):
        groups.setdefault(spelled(path), []).append(sum(frame[unit] for frame, unit in zip(frames, path, strict=True)))
    if recombination == "max":
        return {labels: max(paths) for labels, paths in groups.items()}
    return {labels: math.log(math.fsum(map(math.exp, paths))) for labels, paths in groups.items()}


def test_best_path_merged_without_blanks() -> None:
    log_probs = posteriors(9, 30, 4)
    lens = torch.tensor([30, 1, 7, 12, 30, 0, 29, 3, 18])
    for row, length, (labels, score) in zip(log_probs, lens, ctc_greedy(log_probs, lens), strict=True):
        path = row[:length].argmax(1).tolist()
        assert labels == list(spelled(tuple(path)))
        assert score == pytest.approx(sum(row[t, unit].item() for t, unit in enumerate(path)), abs=1e-4)


@pytest.mark.parametrize("recombination", ["sum", "max"])
def test_wide_beam_is_enumeration_of_all_paths(recombination: str) -> None:
    log_probs = posteriors(12, 6, 4)
    lens = torch.tensor([6, 5, 4, 6, 1, 0, 3, 2, 6, 5, 6, 4])
    config = CtcPrefixConfig(beam=WIDE, recombination=recombination, labels_per_frame=3)
    for row, length, found in zip(log_probs, lens, prefix_beam_search(log_probs, lens, config), strict=True):
        expected = enumerated(row[:length], recombination)
        assert {tuple(each.labels): each.log_prob for each in found} == pytest.approx(expected, abs=1e-9)
        scores = [each.log_prob for each in found]
        assert scores == sorted(scores, reverse=True)


def by_dictionary(log_probs: torch.Tensor, config: CtcPrefixConfig) -> dict[tuple[int, ...], float]:
    """The textbook's loop over a dictionary of prefixes: all labels in all frames, the best prefixes kept."""

    def merge(one: float, other: float) -> float:
        if config.recombination == "max" or -math.inf in (one, other):
            return max(one, other)
        return max(one, other) + math.log1p(math.exp(-abs(one - other)))

    beam = {(): (0.0, -math.inf)}
    for frame in log_probs.double().tolist():
        after: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, label) in beam.items():
            total = merge(blank, label)
            terms = [(prefix, 0, total + frame[0])]
            if prefix:
                terms.append((prefix, 1, label + frame[prefix[-1]]))
            for unit in range(1, len(frame)):
                source = blank if prefix and unit == prefix[-1] else total
                terms.append(((*prefix, unit), 1, source + frame[unit]))
            for key, kind, score in terms:
                entry = after.setdefault(key, [-math.inf, -math.inf])
                entry[kind] = merge(entry[kind], score)
        ranked = sorted(after, key=lambda each: -merge(*after[each]))
        beam = {each: tuple(after[each]) for each in ranked[: config.beam]}
    return {each: merge(*pair) for each, pair in beam.items()}


@pytest.mark.parametrize("recombination", ["sum", "max"])
@pytest.mark.parametrize("beam", [1, 3, 8])
def test_narrow_beam_is_the_loop_over_a_dictionary(recombination: str, beam: int) -> None:
    """Prefixes are pruned here and come back, so merging goes by what they spell and not by where they come from."""
    lens = torch.tensor([40, 25, 33, 40, 12, 18])
    log_probs = posteriors(len(lens), 40, 5, sharpness=1.0)
    config = CtcPrefixConfig(beam=beam, recombination=recombination, labels_per_frame=4)
    for row, length, found in zip(log_probs, lens, prefix_beam_search(log_probs, lens, config), strict=True):
        expected = by_dictionary(row[:length], config)
        assert {tuple(each.labels): each.log_prob for each in found} == pytest.approx(expected, abs=1e-9)


def test_labels_outside_the_best_of_a_frame_are_no_extensions() -> None:
    log_probs = posteriors(4, 6, 5)
    config = CtcPrefixConfig(beam=WIDE, labels_per_frame=2)
    found = prefix_beam_search(log_probs, torch.tensor([6] * 4), config)
    for row, each in zip(log_probs, found, strict=True):
        best = row[:, 1:].topk(2).indices + 1
        expected = {spelled(path) for path in itertools.product(*([0, *frame] for frame in best.tolist()))}
        assert {tuple(one.labels) for one in each} == expected


def same(left: list[Found], right: list[Found]) -> None:
    assert [each.labels for each in left] == [each.labels for each in right]
    assert [each.log_prob for each in left] == pytest.approx([each.log_prob for each in right], abs=1e-9)


@pytest.mark.parametrize("size", [1, 7, 32])
def test_batch_mates_change_nothing(size: int) -> None:
    lens = torch.randint(0, 30, (32,))
    log_probs = posteriors(32, 30, 7)
    config = CtcPrefixConfig(beam=5, labels_per_frame=3)
    alone = [prefix_beam_search(log_probs[i : i + 1], lens[i : i + 1], config)[0] for i in range(32)]
    order = torch.randperm(32)
    for group in order.split(size):
        rows, row_lens = pad([log_probs[i, : lens[i]] for i in group])
        for i, found in zip(group.tolist(), prefix_beam_search(rows, row_lens, config), strict=True):
            same(found, alone[i])


def test_long_audio_keeps_its_precision() -> None:
    log_probs = posteriors(1, 3000, 4)
    config = CtcPrefixConfig(beam=4, recombination="max", labels_per_frame=3)
    found = prefix_beam_search(log_probs, torch.tensor([3000]), config)[0][0]
    assert found.log_prob == pytest.approx(log_probs[0].double().max(1).values.sum().item(), abs=1e-9)


def flashlight(log_probs: torch.Tensor, beam: int, recombination: str) -> dict[tuple[int, ...], float]:
    """The same by flashlight-text's lexicon-free decoder without a language model; its separators count as blanks."""
    decoder = pytest.importorskip("flashlight.lib.text.decoder", reason="pip install flashlight-text")
    frames, units = log_probs.shape
    options = decoder.LexiconFreeDecoderOptions(
        beam_size=beam,
        beam_size_token=units,
        beam_threshold=1e9,
        lm_weight=0.0,
        sil_score=0.0,
        log_add=recombination == "sum",
        criterion_type=decoder.CriterionType.CTC,
    )
    search = decoder.LexiconFreeDecoder(options, decoder.ZeroLM(), -1, 0, [])
    emissions = log_probs.float().contiguous()
    results: dict[tuple[int, ...], float] = {}
    for each in search.decode(emissions.data_ptr(), frames, units):
        labels = spelled(tuple(token for token in each.tokens if token >= 0))
        results[labels] = max(results.get(labels, -math.inf), each.score)
    return results


@pytest.mark.parametrize("recombination", ["sum", "max"])
def test_flashlight_text_finds_the_same(recombination: str) -> None:
    """200 random cases, with room for all that matters: it counts a prefix with and without a blank behind it apart."""
    lens = torch.randint(1, 6, (200,))
    log_probs = posteriors(200, 5, 4)
    config = CtcPrefixConfig(beam=400, recombination=recombination, labels_per_frame=3)
    for row, length, found in zip(log_probs, lens, prefix_beam_search(log_probs, lens, config), strict=True):
        theirs = flashlight(row[:length], 1000, recombination)
        best = max(theirs, key=lambda each: theirs[each])
        assert tuple(found[0].labels) == best
        assert theirs == pytest.approx({tuple(each.labels): each.log_prob for each in found}, abs=1e-4)
