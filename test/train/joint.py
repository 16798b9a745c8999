"""The body of a process that trains a speech LLM of toys; for test_parallel.py."""

from collections.abc import Iterator
from pathlib import Path

import torch
import toy_speech_llm
from torch import nn

from asrllm import dist
from asrllm.batch import Batch
from asrllm.config import parse
from asrllm.models.cross_attention import CrossAttention, CrossAttentionConfig
from asrllm.models.lora import LoraConfig, attach
from asrllm.models.recomputation import recompute
from asrllm.train.optim import seed_everything
from asrllm.train.stage import Stage
from asrllm.train.trainer import TrainConfig, Trainer

TEXTS = ("abc", "de", "fghij", "k")


class Loader:
    """Each batch of four utterances is made by all processes together."""

    def count(self, epoch: int) -> int:
        return 4

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        for number in range(start, 4):
            torch.manual_seed(number)
            whole = toy_speech_llm.rows_of(toy_speech_llm.batch([7000, 6000, 8100, 6500], list(TEXTS)))
            own = whole[dist.rank() :: dist.world_size()]
            longest = max(each.waves.shape[1] for each in own)
            waves = torch.cat([nn.functional.pad(each.waves, (0, longest - each.waves.shape[1])) for each in own])
            lens = torch.cat([each.wave_lens for each in own])
            yield Batch([i for each in own for i in each.utt_ids], [t for each in own for t in each.texts], waves, lens)


def phases(heard: str) -> list[dict]:
    """Encoder and CTC; then what is put on the LLM, `heard`, with the projector; then all."""
    alone = {"encoder": 1e-4, "ctc": 1e-4}
    added = {"projector": 1e-4, heard: 1e-4}
    return [
        {"steps": 2, "train": alone, "losses": {"ctc": 1.0}},
        {"steps": 3, "train": added, "losses": {"llm": 1.0}},
        {"steps": 3, "train": {**alone, **added, "llm": 1e-4}, "losses": {"llm": 1.0, "ctc": 0.3}},
    ]


def train(exp: Path, way: str, kind: str = "adapters", precision: str = "fp32") -> None:
    """Kinds: `adapters` on the LLM, the same `recomputed` (blocks run again for their gradient), `cross`-attention."""
    device = dist.start(0)
    seed_everything(1)
    llm = toy_speech_llm.llama()
    model = toy_speech_llm.model(llm, "linear", attach(llm, LoraConfig(rank=4)), chance=False)
    if kind == "cross":
        settings = CrossAttentionConfig(type="cross_attention", every=1, heads=2, feed_forward=16)
        model.cross = CrossAttention(settings, llm)
    if kind == "recomputed":
        recompute(model.encoder)
        recompute(llm)
    tree = {"precision": precision, "parallel": {"type": way}, "average_best": 1, "log_every_steps": 1}
    stage = parse({"phases": phases("cross" if kind == "cross" else "llm.lora")}, Stage, "stage")
    valid = lambda: Loader().batches(0, 3)  # noqa: E731
    Trainer(model, Loader(), valid, stage, parse(tree, TrainConfig, "train"), exp, device).run()
