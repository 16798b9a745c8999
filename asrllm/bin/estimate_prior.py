"""Estimate the label prior of an experiment's CTC head on training audio; it is written to EXP/prior.json.

Searches and rescoring with a weight for `prior` read it there.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from asrllm import console, dist
from asrllm.data import index, sampler
from asrllm.data.dataset import Dataset, batches
from asrllm.decode.prior import PRIOR_FILE, PriorSum, write_prior
from asrllm.experiment import Experiment
from asrllm.models.frontend import SAMPLE_RATE

log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="estimate_prior", description=__doc__, allow_abbrev=False)
    parse.add_argument("--exp", type=Path, required=True, help="experiment, which gets the prior")
    parse.add_argument(
        "--data", type=Path, required=True, help="formatted data directory of the training set (stage 2)"
    )
    parse.add_argument("--batch_seconds", type=float, default=120.0, help="audio at once (120)")
    parse.add_argument("--ngpu", type=int, default=0, help="0: the CPU")
    return parse


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the encoder over the data once."""
    args = parser().parse_args(argv)
    device = dist.start(args.ngpu, 0)
    model = Experiment(args.exp).model().to(device)
    dataset = Dataset(index.read(args.data), SAMPLE_RATE)
    plan = sampler.plan_alike(dataset.seconds(0), args.batch_seconds)
    prior = PriorSum(model.ctc_tokenizer.size)
    for batch in console.track(batches(dataset, plan), "estimating", len(plan), "batches"):
        prior.add(*model.ctc_log_probs(batch.to(device)))
    write_prior(prior.log_prior(), args.exp / PRIOR_FILE)
    log.info("%s: label prior of %d utterances", args.exp / PRIOR_FILE, len(dataset))


if __name__ == "__main__":
    console.run(main)
