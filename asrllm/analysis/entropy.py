"""How encoder and LLM share the work: NSE, PAI, CSAI and the allocation ratios.

The names are those of the entropy-allocation paper (arXiv 2604.08003), which was read without its formulas: the
definitions are ours. NSE says how evenly variance is spread over directions; PAI how well a small probe reads phones;
CSAI what the frames tell about a word beyond its sounds. It knows arrays and labels, not models or files.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asrllm.console import UserError
from asrllm.score.significance import bootstrap_interval, cluster, percentiles

DRAWS = 200
FRAMES_PER_DIMENSION = 10  # below, NSE is too low: of a true 0.778, 0.687 at N = d / 2 and 0.771 at N = 4 d
EPOCHS = 10

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % bootstrap interval over utterances, and what to mind."""

    value: float
    interval: tuple[float, float] | None  # None for a single utterance
    note: str = ""


def spectral_entropy(frames: Floats, weights: Floats | None = None) -> float:
    """NSE = -(1 / log d) sum_i p_i log p_i, with p the shares of the eigenvalues of the covariance of frames (N, d).

    0: all variance in one direction; 1: equal in all. exp(NSE * log d) is the effective rank. `weights` (N,) count a
    frame several times.
    """
    frames = np.asarray(frames, dtype=np.float64)
    if frames.shape[1] < 2:
        raise UserError("NSE: frames of one dimension have no spectrum: give an encoder of width 2 or more")
    mean = np.average(frames, axis=0, weights=weights)
    centred = frames - mean
    weighted = centred if weights is None else centred * np.asarray(weights)[:, None]
    values = np.clip(np.linalg.eigvalsh(weighted.T @ centred), 0, None)
    if values.sum() == 0:
        raise UserError("NSE: all frames are equal: there is no variance to share out")
    shares = values[values > 0] / values.sum()
    return float(-(shares * np.log(shares)).sum() / math.log(frames.shape[1]))


def nse(frames: Floats, owners: Labels, seed: int = 0) -> Estimate:
    """NSE of pooled frames (N, d) of utterances `owners` (N,), with its interval over utterances.

    Utterances drawn twice lower NSE as fewer frames would, so the draws are moved to the value (ours): their spread is
    the interval.
    """
    utterances, numbers = np.unique(owners, return_inverse=True)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(DRAWS):
        counts = np.bincount(generator.integers(0, len(utterances), len(utterances)), minlength=len(utterances))
        weights = counts[numbers].astype(float)
        kept = weights > 0
        drawn.append(spectral_entropy(frames[kept], weights[kept]))
    value = spectral_entropy(frames)
    interval = percentiles(np.array(drawn) + value - np.mean(drawn)) if len(utterances) > 1 else None
    return Estimate(value, interval, _few(*frames.shape))


def nse_per_utterance(frames: Floats, owners: Labels) -> float:
    """Mean NSE of single utterances of at least two frames."""
    values = [spectral_entropy(frames[owners == each]) for each in np.unique(owners) if (owners == each).sum() > 1]
    return float(np.mean(values))


@dataclass(frozen=True)
class Split:
    """Which examples train a probe, stop it and judge it; no speaker, or no sentence, is in two of them."""

    train: NDArray[np.bool_]
    dev: NDArray[np.bool_]
    test: NDArray[np.bool_]


