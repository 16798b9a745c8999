"""What a training run would do, told before it starts: weights, data, phases, FLOPs, memory.

FLOPs of a phase are those of a sample of its batches, taken evenly from the first epoch, as the ledger would count
them; where the LLM reads a CTC hypothesis its length is taken to be that of the transcript. Nothing is trained or
written; one or two utterances run forward, to weigh their activations.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from asrllm import dist
from asrllm.batch import Batch
from asrllm.data.sampler import Plan
from asrllm.experiment import Corpus, ExperimentConfig, encoding_flops
from asrllm.models.speech_llm import SpeechLLM
from asrllm.train import memory, optim
from asrllm.train import stage as stages
from asrllm.train.ledger import Cost, step_cost
from asrllm.train.stage import Phase

SAMPLED_BATCHES = 200


@dataclass(frozen=True)
class Epoch:
    """The first epoch of a corpus, for one process."""

    corpus: Corpus
    batches: Plan
    seconds: NDArray[np.float64]  # of every example

    @classmethod
    def of(cls, corpus: Corpus, seed: int) -> "Epoch":
        """As the trainer would plan it."""
        return cls(corpus, corpus.plan(0, seed), corpus.dataset.seconds(0))

    @property
    def hours(self) -> float:
        """Audio that one process hears, about."""
        return float(self.seconds.sum()) / 3600 / dist.world_size()

    def sample(self) -> Iterator[Batch]:
        """Some batches without their audio."""
        count = min(SAMPLED_BATCHES, len(self.batches))
        for number in range(count):
            yield self.corpus.dataset.outline(self.batches[number * len(self.batches) // count], 0)


def lines(config: ExperimentConfig, model: SpeechLLM, train: Corpus, valid: Corpus, device: torch.device) -> list[str]:
    """The whole plan, a line for each thing that it tells."""
    epoch = Epoch.of(train, config.train.seed)
    told = ["weights", *_weights(config, model)]
    told += [f"training data: {_data(epoch)}", f"validation data: {_data(Epoch.of(valid, 0))}"]
    cached = encoding_flops(train, model) if config.data.cache_frames else 0.0
    if cached:
        told.append(f"encoder outputs are cached: {cached:.2e} model FLOPs, once")
    total = 0.0
    for number, phase in enumerate(config.stage.phases, 1):
        stages.apply(phase, model, model.parts)
        cost = _mean_cost(config, model, epoch, phase)
        steps = _steps(config, epoch, phase, cost)
        total += steps * cost.total
        told += [f"phase {number} of {len(config.stage.phases)}", *_phase(config, model, epoch, phase, cost, steps)]
        told.append(f"  {_memory(config, model, epoch, phase, device)}")
    if config.stage.repeat > 1:
        told.append(f"all phases {config.stage.repeat} times over")
    told.append(f"all in all {cached + config.stage.repeat * total:.2e} model FLOPs")
    return told


def _weights(config: ExperimentConfig, model: SpeechLLM) -> list[str]:
    told = []
    for name, part in model.parts.items():
        count = sum(weight.numel() for weight in part.parameters())
        told.append(f"  {name:<10} {count / 1e6:9.2f} M  from {config.origin(name)}")
    return told


def _data(epoch: Epoch) -> str:
    corpus, batches = epoch.corpus, epoch.batches
    padding = batches.padding_share(epoch.seconds)
    here = f" on each of {dist.world_size()} processes" if dist.world_size() > 1 else ""
    sizes = f"{len(corpus.dataset)} utterances; an epoch has {len(epoch.seconds)} examples, {epoch.hours:.2f} h, "
    return f"{sizes}{len(batches)} batches{here}, {padding:.1%} padding"


def _mean_cost(config: ExperimentConfig, model: SpeechLLM, epoch: Epoch, phase: Phase) -> Cost:
    """Of one step of all processes."""
    outlines = list(epoch.sample())
    work = [each for batch in outlines for each in model.work(batch, tuple(phase.losses))]
    if config.data.cache_frames:
        work = [each for each in work if each.part != "encoder"]
    cost = step_cost(work, model.parts, phase.train, torch.device("cpu"), model.recomputed)
    share = config.train.accumulate / len(outlines)
    parts = {name: flops * share for name, flops in cost.parts.items()}
    return Cost(parts, cost.padding * share, cost.recomputation * share)


def _steps(config: ExperimentConfig, epoch: Epoch, phase: Phase, cost: Cost) -> float:
    """How many steps the phase has, about."""
    size, unit = phase.budget
    a_step = config.train.accumulate / len(epoch.batches)  # in epochs
    match unit:
        case "epochs":
            return size / a_step
        case "flops":
            return size / cost.total
        case "audio_hours":
            return size / (epoch.hours * dist.world_size() * a_step)
    return size


def _phase(
    config: ExperimentConfig, model: SpeechLLM, epoch: Epoch, phase: Phase, cost: Cost, steps: float
) -> list[str]:
    size, unit = phase.budget
    epochs = steps * config.train.accumulate / len(epoch.batches)
    counts = {part: sum(each.numel() for each in model.parts[part].parameters()) for part in phase.train}
    trained = ", ".join(f"{part} ({counts[part] / 1e6:.2f} M) at {rate:g}" for part, rate in phase.train.items())
    spent = ", ".join(f"{part} {steps * flops:.2e}" for part, flops in cost.parts.items() if flops)
    told = [
        f"  budget {size:g} {unit.replace('_', ' ')}: about {steps:.0f} steps, {epochs:.2f} epochs",
        f"  trains {trained} on the losses {', '.join(f'{weight:g} {name}' for name, weight in phase.losses.items())}",
        f"  {steps * cost.total:.2e} model FLOPs ({spent}), padding {cost.padding / cost.total:.1%} on top",
    ]
    if phase.encoder_swaps is not None:
        told.append(f"  swaps {', '.join(phase.encoder_swaps.parts)} for those of {phase.encoder_swaps.pretraining}")
    return told


def _memory(config: ExperimentConfig, model: SpeechLLM, epoch: Epoch, phase: Phase, device: torch.device) -> str:
    batch = epoch.batches[0]  # the one of most padded seconds
    longest = max(batch, key=lambda index: epoch.seconds[index])
    row = epoch.corpus.dataset.batch([longest], 0)
    processes = dist.world_size() if config.train.parallel.type == "fsdp2" else 1
    precision = optim.pick_precision(config.train.precision, device)
    size = memory.estimate(model, phase, row, len(batch), precision, device, processes)
    total, weights, training, activations = (
        f"{each / 2**30:.2f}" for each in (size.total, size.weights, size.training, size.activations)
    )
    return (
        f"about {total} GiB of memory at least: weights {weights}, gradients and moments {training}, activations in "
        f"{precision} {activations} ({len(batch)} x {epoch.seconds[longest]:.1f} s)"
    )
