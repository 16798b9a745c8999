"""A model of two parts with known losses and a loader of fixed batches, to train in a second or in another process."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from asrllm import dist
from asrllm.batch import Batch, Loss, pad
from asrllm.config import parse
from asrllm.flops import Flops, Work
from asrllm.train.optim import seed_everything
from asrllm.train.stage import Stage
from asrllm.train.trainer import TrainConfig, Trainer


class ToyModel(nn.Module):
    """Losses over samples: `near` reaches both parts, `far` the head alone; targets are real samples."""

    def __init__(self, dropout: float = 0.0, norm: bool = False, poison: frozenset[str] = frozenset()) -> None:
        super().__init__()
        middle = nn.BatchNorm1d(8) if norm else nn.Tanh()  # a norm takes away what a bias before it adds
        self.encoder = nn.Sequential(nn.Linear(1, 8, bias=not norm), middle, nn.Dropout(dropout))
        self.head = nn.Linear(8, 1)
        self.seen: list[str] = []
        self.poison = poison

    recomputed: frozenset[str] = frozenset()

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "head": self.head}

    @property
    def blocks(self) -> list[nn.Module]:
        return [self.encoder]

    def targets(self, batch: Batch, losses: tuple[str, ...]) -> dict[str, int]:
        return {name: int(batch.wave_lens.sum()) for name in losses}

    def encode(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.encoder(batch.waves.reshape(-1, 1)).view(*batch.waves.shape, 8), batch.wave_lens

    def work(self, batch: Batch, losses: tuple[str, ...], speech_lens: torch.Tensor | None) -> list[Work]:
        def frames(count: int) -> Flops:
            return Flops(weights=2.0 * 8 * count)

        real, padded = frames(int(batch.wave_lens.sum())), frames(batch.waves.numel())
        return [Work("encoder", real, padded), Work("head", real, padded, frozenset({"encoder"}))]

    def forward(self, batch: Batch, losses: tuple[str, ...]) -> dict[str, Loss]:
        if self.training or self.encoder.training or self.head.training:
            self.seen += batch.utt_ids
        rows = torch.cat([wave[:length] for wave, length in zip(batch.waves, batch.wave_lens, strict=True)])
        frames = self.encoder(rows[:, None])
        made = {}
        for name in [name for name in losses if name in ("near", "far")]:  # in a fixed order, for equal bits
            guess = self.head(frames if name == "near" else frames.detach()).squeeze(1)
            error = (guess - rows.sin()) ** 2
            if self.poison & set(batch.utt_ids):
                error = error * float("nan")
            made[name] = Loss(error.sum(), len(rows), (error < 0.1).sum())
        return made


def utterance(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(3 + number % 4, generator=generator)


def make_batch(numbers: list[int]) -> Batch:
    waves, lens = pad([utterance(number) for number in numbers])
    return Batch([f"utt{number}" for number in numbers], ["" for _ in numbers], waves, lens)


class ToyLoader:
    """`total` utterances in epochs of another order each; each rank takes its share of every batch of `size`."""

    def __init__(self, size: int = 4, total: int = 24, kill_at: int | None = None) -> None:
        self.size, self.total, self.kill_at = size, total, kill_at
        self.made = 0

    def count(self, epoch: int) -> int:
        return self.total // self.size

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = torch.randperm(self.total, generator=torch.Generator().manual_seed(epoch)).tolist()
        share = self.size // dist.world_size()
        for index in range(start, self.count(epoch)):
            if self.made == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.made += 1
            first = index * self.size + dist.rank() * share
            yield make_batch(order[first : first + share])


BOTH = {"steps": 10, "train": {"encoder": 0.05, "head": 0.02}, "losses": {"near": 1.0, "far": 0.5}, "warmup_steps": 2}
TWO_PHASES = [BOTH | {"steps": 5}, BOTH | {"schedule": "cosine"}]


def make_stage(phases: list[dict], repeat: object = 1) -> Stage:
    return parse({"phases": phases, "repeat": repeat}, Stage, "stage")


def make_trainer(exp: Path, model: ToyModel, loader: ToyLoader, phases: list[dict], **settings: object) -> Trainer:
    stage = make_stage(phases, settings.pop("repeat", 1))
    tree = {"precision": "fp32", "log_every_steps": 2, "checkpoint_every_steps": 1, **settings}
    config = parse(tree, TrainConfig, "train")
    probe = lambda utterances, seed: [make_batch(list(range(200, 200 + utterances)))]  # noqa: E731
    valid = lambda: [make_batch([100, 101, 102])]  # noqa: E731
    return Trainer(model, loader, valid, stage, config, exp, torch.device("cpu"), probe=probe)


PRETRAINING = {"steps": 20, "train": {"encoder": 0.1, "head": 0.05}, "losses": {"near": 1.0}, "warmup_steps": 2}


def swapping(pretraining: Path, **swaps: object) -> dict:
    """A phase of 12 steps that trains the head on encoders of a pretraining."""
    swaps = {"pretraining": str(pretraining), "parts": ["encoder"], **swaps}
    phase = {"steps": 12, "train": {"head": 0.02}, "losses": {"near": 1.0}, "warmup_steps": 1, "schedule": "cosine"}
    return phase | {"encoder_swaps": swaps}


class SlowLoader(ToyLoader):
    """Waits before every batch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        for batch in super().batches(epoch, start):
            time.sleep(self.seconds)
            yield batch


def pretrain(exp: Path, seconds: float = 0.0) -> None:
    """A pretraining of 20 steps that keeps every second, with a rest of some seconds before each."""
    torch.set_num_threads(1)
    exp.mkdir(parents=True)
    (exp / "config.yaml").touch()
    seed_everything(1)
    make_trainer(exp, ToyModel(), SlowLoader(seconds), [PRETRAINING], snapshot_every_steps=2, average_best=2).run()


def train(exp: Path, kill_at: int, phases: list[dict], rough: bool, settings: dict) -> None:
    """The body of a process of any number; it kills itself when batch `kill_at` is wanted, unless that is negative.

    `rough` adds dropout and batch norm, with which two processes do other than one.
    """
    dist.start(0)
    seed_everything(1)
    model = ToyModel(0.3, True) if rough else ToyModel()
    loader = ToyLoader(kill_at=kill_at if kill_at >= 0 else None)
    make_trainer(exp, model, loader, phases, **settings).run()
