"""CTC prefix scores: enumeration of all paths, the plain loop over time, torch's loss."""

import itertools
import math

import pytest
import torch

from asrllm.decode.ctc_prefix import LOG_FLOOR, CtcPrefix, Paths


def posteriors(frames: int, labels: int, sharpness: float = 1.0) -> torch.Tensor:
    return torch.log_softmax(sharpness * torch.randn(frames, labels), -1)


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label)


def follow(ctc: CtcPrefix, rows: list[int], sequences: list[list[int]]) -> Paths:
    """All of the same length; row i is a sequence of utterance rows[i]."""
    paths = ctc.start().take(torch.tensor(rows))
    for labels in zip(*sequences, strict=True):
        paths = ctc.append(paths, torch.tensor(labels))
    return paths


def time_loop(log_probs: torch.Tensor, labels: list[int]) -> tuple[list[float], float]:
    """Algorithm 2 of Watanabe et al. as it stands: log prefix score after each label, log-probability of the whole."""
    probs = log_probs.double().clamp(min=LOG_FLOOR).tolist()

    def add(*logs: float) -> float:
        top = max(logs)
        return top if top == -math.inf else top + math.log(sum(math.exp(each - top) for each in logs))

    ends_label = [-math.inf] * len(probs)
    ends_blank = list(itertools.accumulate(frame[0] for frame in probs))
    prefixes = []
    for place, label in enumerate(labels):
        new_label = [probs[0][label] if place == 0 else -math.inf]
        new_blank = [-math.inf]
        prefix = new_label[0]
        for t in range(1, len(probs)):
            repeats = place > 0 and labels[place - 1] == label
            entering = ends_blank[t - 1] if repeats else add(ends_blank[t - 1], ends_label[t - 1])
            new_label.append(add(new_label[-1], entering) + probs[t][label])
            new_blank.append(add(new_blank[-1], new_label[-2]) + probs[t][0])
            prefix = add(prefix, entering + probs[t][label])
        ends_label, ends_blank = new_label, new_blank
        prefixes.append(prefix)
    return prefixes, add(ends_label[-1], ends_blank[-1])


def test_is_the_sum_over_all_paths() -> None:
    """A prefix score leaves out the frames that follow, whose float32 posteriors sum to 1 within 1e-7 only."""
    frames, labels = [6, 4, 1], 4
    each = [posteriors(size, labels, 2.0) for size in frames]
    log_probs = torch.full((3, 6, labels), math.nan)  # whoever reads the padding is found out
    for row, one in zip(log_probs, each, strict=True):
        row[: len(one)] = one
    ctc = CtcPrefix(log_probs, torch.tensor(frames))
    for utterance, one in enumerate(each):
        total: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(labels), repeat=len(one)):
            probability = math.exp(sum(one[t, label].item() for t, label in enumerate(path)))
            total[collapse(path)] = total.get(collapse(path), 0.0) + probability
        for size in range(4):
            sequences = [list(each) for each in itertools.product(range(1, labels), repeat=size)]
            paths = follow(ctc, [utterance] * len(sequences), sequences)
            following = ctc.log_prefix(paths, torch.arange(1, labels).expand(len(sequences), -1))
            for row, sequence in enumerate(sequences):
                begins = sum(p for found, p in total.items() if found[:size] == tuple(sequence))
                assert paths.log_prefix[row].exp().item() == pytest.approx(begins, abs=1e-6)
                assert ctc.log_whole(paths)[row].exp().item() == pytest.approx(
                    total.get(tuple(sequence), 0.0), abs=1e-12
                )
                for label in range(1, labels):
                    wanted = (*sequence, label)
                    begins = sum(p for found, p in total.items() if found[: size + 1] == wanted)
                    assert following[row, label - 1].exp().item() == pytest.approx(begins, abs=1e-6)


@pytest.mark.parametrize("sharpness", [1.0, 30.0])
def test_is_the_loop_over_time(sharpness: float) -> None:
    """Also where hardly any path is left: at sharpness 30 most posteriors lie at the floor."""
    frames, units = 300, 9
    log_probs = posteriors(frames, units, sharpness)
    labels = torch.randint(1, units, (60,)).tolist()
    prefixes, whole = time_loop(log_probs, labels)
    ctc = CtcPrefix(log_probs[None], torch.tensor([frames]))
    paths = ctc.start()
    for label, wanted in zip(labels, prefixes, strict=True):
        candidates = torch.tensor([[label, label % (units - 1) + 1]])
        scored = ctc.log_prefix(paths, candidates)[0, 0].item()
        paths = ctc.append(paths, candidates[:, 0])
        assert scored == pytest.approx(wanted, rel=1e-12, abs=1e-9)
        assert paths.log_prefix.item() == pytest.approx(wanted, rel=1e-12, abs=1e-9)
    assert ctc.log_whole(paths).item() == pytest.approx(whole, rel=1e-12, abs=1e-9)


def test_whole_is_the_loss_of_torch() -> None:
    lens = torch.tensor([40, 25, 33])
    log_probs = torch.stack([posteriors(40, 7) for _ in lens])
    sequences = torch.randint(1, 7, (3, 12))
    paths = follow(CtcPrefix(log_probs, lens), [0, 1, 2], sequences.tolist())
    loss = torch.nn.functional.ctc_loss(
        log_probs.double().transpose(0, 1), sequences, lens, torch.tensor([12] * 3), reduction="none"
    )
    torch.testing.assert_close(CtcPrefix(log_probs, lens).log_whole(paths), -loss, rtol=0, atol=1e-9)


def test_more_labels_than_frames_are_impossible() -> None:
    ctc = CtcPrefix(torch.stack([posteriors(3, 4), posteriors(3, 4)]), torch.tensor([3, 0]))
    paths = follow(ctc, [0, 0, 0, 1], [[1, 2], [1, 1], [2, 1], [1, 2]])
    more = ctc.log_prefix(paths, torch.tensor([[1, 2]]).expand(4, -1))
    assert more.isfinite().tolist() == [[True, False], [False, False], [False, True], [False, False]]
    assert ctc.log_whole(paths).isfinite().tolist() == [True, True, True, False]
    assert ctc.log_whole(ctc.start())[1].item() == 0.0
    nothing = CtcPrefix(torch.zeros(1, 0, 4), torch.tensor([0]))
    assert nothing.log_whole(nothing.start()).tolist() == [0.0]
    assert nothing.log_prefix(nothing.start(), torch.tensor([[1]])).tolist() == [[-math.inf]]


def test_batch_mates_change_nothing() -> None:
    lens = [50, 20, 35]
    log_probs = torch.stack([posteriors(50, 6) for _ in lens])
    sequences = torch.randint(1, 6, (3, 8)).tolist()
    candidates = torch.arange(1, 6).expand(3, -1)
    together = CtcPrefix(log_probs, torch.tensor(lens))
    paths = follow(together, [0, 1, 2], sequences)
    scores = together.log_prefix(paths, candidates)
    for row, size in enumerate(lens):
        alone = CtcPrefix(log_probs[row : row + 1, :size], torch.tensor([size]))
        single = follow(alone, [0], sequences[row : row + 1])
        torch.testing.assert_close(alone.log_prefix(single, candidates[:1])[0], scores[row], rtol=1e-12, atol=1e-12)
