"""Merge the adapters of an experiment into its LLM: as an experiment without adapters, or the LLM alone as a folder."""

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from asrllm import config as configs
from asrllm import console
from asrllm.batch import Batch
from asrllm.console import UserError, positive, write_atomically
from asrllm.data import kaldi
from asrllm.data.dataset import Dataset
from asrllm.experiment import Experiment, ExperimentConfig
from asrllm.models import lora
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.speech_llm import SpeechLLM
from asrllm.train import checkpoint


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = argparse.ArgumentParser(prog="merge", description=__doc__, allow_abbrev=False)
    options.add_argument("--exp", type=Path, required=True, help="finished experiment with model.llm.lora")
    options.add_argument("--data", type=Path, required=True, help="formatted data directory to compare on (stage 2)")
    options.add_argument(
        "--utterances", type=positive, default=8, help="how many of them to compare on, the first ones (8)"
    )
    options.add_argument(
        "--tolerance", type=float, default=0.01, help="largest change of a log-probability allowed (0.01)"
    )
    options.add_argument("--out", type=Path, help="merged experiment to write")
    options.add_argument("--llm", type=Path, help="folder for the merged LLM alone, in transformers' form")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Merge, compare what the LLM says before and after on real utterances, and write if it is the same."""
    args = parser().parse_args(argv)
    places = [place for place in (args.out, args.llm) if place is not None]
    if not places:
        raise UserError("nothing to write: give --out, --llm or both")
    for place in places:
        if place.exists():
            raise UserError(f"{place}: is there already: delete it or give another name")
    experiment = Experiment(args.exp)
    llm_config = experiment.config.model.llm
    if llm_config is None or llm_config.lora is None:
        raise UserError(f"{args.exp}: its LLM has no adapters (model.llm.lora): there is nothing to merge")
    batch = _read(args.data, args.utterances)
    model = experiment.model()
    before = _log_probs(model, batch)
    lora.merge(model.llm)
    model.adapters = None
    change = float((_log_probs(model, batch) - before).abs().max())
    said = f"largest change of {len(before)} x {before.shape[1]} log-probabilities: {change:.2g}"
    if not change <= args.tolerance:
        raise UserError(
            f"{args.exp}: {said}, above --tolerance {args.tolerance:g}: nothing was written; weights in bf16 round "
            "what is added to them: set model.llm.dtype to fp32, or allow more"
        )
    console.log.info("%s", said)
    if args.llm is not None:
        with write_atomically(args.llm) as temporary:
            model.llm.save_pretrained(temporary)
            model.llm_tokenizer.save(temporary)
    if args.out is not None:
        command = shlex.join(["python", "-m", "asrllm.bin.merge", *(argv if argv is not None else sys.argv[1:])])
        _write(experiment, model, args.out, command)
    console.log.info("%s -> %s", args.exp, ", ".join(map(str, places)))


def _read(folder: Path, count: int) -> Batch:
    utterances = [each for each in kaldi.read(folder) if each.text][:count]
    if not utterances:
        raise UserError(f"{folder}: no utterance with a transcript to compare on: give another --data")
    return Dataset(utterances, SAMPLE_RATE).batch(range(len(utterances)), 0)


@torch.inference_mode()
def _log_probs(model: SpeechLLM, batch: Batch) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=model.llm.dtype == torch.bfloat16):
        return model.llm_log_probs(batch)


def _write(experiment: Experiment, model: SpeechLLM, out: Path, command: str) -> None:
    """The experiment as it is but for its adapters; its phases stay, since they say how it was trained."""
    config, summary = experiment.config, json.loads((experiment.folder / "summary.json").read_text())
    stored = (experiment.stored_parts - {"llm.lora"}) | {"llm"}
    tree = config.model_dump(mode="json")
    tree["model"]["llm"]["lora"] = None
    tree["stage"]["init"] = {part: str(experiment.folder) for part in sorted(stored)}
    summary |= {"command": command, "merged_from": str(experiment.folder)}
    summary["parameters"] = {part: size for part, size in summary["parameters"].items() if part != "llm.lora"}
    with write_atomically(out) as temporary:
        shutil.copytree(experiment.folder / "tokenizer", temporary / "tokenizer")
        configs.dump(configs.parse(tree, ExperimentConfig, str(out)), temporary / "config.yaml")
        checkpoint.write_weights(checkpoint.gather(model.parts, stored), temporary / "weights.safetensors")
        (temporary / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    console.run(main)
