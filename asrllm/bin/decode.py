"""Stage 8: recognise a data directory with an experiment, or with a pretrained recogniser as it is."""

import argparse
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from asrllm import config as configs
from asrllm import console, dist
from asrllm.analysis.invariance import check_batch_invariance
from asrllm.api import recognise_all, recogniser
from asrllm.console import UserError, write_atomically
from asrllm.data import kaldi
from asrllm.decode import guards
from asrllm.decode.decoder import DecodeConfig
from asrllm.decode.fusion import FusionConfig
from asrllm.decode.joint import JointConfig
from asrllm.decode.prior import PRIOR_FILE
from asrllm.decode.speed import clock, speed
from asrllm.hypothesis import shard_name, write_shard

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
    parse.add_argument(
        "--check_batch_invariance",
        type=int,
        default=0,
        metavar="N",
        help="instead of decoding: recognise N utterances alone and in batches of 7 and 32, and name those that differ",
    )
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
    if args.check_batch_invariance:
        with recogniser(config, args.exp, device) as recognise:
            worst = check_batch_invariance(utterances[: args.check_batch_invariance], recognise)
        log.info("alone and in shuffled batches: the same texts, scores within %.1e of themselves", worst)
        return
    made_from = _fingerprint(config, args.exp, utterances)
    if out.is_file() and speed_file.is_file() and json.loads(speed_file.read_text()).get("made_from") == made_from:
        log.info("%s: decoded before, nothing to do", out)
        return
    with recogniser(config, args.exp, device) as recognise, clock() as took:
        results = recognise_all(utterances, recognise, config.batch_seconds)
    figures = speed(results, took, device)
    write_shard(results, out)
    with write_atomically(speed_file) as temporary:
        temporary.write_text(json.dumps(figures | {"made_from": made_from}) + "\n")
    for other in set(args.out.glob("hyp.*.jsonl")) | set(args.out.glob("speed.*.json")):
        if not other.name.split(".")[1].endswith(f"of{jobs}"):
            other.unlink(missing_ok=True)  # of a decoding in another number of jobs
    seconds, wall = sum(result.seconds for result in results), took["seconds_wall"]
    factor = wall / seconds if seconds else 0.0  # more jobs than utterances leave some of them without any
    log.info("%d utterances, %.1f s of audio in %.1f s: real-time factor %.3f", len(results), seconds, wall, factor)
    for name, said in guards.SAID.items():
        if name in figures:
            log.warning("%s of %d utterances: %s", figures[name], len(results), said)


def _shard(text: str) -> tuple[int, int]:
    job, slash, jobs = text.partition("/")
    if not (slash and job.isdigit() and jobs.isdigit() and 1 <= int(job) <= int(jobs)):
        raise UserError(f"--shard {text}: expected K/N with 1 <= K <= N, such as 1/4")
    return int(job), int(jobs)


def _fingerprint(config: DecodeConfig, exp: Path, utterances: Sequence[kaldi.Utterance]) -> str:
    """What a shard was decoded with and from: the search, the weights, the audio."""
    files = [exp / "weights.safetensors", *([exp / PRIOR_FILE] if _wants_prior(config) else [])]
    if isinstance(config.search, JointConfig) and config.search.hotwords is not None:
        files.append(Path(config.search.hotwords))
    if isinstance(config.search, JointConfig) and config.search.lexicon is not None:
        files.append(Path(config.search.lexicon))
    if isinstance(config.search, FusionConfig) and config.search.look_ahead is not None:
        files.append(Path(config.search.look_ahead.arpa))
    if config.hotword_prompt is not None:
        files.append(Path(config.hotword_prompt.file))
    stamps = [(each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.is_file()]
    whole = repr((config.model_dump_json(), stamps, [(each.utt_id, each.source, each.seconds) for each in utterances]))
    return hashlib.sha256(whole.encode()).hexdigest()


def _wants_prior(config: DecodeConfig) -> bool:
    return isinstance(config.search, FusionConfig | JointConfig) and bool(config.search.weights.prior)


if __name__ == "__main__":
    console.run(main)
