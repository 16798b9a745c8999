"""Shortcuts of joint decoding on a trained experiment: what each costs in word errors and saves in time.

    cd egs/mini/asr1 && PYTHONPATH=../../.. python ../../../benchmark/joint_shortcuts.py --exp exp/train_align \\
        --data dump/dev --config conf/decode_joint.yaml

None of them is in the package: CTC scores of the LLM's candidates cost so little that there is little to save. Seconds
are of the processor; those of the CTC are posteriors laid out, candidates scored, prefixes extended.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other where cores are shared

import kaldialign
import torch

from asrllm import config as configs
from asrllm.batch import pad, real
from asrllm.data import kaldi
from asrllm.data.dataset import Dataset, batches
from asrllm.decode import ctc_prefix, ctc_scorer, joint
from asrllm.decode.decoder import DecodeConfig, Decoder, prepared
from asrllm.decode.scorer import LlmScorer, LlmState
from asrllm.experiment import Experiment

Frames = tuple[torch.Tensor, torch.Tensor]


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--exp", type=Path, required=True)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--config", type=Path, required=True)
    options.add_argument("--batch", type=int, default=16, help="utterances at once (16)")
    options.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    return options


def keep(log_probs: torch.Tensor, lens: torch.Tensor, merge: Callable[[torch.Tensor], torch.Tensor]) -> Frames:
    """Change the frames (T, U) of each utterance."""
    return pad([merge(row[:size]) for row, size in zip(log_probs, lens.tolist(), strict=True)])


def collapsed(row: torch.Tensor) -> torch.Tensor:
    """Runs of one best label, each with 0.8 or more, become their mean in probability (soft collapse)."""
    best, label = row.max(1)
    joined = (label[1:] == label[:-1]) & (best[1:] > -0.223) & (best[:-1] > -0.223)
    run = torch.cat([torch.zeros(1, dtype=torch.long), (~joined).long().cumsum(0)])
    sums = torch.zeros(int(run[-1]) + 1, row.shape[1]).index_add_(0, run, row.exp())
    return (sums / run.bincount()[:, None]).log()


def without_blanks(row: torch.Tensor) -> torch.Tensor:
    """Frames with the blank above 0.99 go, but one between two others, so that repeated labels stay two."""
    blank = row[:, 0] > -0.01005
    first = blank & ~torch.cat([torch.zeros(1, dtype=torch.bool), blank[:-1]])
    kept = row[~blank | first]
    return kept if len(kept) else row[:1]


class Pruned(LlmScorer):
    """The LLM with no tokens but those of the `size` labels that CTC gives most in any frame, and the end."""

    size = 0
    allowed: torch.Tensor

    def start(self) -> tuple[torch.Tensor, LlmState]:
        log_probs, state = super().start()
        return self._renormalised(log_probs), state

    def score(self, tokens: torch.Tensor, state: LlmState) -> tuple[torch.Tensor, LlmState]:
        log_probs, state = super().score(tokens, state)
        return self._renormalised(log_probs), state

    def select(self, state: LlmState, rows: torch.Tensor) -> LlmState:
        self.allowed = self.allowed[rows[:, 0] // state.visible.shape[1]]
        return super().select(state, rows)

    def _renormalised(self, log_probs: torch.Tensor) -> torch.Tensor:
        return log_probs.masked_fill(~self.allowed[:, None], -torch.inf).log_softmax(-1)


@contextmanager
def clock(seconds: dict[str, float]) -> Iterator[None]:
    """Within the block, processor seconds of the CTC add up."""

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            begin = time.process_time()
            try:
                return function(*args)
            finally:
                seconds["ctc"] = seconds.get("ctc", 0.0) + time.process_time() - begin

        return run

    scorer = ctc_scorer.CtcScorer
    with (
        mock.patch.object(scorer, "score_candidates", timed(scorer.score_candidates)),
        mock.patch.object(scorer, "advance", timed(scorer.advance)),
        mock.patch.object(ctc_prefix.CtcPrefix, "__init__", timed(ctc_prefix.CtcPrefix.__init__)),
    ):
        yield


def main() -> None:
    """Print a Markdown table."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    config = configs.load(options.config, DecodeConfig)
    model: Any = Experiment(options.exp).model()
    utterances = sorted(kaldi.read(options.data), key=lambda each: each.seconds or 0.0)
    numbers = range(len(utterances))
    dataset = Dataset(utterances, 16000)
    data = list(batches(dataset, [list(numbers[at : at + options.batch]) for at in numbers[:: options.batch]]))
    heard, decoder = model.ctc_log_probs, Decoder(model, config)

    def row(name: str, change: Callable[[torch.Tensor, torch.Tensor], Frames]) -> None:
        seconds: dict[str, float] = {}
        errors = words = frames = 0
        with clock(seconds), mock.patch.object(model, "ctc_log_probs", lambda batch: change(*heard(batch))):
            begin = time.process_time()
            found = {each.utt_id: each.best.text for batch in data for each in decoder.decode(batch)}
            seconds["all"] = time.process_time() - begin
        with torch.inference_mode():
            frames = sum(int(change(*heard(batch))[1].sum()) for batch in data)
        for each in utterances:
            reference = (each.text or "").lower().split()
            errors += kaldialign.edit_distance(reference, found[each.utt_id].lower().split())["total"]
            words += len(reference)
        share = 100 * seconds["ctc"] / seconds["all"]
        times = f"{seconds['ctc']:.2f} ({share:.0f} %) | {seconds['all']:.1f}"
        print(f"| {name} | {errors} ({100 * errors / words:.2f} %) | {frames} | {times} |", flush=True)

    def pruned(log_probs: torch.Tensor, lens: torch.Tensor, size: int) -> Frames:
        best = log_probs.masked_fill(~real(lens, log_probs.shape[1])[..., None], -torch.inf).amax(1)[:, 1:]
        labels = best.topk(min(size, best.shape[1])).indices
        ids = torch.tensor(model.ctc_tokenizer.llm_ids)[labels]
        ids = torch.cat([ids, torch.tensor(model.llm_end_ids).expand(len(ids), -1)], 1)
        Pruned.allowed = torch.zeros(len(ids), joint._size(model.llm), dtype=torch.bool).scatter_(1, ids, True)
        return log_probs, lens

    print("| shortcut | word errors | frames | CTC, s | all, s |\n|---|---|---|---|---|")
    with prepared(model, config):
        row("none", lambda *frames: frames)
        row("none, again", lambda *frames: frames)
        row("soft collapse at 0.8", lambda *frames: keep(*frames, collapsed))
        row("no blank above 0.99", lambda *frames: keep(*frames, without_blanks))
        for size in (512, 128):
            with mock.patch.object(joint, "LlmScorer", Pruned):
                row(f"LLM over {size} labels", lambda *frames, size=size: pruned(*frames, size))


if __name__ == "__main__":
    main()
