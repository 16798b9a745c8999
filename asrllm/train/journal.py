"""The story of a run as it goes on: lines of the log, metrics, pictures; means since the line before.

It knows figures by name and the position; not models.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from asrllm import dist
from asrllm.train import log as logs
from asrllm.train.emergence import Emergence
from asrllm.train.ledger import Ledger
from asrllm.train.position import Position
from asrllm.train.stage import Phase, Stage
from asrllm.train.swap import Choice

log = logging.getLogger("asrllm")


class Journal:
    """Of the experiment in folder `exp`, from a position on.

    Args:
        exp: the experiment folder.
        at: where training stands; read at every line.
        ledger: the FLOPs so far; read at every line.
        stage: what is trained.
        device: whose memory is told.
    """

    def __init__(self, exp: Path, at: Position, ledger: Ledger, stage: Stage, device: torch.device) -> None:
        self.at, self.ledger, self.device = at, ledger, device
        self.metrics = logs.MetricLog(exp, at.step, stage.phases[0].warmup_steps)
        self.first = dist.rank() == 0
        self._restart(stage.phases[at.phase])

    def begin(self, phase: Phase, done: str, precision: str) -> None:
        """A phase, or a turn of it, begins or goes on."""
        at = self.at
        self._restart(phase)
        if at.phase_step == 0:
            self.metrics.write(at.step + 1, "phase", {"phase": at.number})
        what = f"trains {', '.join(phase.train)} on the losses {', '.join(phase.losses)}, {precision}"
        self._say("phase %d, %s done: %s", at.number, done, what)

    def swap(self, choice: Choice) -> None:
        """The encoder was swapped."""
        for value in choice.watched:
            self.metrics.write(self.at.step + 1, "cka", asdict(value))
        self.metrics.write(self.at.step + 1, "swap", {"snapshot": choice.step, "reason": choice.reason})
        self._say("the encoder is now that of %s, step %d: %s", choice.folder, choice.step, choice.reason)

    def add(self, tally: logs.Tally) -> None:
        """Count the losses of a step in."""
        self.tally.rows += tally.rows

    def step(self, latest: Mapping[str, float]) -> None:
        """Means since the last such line, and figures of the latest step alone."""
        figures = {
            **latest,
            **self.tally.figures(),
            **self.speed.figures(self.at.audio_seconds, self.ledger.total),
            "tflops": self.ledger.total / 1e12,
            "memory_gib": logs.memory_gib(self.device),
        }
        self._restart(self.phase)
        self.metrics.write(self.at.step, "train", figures)
        self._say("step %d: %s", self.at.step, logs.said(figures))

    def valid(self, figures: Mapping[str, float]) -> None:
        """A validation."""
        self.metrics.write(self.at.step, "valid", figures)
        self._say("step %d, validation: %s", self.at.step, logs.said(figures))

    def go_on(self) -> None:
        """Draw the pictures after a validation, whose time does not count as that of training."""
        self.metrics.draw()
        self.speed = logs.Speed(self.at.audio_seconds, self.ledger.total)

    def emergence(self) -> Emergence | None:
        """The jump of the LLM's accuracy in training, if it was logged."""
        return self.metrics.emergence()

    def close(self) -> None:
        """Flush what is not written."""
        self.metrics.close()

    def _restart(self, phase: Phase) -> None:
        self.phase = phase
        self.tally = logs.Tally(phase.losses, self.device)
        self.speed = logs.Speed(self.at.audio_seconds, self.ledger.total)

    def _say(self, text: str, *values: object) -> None:
        if self.first:
            log.info(text, *values)
