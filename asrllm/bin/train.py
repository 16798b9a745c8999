"""Stages 4 to 7: train one experiment; which parts, on what and for how long is said by the YAML."""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from asrllm import config as configs
from asrllm import console, dist
from asrllm.analysis import plan
from asrllm.experiment import (
    Experiment,
    ExperimentConfig,
    Loader,
    cache_frames,
    encoding_flops,
    new_model,
    open_corpus,
    probe,
    validation,
)
from asrllm.train import restart
from asrllm.train.checkpoint import is_finished
from asrllm.train.ledger import Ledger
from asrllm.train.optim import seed_everything
from asrllm.train.trainer import Trainer

SCHEMA = ExperimentConfig
log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="train", description=__doc__, allow_abbrev=False)
    parse.add_argument("--config", type=Path, required=True, help="YAML of the stage: model, data, train, stage")
    parse.add_argument("--train_data", type=Path, required=True, help="formatted data directory (stage 2)")
    parse.add_argument("--valid_data", type=Path, required=True, help="formatted data directory (stage 2)")
    parse.add_argument("--tokenizer", type=Path, required=True, help="folder of the CTC units (stage 3)")
    parse.add_argument("--exp", type=Path, required=True, help="experiment folder; a run found in it is continued")
    parse.add_argument("--ngpu", type=int, default=0, help="GPUs; 0 trains on the CPU")
    parse.add_argument("--dry_run", action="store_true", help="print what would be done and at what cost, do nothing")
    parse.add_argument(
        "--leave_out_skipped",
        action="store_true",
        help="go on from the last checkpoint without the batches of steps skipped since (EXP/skipped_steps.jsonl)",
    )
    parse.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the YAML")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Train, or go on training, or say that it is done."""
    given = list(argv) if argv is not None else sys.argv[1:]
    args = parser().parse_args(given)
    config = configs.load(args.config, SCHEMA, args.set)
    _train(args, config, dist.start(args.ngpu), restart.command("asrllm.bin.train", given))
    dist.stop()


def _train(args: argparse.Namespace, config: ExperimentConfig, device: torch.device, command: str) -> None:
    experiment = Experiment(args.exp)
    experiment.check(config, args.tokenizer)
    if is_finished(args.exp):
        log.info("%s: finished before, nothing to do", args.exp)
        return
    seed_everything(config.train.seed)
    model = new_model(config, args.tokenizer)
    train_set = open_corpus(args.train_data, config, model, args.tokenizer, training=True, keep=not args.dry_run)
    valid_set = open_corpus(args.valid_data, config, model, args.tokenizer, training=False, keep=not args.dry_run)
    model.to(device)
    if args.dry_run:
        told = plan.lines(config, model, train_set, valid_set, device)  # on every process: they add up
        for line in told if dist.rank() == 0 else ():
            print(line)
        return
    ledger = Ledger()
    if config.data.cache_frames:
        ledger.parts["encoder"] = encoding_flops(train_set, model)
        store = args.exp.parent / "frames"
        train_set = cache_frames(train_set, model, config.model, store, device)
        valid_set = cache_frames(valid_set, model, config.model, store, device)
    if dist.rank() == 0:
        experiment.start(config, args.tokenizer)  # so late that most mistakes leave no folder behind
        restart.write(args.exp, command)
        train_set.list_left_out(args.exp / "skipped.train.txt")
        valid_set.list_left_out(args.exp / "skipped.valid.txt")
    dist.barrier()
    loader = Loader(train_set, config.train.seed)
    keep = frozenset(experiment.stored_parts)
    Trainer(
        model,
        loader,
        lambda: validation(valid_set),
        config.stage,
        config.train,
        args.exp,
        device,
        keep,
        command,
        probe=partial(probe, valid_set),
        ledger=ledger,
        leave_out=args.leave_out_skipped,
    ).run()


if __name__ == "__main__":
    console.run(main)