def split(groups: Sequence[str], seed: int = 0, dev: float = 0.15, test: float = 0.3) -> Split:
    """Deal out examples by group, such as speaker or sentence.

    Raises:
        UserError: fewer than three groups.
    """
    names = np.unique(np.asarray(groups))
    if len(names) < 3:
        raise UserError(
            f"a probe wants speakers (or sentences) for three disjoint parts, found {len(names)}: use a larger set"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    n_test, n_dev = max(1, round(test * len(names))), max(1, round(dev * len(names)))
    where = np.searchsorted(names, np.asarray(groups))
    rank = np.argsort(order)[where]
    return Split(rank >= n_test + n_dev, (rank >= n_test) & (rank < n_test + n_dev), rank < n_test)


def code_length(inputs: Floats, labels: Labels, parts: Split, hidden: int = 0, seed: int = 0) -> Floats:
    """Cross-entropy in nats of each test example under a probe q(label | input) of fixed family and budget.

    Softmax over a linear layer, or one hidden layer of `hidden` ReLU units; AdamW, 10 epochs, the epoch that is best on
    the dev part. Inputs (N, F) are standardised by the training part.
    """
    mean, spread = inputs[parts.train].mean(0), inputs[parts.train].std(0)
    standard = torch.from_numpy(((inputs - mean) / np.where(spread > 0, spread, 1)).astype(np.float32))
    gold = torch.from_numpy(np.asarray(labels).astype(np.int64))
    classes = int(gold.max()) + 1
    train, dev, test = (torch.from_numpy(np.flatnonzero(each)) for each in (parts.train, parts.dev, parts.test))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = _probe(standard.shape[1], classes, hidden)
        best, found = math.inf, torch.empty(0)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2, weight_decay=1e-2)
        for _ in range(EPOCHS):
            for rows in train[torch.randperm(len(train))].split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(probe(standard[rows]), gold[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = float(nn.functional.cross_entropy(probe(standard[dev]), gold[dev]))
                if loss < best:
                    best = loss
                    found = nn.functional.cross_entropy(probe(standard[test]), gold[test], reduction="none")
    return found.double().numpy()


def prior_length(labels: Labels, parts: Split) -> Floats:
    """Nats of each test example under the label frequencies of the training part, one added to each."""
    counts = np.bincount(labels[parts.train], minlength=int(labels.max()) + 1) + 1.0
    return -np.log(counts / counts.sum())[labels[parts.test]]


def pai(
    frames: Floats,
    phones: Labels,
    owners: Labels,
    speakers: Sequence[str],
    hidden: int = 0,
    seed: int = 0,
    slots: Labels | None = None,
) -> tuple[Estimate, Estimate]:
    """Phonetic accessible information (CE_0 - CE_probe) / CE_0 on unseen speakers, and the probe's nats per frame.

    "Usable information" in the sense of Xu et al. 2020. At most 1; below 0 where the probe does worse than the
    frequencies of the phones.

    Args:
        frames: (N, d).
        phones: (N,) from 0.
        owners: (N,) utterance of each frame.
        speakers: (N,) of each frame.
        hidden: 0 for the linear probe, 512 for the capacity variant.
        seed: of split and probe.
        slots: (N,) which probe reads a frame, where positions of one frame rate are read at another; None: one for all.
    """
    parts = split(speakers, seed)
    costs, prior = np.empty(int(parts.test.sum())), prior_length(phones, parts)
    for here in _slots(slots, parts):
        share = Split(parts.train[here], parts.dev[here], parts.test[here])
        costs[here[parts.test]] = code_length(frames[here], phones[here], share, hidden, seed)
    judged = owners[parts.test]
    note = _few(int(parts.train.sum()), frames.shape[1])
    return (
        _ratio(prior - costs, prior, judged, seed, note),
        _ratio(costs, np.ones_like(costs), judged, seed, note),
    )


def _slots(slots: Labels | None, parts: Split) -> list[NDArray[np.bool_]]:
    """The frames of each slot; one for all where some part of a split has none of a slot."""
    masks = [] if slots is None else [slots == each for each in np.unique(slots)]
    if all((mask & part).any() for mask in masks for part in (parts.train, parts.dev, parts.test)) and masks:
        return masks
    return [np.ones(len(parts.train), dtype=bool)]


def _few(count: int, dimensions: int) -> str:
    least = FRAMES_PER_DIMENSION * dimensions
    return f"{count} examples, fewer than {least} (10 d): the value is too low" if count < least else ""


@dataclass(frozen=True)
class Words:
    """Word tokens for CSAI."""

    labels: Labels  # (M,) word, from 0
    phones: tuple[tuple[int, ...], ...]  # of each word token, phones from 0
    neighbours: tuple[tuple[int, ...], ...]  # phones around it, `-1` past an end; as many for all
    means: Floats  # (M, d) mean encoder output over its span
    sentences: tuple[str, ...]  # text that it stands in
    owners: Labels  # (M,) utterance


def csai(words: Words, hidden: int = 128, seed: int = 0) -> tuple[Estimate, Estimate]:
    """Conditional semantic accessible information (CE_A - CE_B) / CE_A, and its control, which must be near 0.

    Probe A reads the phones of the word and of its neighbours, probe B the same and the mean frame of the word; both
    have one shape, A sees zeros for the frame. In the control, frames are exchanged among tokens with equal phones. No
    sentence is in two parts.
    """
    parts = split(words.sentences, seed)
    sounds = _spelled(words)
    generator = np.random.default_rng(seed)
    exchanged = np.arange(len(words.labels))
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, phones in enumerate(words.phones):
        groups.setdefault(phones, []).append(index)
    for members in groups.values():
        exchanged[members] = generator.permutation(members)
    judged = words.owners[parts.test]

    def cost(means: Floats) -> Floats:
        return code_length(np.concatenate([sounds, means], 1), words.labels, parts, hidden, seed)

    plain = cost(np.zeros_like(words.means))
    real, control = cost(words.means), cost(words.means[exchanged])
    moved = float((exchanged != np.arange(len(exchanged))).mean())
    return (
        _ratio(plain - real, plain, judged, seed, _few(int(parts.train.sum()), words.means.shape[1])),
        _ratio(plain - control, plain, judged, seed, f"{moved:.0%} of the tokens got another's frames"),
    )


def character_nats(texts: Sequence[str]) -> Floats:
    """H_0: -log p (U,) of each text and its end under the frequencies of characters and ends in all of them."""
    counts = Counter(itertools.chain(*texts)) + Counter({"": len(texts)})
    nats = {character: math.log(counts.total() / count) for character, count in counts.items()}
    return np.array([nats[""] + sum(nats[character] for character in text) for text in texts])


def allocation(characters: Floats, ctc: Floats, llm: Floats, text: Floats, seed: int = 0) -> tuple[Estimate, Estimate]:
    """R_enc and R_lm (ours): shares of what the speech LLM knows beyond a character unigram.

    Args:
        characters: (U,) nats of each utterance under a character unigram.
        ctc: -log p_CTC(text | audio).
        llm: -log p_LLM(text | audio).
        text: -log p(text) of the LLM alone.
        seed: of the bootstrap.
    """
    gained = characters - llm
    if gained.sum() <= 0:
        raise UserError(
            f"allocation: the speech LLM needs {llm.sum():.0f} nats for all transcripts, a character unigram "
            f"{characters.sum():.0f}: it has learned nothing that could be shared out"
        )
    owners = np.arange(len(gained))
    return _ratio(characters - ctc, gained, owners, seed), _ratio(characters - text, gained, owners, seed)


def posterior_entropy(log_probs: Floats) -> float:
    """Mean entropy of CTC posteriors (N, V) as a share of log V."""
    return float(-(np.exp(log_probs) * log_probs).sum(1).mean() / math.log(log_probs.shape[1]))


def _probe(inputs: int, classes: int, hidden: int) -> nn.Module:
    if not hidden:
        return nn.Linear(inputs, classes)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def _spelled(words: Words) -> Floats:
    """One-hot phones by position: the word's from its start, then its neighbours'."""
    phones = 1 + max(max(row, default=-1) for row in (*words.phones, *words.neighbours))
    longest = max(map(len, words.phones))
    width = longest + len(words.neighbours[0])
    table = np.zeros((len(words.labels), width, phones), dtype=np.float32)
    for row, own, around in zip(table, words.phones, words.neighbours, strict=True):
        for position, phone in enumerate(own):
            row[position, phone] = 1
        for position, phone in enumerate(around):
            if phone >= 0:
                row[longest + position, phone] = 1
    return table.reshape(len(table), -1)


def _ratio(top: Floats, bottom: Floats, owners: Labels, seed: int, note: str = "") -> Estimate:
    """sum(top) / sum(bottom), drawn over utterances."""
    tops, bottoms = cluster(owners, top, bottom)
    percent = bootstrap_interval(tops, bottoms, seed)
    interval = None if percent is None else (percent[0] / 100, percent[1] / 100)
    return Estimate(float(top.sum() / bottom.sum()), interval, note)
