"""The entropy panel of one model on one data directory: NSE, PAI, CSAI by site, CTC entropy, R_enc and R_lm.

Sites are the encoder's output and the projector's; both are read at the same frames with the same labels. A projector
that makes one position of several frames is probed at each of them by a probe of its own (ours). It ties what a model
holds to an alignment; the measures themselves are in `asrllm.analysis.entropy`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from asrllm.analysis import entropy
from asrllm.analysis.alignment import Alignment, labels, numbered
from asrllm.analysis.entropy import Estimate, Words
from asrllm.analysis.listening import ENCODER, PROJECTOR, Held, pooled
from asrllm.batch import Batch
from asrllm.console import UserError
from asrllm.data.kaldi import Utterance
from asrllm.models.ctc import ctc_loss
from asrllm.models.speech_llm import SpeechLLM

CONTROL = 0.1  # the control is not near 0 beyond this
NEIGHBOURS = 2  # phones on either side that both probes of CSAI read


@dataclass(frozen=True)
class Settings:
    """What a panel depends on beside model, data and alignment."""

    frames: int = 20_000  # that probes and NSE read, drawn
    min_count: int = 20  # occurrences of a word of CSAI
    seed: int = 0


@dataclass
class Panel:
    """Figure -> its value at each site (`encoder`, `projector`), or of the whole model (``)."""

    figures: dict[str, dict[str, Estimate]] = field(default_factory=dict)

    def add(self, figure: str, site: str, value: Estimate) -> None:
        """Enter a value."""
        self.figures.setdefault(figure, {})[site] = value


@dataclass(frozen=True)
class Frames:
    """Frames at a site with what is said in them."""

    vectors: entropy.Floats  # (N, d)
    owners: entropy.Labels  # (N,) utterance
    units: entropy.Labels  # (N,) -1: silence
    slots: entropy.Labels  # (N,) how many frames of the same position come before


def measure(
    held: Held, utterances: Sequence[Utterance], alignments: Mapping[str, Alignment], settings: Settings
) -> Panel:
    """NSE, PAI and CSAI with their controls at each site, and the entropy of the CTC posteriors.

    Args:
        held: of the utterances, in their order.
        utterances: with speakers and texts.
        alignments: of each of them.
        settings: sizes and seed.

    Raises:
        UserError: too few speakers or sentences for disjoint parts.
    """
    panel = Panel()
    numbers = numbered(unit.name for each in alignments.values() for unit in each.units)
    speakers = np.array([each.speaker for each in utterances])
    for site in (ENCODER, *([PROJECTOR] if held.positions else [])):
        frames = _frames(held, site, utterances, alignments, numbers)
        _spectra(panel, held, site, frames, settings)
        _phones(panel, site, frames, speakers, settings)
        words, note = _words(held, site, utterances, alignments, numbers, settings.min_count)
        if words is None:
            panel.add("CSAI", site, Estimate(float("nan"), None, note))
        else:
            found, control = entropy.csai(words, seed=settings.seed)
            if abs(control.value) > CONTROL:
                note = f"with frames exchanged it is {control.value:.2f}, not near 0: give the probe more words"
                found = replace(found, note="; ".join(filter(None, [found.note, note])))
            panel.add("CSAI", site, found)
            panel.add("CSAI, frames exchanged", site, control)
    panel.add("CTC entropy", "", Estimate(entropy.posterior_entropy(pooled(held.log_probs)), None))
    return panel


def _frames(
    held: Held,
    site: str,
    utterances: Sequence[Utterance],
    alignments: Mapping[str, Alignment],
    numbers: Mapping[str, int],
) -> Frames:
    vectors, owners, units, slots = [], [], [], []
    for number, utterance in enumerate(utterances):
        rows, real = held.frames(site, number)
        names = alignments[utterance.utt_id].at(len(rows), utterance.seconds or 0.0)
        kept = real.numpy()
        vectors.append(rows[real])
        units.append(labels(names, numbers)[kept])
        owners.append(np.full(int(kept.sum()), number))
        slots.append(_slots(held.owners[number][real]) if site == PROJECTOR else np.zeros(int(kept.sum()), int))
    return Frames(pooled(vectors), *(np.concatenate(each) for each in (owners, units, slots)))


def _slots(positions: torch.Tensor) -> entropy.Labels:
    """Place of each frame among those of its position."""
    _, counts = positions.unique_consecutive(return_counts=True)
    return np.concatenate([np.arange(count) for count in counts.tolist()] or [np.zeros(0, int)])


def _draw(count: int, settings: Settings) -> entropy.Labels:
    return np.sort(np.random.default_rng(settings.seed).permutation(count)[: settings.frames])


def _spectra(panel: Panel, held: Held, site: str, frames: Frames, settings: Settings) -> None:
    if site == ENCODER:
        drawn = _draw(len(frames.vectors), settings)
        vectors, owners = frames.vectors[drawn], frames.owners[drawn]
        spoken = drawn[frames.units[drawn] >= 0]
        panel.add("NSE without silence", site, entropy.nse(frames.vectors[spoken], frames.owners[spoken]))
    else:
        sizes = [len(each) for each in held.positions]
        drawn = _draw(sum(sizes), settings)
        vectors, owners = pooled(held.positions)[drawn], np.repeat(np.arange(len(sizes)), sizes)[drawn]
    panel.add("NSE", site, entropy.nse(vectors, owners, settings.seed))
    panel.add("NSE of single utterances", site, Estimate(entropy.nse_per_utterance(vectors, owners), None))


def _phones(panel: Panel, site: str, frames: Frames, speakers: np.ndarray, settings: Settings) -> None:
    spoken = np.flatnonzero(frames.units >= 0)
    if not len(spoken):
        raise UserError(f"PAI: no frame of the {site} lies in a unit of the alignment: it does not match the audio")
    spoken = spoken[_draw(len(spoken), settings)]
    vectors, units, owners, slots = (
        frames.vectors[spoken],
        frames.units[spoken],
        frames.owners[spoken],
        frames.slots[spoken],
    )
    said_by = speakers[owners].tolist()
    for name, hidden in (("PAI", 0), ("PAI of 512 hidden units", 512)):
        found, nats = entropy.pai(vectors, units, owners, said_by, hidden, settings.seed, slots)
        panel.add(name, site, found)
        panel.add(f"{name}, nats", site, nats)
    mixed = np.random.default_rng(settings.seed).permutation(len(vectors))
    control, _ = entropy.pai(vectors[mixed], units, owners, said_by, 0, settings.seed, slots)
    panel.add("PAI, frames exchanged", site, control)


def _words(
    held: Held,
    site: str,
    utterances: Sequence[Utterance],
    alignments: Mapping[str, Alignment],
    numbers: Mapping[str, int],
    min_count: int,
) -> tuple[Words | None, str]:
    """Word tokens whose word is frequent enough and whose span has frames; or why there are too few."""
    counts = Counter(word.name for each in utterances for word in alignments[each.utt_id].words)
    kept = numbered(name for name, count in counts.items() if count >= min_count)
    if len(kept) < 2:
        return None, f"{len(kept)} words occur {min_count} times: use more data or a lower --min_count"
    names, phones, around, means, sentences, owners = [], [], [], [], [], []
    for number, utterance in enumerate(utterances):
        rows, real = held.frames(site, number)
        alignment = alignments[utterance.utt_id]
        spelling = [numbers[unit.name] for unit in alignment.units]
        padded = [-1] * NEIGHBOURS + spelling + [-1] * NEIGHBOURS
        for word in alignment.words:
            units = alignment.spelled(word)
            span = alignment.span(word, len(rows), utterance.seconds or 0.0) if len(rows) else slice(0)
            if word.name not in kept or not units or not bool(real[span].any()):
                continue
            first, end = units[0], units[-1] + 1
            names.append(kept[word.name])
            phones.append(tuple(spelling[first:end]))
            around.append((*padded[first : first + NEIGHBOURS], *padded[end + NEIGHBOURS : end + 2 * NEIGHBOURS]))
            means.append(rows[span][real[span]].mean(0))
            sentences.append(utterance.text)
            owners.append(number)
    if not names:
        return None, f"no frame of the {site} lies in a word that occurs {min_count} times"
    vectors = torch.stack(means).double().numpy()
    return Words(np.array(names), tuple(phones), tuple(around), vectors, tuple(sentences), np.array(owners)), ""


@torch.inference_mode()
def allocate(panel: Panel, model: SpeechLLM, batches: Iterable[Batch], device: torch.device, seed: int = 0) -> None:
    """Add R_enc and R_lm, per reference character; utterances too short for CTC are left out."""
    texts: list[str] = []
    columns: list[list[torch.Tensor]] = [[], [], []]
    for batch in batches:
        batch = batch.to(device)
        log_probs, lens = model.ctc_log_probs(batch)
        spelled = [model.ctc_tokenizer.encode(text) for text in batch.texts]
        rows = [log_probs[row : row + 1, :size] for row, size in enumerate(lens.tolist())]
        nats = [ctc_loss(row, size[None], [units]) for row, size, units in zip(rows, lens, spelled, strict=True)]
        texts += batch.texts
        for column, values in zip(
            columns, (torch.stack(nats), model.nats(batch), model.nats(batch, False)), strict=True
        ):
            column.append(values.cpu())
    ctc, llm, text = (torch.cat(column).double().numpy() for column in columns)
    kept = ctc > 0  # 0: no path
    characters = entropy.character_nats(texts)
    try:
        encoder, language = entropy.allocation(characters[kept], ctc[kept], llm[kept], text[kept], seed)
    except UserError as fault:
        encoder = language = Estimate(float("nan"), None, str(fault))
    panel.add("R_enc", "", encoder)
    panel.add("R_lm", "", language)
