"""Where training stands: its round, phase and turn, and how far it is in them.

With weights, optimizer and the encoders that were chosen, all that a resume needs. It knows counts; not data or models.
"""

from dataclasses import dataclass

from asrllm.train.stage import Stage


@dataclass
class Position:
    """Counts of what was done; a turn is the part of a phase between two swaps of the encoder."""

    round: int = 0
    phase: int = 0
    turn: int = 0
    number: int = 1  # of this turn, counted over all phases and rounds
    phase_step: int = 0  # of this turn
    phase_flops: float = 0.0  # of this turn, model FLOPs
    phase_audio_seconds: float = 0.0  # of this turn
    warmed: float = 0.0  # place in the schedule at which the warm-up of this turn ended
    step: int = 0  # over all phases
    epoch: int = 0
    batch: int = 0  # number of the micro-batch of the epoch that comes next
    first_epoch: int = 0  # of the phase
    bad_steps: int = 0  # in a row
    best: float | None = None  # best validation figure of the turn, lower is better
    stale: int = 0  # validations since then
    wall_seconds: float = 0.0
    audio_seconds: float = 0.0

    def count_step(self, batch: int, flops: float, audio_seconds: float) -> None:
        """One more step was made, up to number `batch` of the epoch."""
        self.phase_step, self.step, self.batch = self.phase_step + 1, self.step + 1, batch
        self.phase_flops += flops
        self.phase_audio_seconds += audio_seconds
        self.audio_seconds += audio_seconds

    def next_turn(self) -> None:
        """Move to the start of the phase's next turn; the epoch goes on."""
        self.turn, self.number = self.turn + 1, self.number + 1
        self.phase_step, self.best, self.stale = 0, None, 0
        self.phase_flops = self.phase_audio_seconds = self.warmed = 0.0

    def next_phase(self, stage: Stage) -> bool:
        """Move to the start of the next phase, which begins an epoch; False after the last."""
        last = len(stage.phases) - 1
        if self.phase == last and self.round == stage.repeat - 1:
            return False
        self.next_turn()
        self.round, self.phase = (self.round + 1, 0) if self.phase == last else (self.round, self.phase + 1)
        self.epoch, self.batch = self.epoch + (self.batch > 0), 0
        self.turn, self.first_epoch = 0, self.epoch
        return True
