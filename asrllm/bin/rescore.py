"""Add scores to the n-best lists of a decoding and order them anew by a weighted sum; no search is run.

With no scorers in the YAML only the order changes, so weights tuned on one set are applied to another in no time.
"""

import argparse
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from asrllm import config as configs
from asrllm import console, dist
from asrllm.api import load_text_lm
from asrllm.batch import Batch
from asrllm.console import UserError, write_atomically
from asrllm.data import kaldi, sampler
from asrllm.data.dataset import Dataset, batches
from asrllm.decode.packed import packed
from asrllm.decode.prior import PRIOR_FILE, read_prior
from asrllm.decode.rescore import (
    CtcConfig,
    CtcRescorer,
    LmConfig,
    LmRescorer,
    PriorConfig,
    PriorRescorer,
    RescoreConfig,
    Rescorer,
    SpeechLlmConfig,
    SpeechLlmRescorer,
    rank,
    rescore,
)
from asrllm.decode.scorer import encoded
from asrllm.decode.speed import clock, speed
from asrllm.experiment import Experiment
from asrllm.hypothesis import NBest, read_decoding, shard_name, write_shard
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.speech_llm import SpeechLLM

SCHEMA = RescoreConfig
log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="rescore", description=__doc__, allow_abbrev=False)
    parse.add_argument("--config", type=Path, required=True, help="YAML: scorers and weights")
    parse.add_argument("--in", type=Path, required=True, dest="decoding", help="folder of a decoding with n-best lists")
    parse.add_argument("--out", type=Path, required=True, help="another folder, which gets the new lists")
    parse.add_argument("--exp", type=Path, help="experiment, for scorers of type speech_llm, ctc, prior")
    parse.add_argument("--data", type=Path, help="data directory that was decoded, for scorers of type speech_llm, ctc")
    parse.add_argument("--ngpu", type=int, default=0, help="0: the CPU")
    parse.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the YAML")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Rescore a decoding, unless that was done before."""
    args = parser().parse_args(argv)
    config = configs.load(args.config, SCHEMA, args.set)
    _check(config, args.decoding, args.out, args.exp, args.data)
    lists = read_decoding(args.decoding)
    if not lists:
        raise UserError(f"{args.decoding}: no utterance in it: decode again")
    out, speed_file = args.out / shard_name(1, 1), args.out / "speed.1of1.json"
    made_from = _fingerprint(config, args.decoding, args.exp)
    if out.is_file() and speed_file.is_file() and json.loads(speed_file.read_text()).get("made_from") == made_from:
        log.info("%s: rescored before, nothing to do", out)
        return
    device = dist.start(args.ngpu, 0)
    with ExitStack() as stack:
        model = _model(config, args.exp, device, stack)
        rescorers = _rescorers(config, args.exp, model, device, stack)
        scored: dict[str, NBest] = {}
        with clock() as took, console.progress("rescoring", len(lists), "utterances") as advance:
            for some, batch in _batches(config, lists, args.data):
                heard = encoded(model, batch.to(device)) if batch and model else None
                done = rescore(some, rescorers, heard)
                scored |= {each.utt_id: rank(each, config.weights) for each in done}
                advance(len(done), "")
    results = [scored[utt_id] for utt_id in lists]
    write_shard(results, out)
    with write_atomically(speed_file) as temporary:
        figures = speed(results, _with_before(took, args.decoding), device)
        temporary.write_text(json.dumps(figures | {"made_from": made_from}) + "\n")
    changed = sum(new.best.text != old.best.text for new, old in zip(results, lists.values(), strict=True))
    wall = took["seconds_wall"]
    log.info("%s: %d utterances in %.1f s, another text for %d of them", args.out, len(results), wall, changed)


