"""Stage 8: recognise a data directory with an experiment, or with a pretrained recogniser as it is."""

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from asrllm import config as configs
from asrllm import console, dist
from asrllm.batch import Batch
from asrllm.console import UserError, write_atomically
from asrllm.data import kaldi, sampler
from asrllm.data.dataset import Dataset, batches
from asrllm.data.sampler import BatchConfig, Length
from asrllm.decode.decoder import DecodeConfig, PretrainedConfig, decode, prepared
from asrllm.decode.joint import JointConfig
from asrllm.experiment import Experiment
from asrllm.hypothesis import Hypothesis, NBest, shard_name, write_shard
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.llm import LlmConfig, load_llm
from asrllm.models.speech_llm import SpeechLLM
from asrllm.models.zero_shot import ZeroShotRecogniser
from asrllm.text.llm_tokenizer import LlmTokenizer

SCHEMA = DecodeConfig
log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="decode", description=__doc__, allow_abbrev=False)
    parse.add_argument("--config", type=Path, required=True, help="YAML of the search")
    parse.add_argument("--exp", type=Path, required=True, help="experiment; not read where search.type is pretrained")
    parse.add_argument("--data", type=Path, required=True, help="formatted data directory (stage 2)")
    parse.add_argument("--out", type=Path, required=True, help="folder for hyp.KofN.jsonl and speed.KofN.json")
    parse.add_argument("--shard", default="1/1", metavar="K/N", help="decode the K-th of N equal parts")
    parse.add_argument("--ngpu", type=int, default=0, help="GPUs that the jobs share; 0: the CPU")
    parse.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the YAML")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Decode one shard, unless it is there already."""
    args = parser().parse_args(argv)
    config = configs.load(args.config, SCHEMA, args.set)
    job, jobs = _shard(args.shard)
    device = dist.start(args.ngpu, (job - 1) % max(1, args.ngpu))
    out, speed_file = args.out / shard_name(job, jobs), args.out / f"speed.{job}of{jobs}.json"
    utterances = kaldi.read(args.data)[job - 1 :: jobs]
    made_from = _fingerprint(config, args.exp, utterances)
    if out.is_file() and speed_file.is_file() and json.loads(speed_file.read_text()).get("made_from") == made_from:
        log.info("%s: decoded before, nothing to do", out)
        return
    with _recogniser(config, args.exp, device) as recognise:
        begin = time.perf_counter()
        results = _decode(utterances, recognise, config.batch_seconds)
        wall = time.perf_counter() - begin
    seconds = sum(result.seconds for result in results)
    speed = {"seconds_audio": seconds, "seconds_wall": wall, "device": str(device), "threads": torch.get_num_threads()}
    write_shard(results, out)
    with write_atomically(speed_file) as temporary:
        temporary.write_text(json.dumps(speed | {"made_from": made_from}) + "\n")
    for other in set(args.out.glob("hyp.*.jsonl")) | set(args.out.glob("speed.*.json")):
        if not other.name.split(".")[1].endswith(f"of{jobs}"):
            other.unlink(missing_ok=True)  # of a decoding in another number of jobs
    cut = sum(not result.best.ended for result in results)
    factor = wall / seconds if seconds else 0.0  # more jobs than utterances leave some of them without any
    log.info("%d utterances, %.1f s of audio in %.1f s: real-time factor %.3f", len(results), seconds, wall, factor)
    if cut:
        log.warning("%d hypotheses reached the token limit without an end token", cut)


def _shard(text: str) -> tuple[int, int]:
    job, slash, jobs = text.partition("/")
    if not (slash and job.isdigit() and jobs.isdigit() and 1 <= int(job) <= int(jobs)):
        raise UserError(f"--shard {text}: expected K/N with 1 <= K <= N, such as 1/4")
    return int(job), int(jobs)


def _fingerprint(config: DecodeConfig, exp: Path, utterances: Sequence[kaldi.Utterance]) -> str:
    """What a shard was decoded with and from: the search, the weights, the audio."""
    weights = exp / "weights.safetensors"
    stamp = (weights.stat().st_size, weights.stat().st_mtime_ns) if weights.is_file() else ()
    whole = repr((config.model_dump_json(), stamp, [(each.utt_id, each.source, each.seconds) for each in utterances]))
    return hashlib.sha256(whole.encode()).hexdigest()


@contextmanager
def _recogniser(config: DecodeConfig, exp: Path, device: torch.device) -> Iterator[Callable[[Batch], list[NBest]]]:
    """What turns a batch into n-best lists."""
    if isinstance(config.search, PretrainedConfig):
        zero_shot = ZeroShotRecogniser(config.search.model)

        def transcribe(batch: Batch) -> list[NBest]:
            assert batch.waves is not None
            texts = zero_shot.transcribe(batch.waves, batch.wave_lens)
            lens = batch.wave_lens.tolist()
            return [
                NBest(utt_id, size / SAMPLE_RATE, [Hypothesis(text, 0.0)])
                for utt_id, size, text in zip(batch.utt_ids, lens, texts, strict=True)
            ]

        yield transcribe
    else:
        experiment = Experiment(exp)
        if isinstance(config.search, JointConfig) and experiment.config.model.llm is None:
            raise UserError(f"{exp}: its model has no LLM: decode it with search.type ctc_greedy")
        model = experiment.model().to(device)
        lm = _language_model(config.search.lm, model) if isinstance(config.search, JointConfig) else None
        with prepared(model, config), prepared(lm.to(device), config) if lm is not None else nullcontext():
            yield lambda batch: decode(model, batch.to(device), config, SAMPLE_RATE, lm)


def _language_model(name: str | None, model: SpeechLLM) -> Any:
    """The causal LM that a search names, over the tokens of the model's LLM."""
    if name is None:
        return None
    if not LlmTokenizer(name).same_vocabulary(model.llm_tokenizer):
        raise UserError(f"{name}: its tokens are not those of the model's LLM: joint decoding needs one vocabulary")
    return load_llm(LlmConfig(model=name))


def _decode(
    utterances: Sequence[kaldi.Utterance], recognise: Callable[[Batch], list[NBest]], batch_seconds: float
) -> list[NBest]:
    """Results in the order of `utterances`; batches of like durations."""
    dataset = Dataset(utterances, SAMPLE_RATE)
    lengths = [Length(seconds, 0) for seconds in dataset.seconds(0)]
    limits = BatchConfig(max_seconds=batch_seconds, jitter=0.0)
    plan = sampler.plan(lengths, limits, 0, 0)
    found: dict[str, NBest] = {}
    with console.progress("decoding", len(utterances), "utterances") as advance:
        for batch in batches(dataset, plan):
            found |= {result.utt_id: result for result in recognise(batch)}
            advance(len(batch), "")
    return [found[utterance.utt_id] for utterance in utterances]


if __name__ == "__main__":
    console.run(main)