def _check(config: RescoreConfig, decoding: Path, out: Path, exp: Path | None, data: Path | None) -> None:
    """Refuse what cannot be done before anything is loaded."""
    if decoding.resolve() == out.resolve():
        raise UserError(f"--out {out}: the lists there would be overwritten: give another folder than --in")
    for name, scorer in config.scorers.items():
        wanted = {"lm": {}, "prior": {"--exp": exp}}.get(scorer.type, {"--exp": exp, "--data": data})
        for flag, given in wanted.items():
            if given is None:
                raise UserError(f"scorers.{name}: type {scorer.type} wants {flag}, which is not given")


def _model(config: RescoreConfig, exp: Path | None, device: torch.device, stack: ExitStack) -> SpeechLLM | None:
    """The model, if a scorer wants it; weights are laid out for the CPU as long as `stack` lasts."""
    if exp is None or all(scorer.type == "lm" for scorer in config.scorers.values()):
        return None
    model = Experiment(exp).model().to(device)
    stack.enter_context(packed(model))
    return model


def _rescorers(
    config: RescoreConfig, exp: Path | None, model: SpeechLLM | None, device: torch.device, stack: ExitStack
) -> dict[str, Rescorer]:
    """What gives each component."""
    rescorers: dict[str, Rescorer] = {}
    for name, scorer in config.scorers.items():
        match scorer:
            case LmConfig():
                lm = load_text_lm(scorer, device)
                stack.enter_context(packed(lm.llm))
                with torch.inference_mode():
                    rescorers[name] = LmRescorer(lm)
            case SpeechLlmConfig():
                assert model is not None
                if model.llm is None:
                    raise UserError(f"scorers.{name}: {exp}: its model has no LLM: name an experiment that has one")
                if model.cross is not None:
                    raise UserError(
                        f"scorers.{name}: {exp}: its LLM hears the audio by cross-attention, which rescoring does not "
                        "know: name an experiment that has it in the prefix, or search with it"
                    )
                rescorers[name] = SpeechLlmRescorer(model, model.llm_tokenizer.encode_transcript)
            case CtcConfig():
                assert model is not None
                rescorers[name] = CtcRescorer(model, model.ctc_tokenizer)
            case PriorConfig():
                assert model is not None and exp is not None
                log_prior = read_prior(exp / PRIOR_FILE, model.ctc_tokenizer.size)
                rescorers[name] = PriorRescorer(model.ctc_tokenizer, log_prior)
    return rescorers


def _batches(
    config: RescoreConfig, lists: dict[str, NBest], data: Path | None
) -> Iterator[tuple[list[NBest], Batch | None]]:
    """The lists, with their audio where a scorer wants it."""
    if not any(isinstance(scorer, SpeechLlmConfig | CtcConfig) for scorer in config.scorers.values()):
        yield from (([nbest], None) for nbest in lists.values())
        return
    assert data is not None
    utterances = {each.utt_id: each for each in kaldi.read(data)}
    if missing := [utt_id for utt_id in lists if utt_id not in utterances]:
        raise UserError(f"{data}: {len(missing)} utterances of the decoding are not in it, such as {missing[0]}")
    dataset = Dataset([utterances[utt_id] for utt_id in lists], SAMPLE_RATE)
    for batch in batches(dataset, sampler.plan_alike(dataset.seconds(0), config.batch_seconds)):
        yield [lists[utt_id] for utt_id in batch.utt_ids], batch


def _with_before(took: dict[str, float], decoding: Path) -> dict[str, float]:
    """Seconds of the rescoring and of the decoding before it together; what that counted stands in its lists."""
    before = [json.loads(path.read_text()) for path in decoding.glob("speed.*.json")]
    return {name: value + sum(each.get(name, 0.0) for each in before) for name, value in took.items()}


def _fingerprint(config: RescoreConfig, decoding: Path, exp: Path | None) -> str:
    """What lists were made from: the configuration, the lists before, the experiment."""
    files = [*sorted(decoding.glob("hyp.*.jsonl")), *([exp / "weights.safetensors", exp / PRIOR_FILE] if exp else [])]
    stamps = [(str(each), each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.is_file()]
    return hashlib.sha256(repr((config.model_dump_json(), stamps)).encode()).hexdigest()


if __name__ == "__main__":
    console.run(main)
