"""Stage 8: recognise a data directory with an experiment, or with a pretrained recogniser as it is."""

import argparse
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from asrllm import config as configs
from asrllm import console, dist
from asrllm.analysis.invariance import check_batch_invariance
from asrllm.batch import Batch
from asrllm.console import UserError, write_atomically
from asrllm.data import kaldi, sampler
from asrllm.data.dataset import Dataset, batches
from asrllm.decode import guards
from asrllm.decode.decoder import DecodeConfig, PretrainedConfig, decode, prepared
from asrllm.decode.fusion import FusionConfig, Pieces
from asrllm.decode.hotword_prompt import HotwordPrompt
from asrllm.decode.hotwords import HotwordTree
from asrllm.decode.joint import Companions, JointConfig
from asrllm.decode.prior import PRIOR_FILE, read_prior
from asrllm.decode.scorer import Opening
from asrllm.decode.speculative import SpeculativeConfig
from asrllm.decode.text_lm import TextLm, TextLmConfig, text_lm
from asrllm.experiment import Experiment
from asrllm.hypothesis import Hypothesis, NBest, shard_name, write_shard
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.llm import LlmConfig, load_llm
from asrllm.models.speech_llm import SpeechLLM
from asrllm.models.zero_shot import ZeroShotRecogniser
from asrllm.text.hotwords import check_hotwords, read_hotwords
from asrllm.text.lexicon import Lexicon, read_lexicon
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.phonemes import PhonemeTokenizer

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
        with _recogniser(config, args.exp, device) as recognise:
            worst = check_batch_invariance(utterances[: args.check_batch_invariance], recognise)
        log.info("alone and in shuffled batches: the same texts, scores within %.1e of themselves", worst)
        return
    made_from = _fingerprint(config, args.exp, utterances)
    if out.is_file() and speed_file.is_file() and json.loads(speed_file.read_text()).get("made_from") == made_from:
        log.info("%s: decoded before, nothing to do", out)
        return
    with _recogniser(config, args.exp, device) as recognise:
        begin, used = time.perf_counter(), time.process_time()
        results = _decode(utterances, recognise, config.batch_seconds)
        wall, processor = time.perf_counter() - begin, time.process_time() - used
    seconds = sum(result.seconds for result in results)
    speed = {
        "seconds_audio": seconds,
        "seconds_wall": wall,
        "seconds_processor": processor,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    speed |= sum((Counter(result.counts) for result in results), Counter())
    write_shard(results, out)
    with write_atomically(speed_file) as temporary:
        temporary.write_text(json.dumps(speed | {"made_from": made_from}) + "\n")
    for other in set(args.out.glob("hyp.*.jsonl")) | set(args.out.glob("speed.*.json")):
        if not other.name.split(".")[1].endswith(f"of{jobs}"):
            other.unlink(missing_ok=True)  # of a decoding in another number of jobs
    factor = wall / seconds if seconds else 0.0  # more jobs than utterances leave some of them without any
    log.info("%d utterances, %.1f s of audio in %.1f s: real-time factor %.3f", len(results), seconds, wall, factor)
    for name, said in guards.SAID.items():
        if name in speed:
            log.warning("%s of %d utterances: %s", speed[name], len(results), said)


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
    if config.hotword_prompt is not None:
        files.append(Path(config.hotword_prompt.file))
    stamps = [(each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.is_file()]
    whole = repr((config.model_dump_json(), stamps, [(each.utt_id, each.source, each.seconds) for each in utterances]))
    return hashlib.sha256(whole.encode()).hexdigest()


def _wants_prior(config: DecodeConfig) -> bool:
    return isinstance(config.search, FusionConfig | JointConfig) and bool(config.search.weights.prior)


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
        experiment, search = Experiment(exp), config.search
        if isinstance(search, JointConfig | SpeculativeConfig) and experiment.config.model.llm is None:
            raise UserError(f"{exp}: its model has no LLM: decode it with search.type ctc_greedy")
        model = experiment.model().to(device)
        if isinstance(model.ctc_tokenizer, PhonemeTokenizer) and isinstance(search, FusionConfig | SpeculativeConfig):
            raise UserError(
                f"{exp}: its CTC units are phonemes, of which search.type {search.type} can make no words without a "
                "lexicon: choose ctc_greedy or ctc_prefix"
            )
        if isinstance(model.ctc_tokenizer, PhonemeTokenizer) and config.guards.ctc_agreement is not None:
            raise UserError(f"{exp}: its CTC units are phonemes, which guards.ctc_agreement cannot write: leave it out")
        joint = _companions(config, experiment, model)
        pieces = _pieces(search, experiment, model, device) if isinstance(search, FusionConfig) else None
        with ExitStack() as stack:
            for part in (model, joint.lm, pieces.lm.llm if pieces else None):
                if part is not None:
                    stack.enter_context(prepared(part.to(device), config))
            shared = None if joint.hotword_prompt is None else model.prompt_line
            opening = Opening(model.llm, model.before(), shared) if model.llm is not None else None
            yield lambda batch: decode(model, batch.to(device), config, SAMPLE_RATE, joint, pieces, opening)


def _pieces(config: FusionConfig, experiment: Experiment, model: SpeechLLM, device: torch.device) -> Pieces:
    """What fuses the units of the model with the LM that the search names."""
    units = model.ctc_tokenizer
    log_prior = read_prior(experiment.folder / PRIOR_FILE, units.size) if config.weights.prior else None
    return Pieces(units, load_text_lm(config.lm, device), config, log_prior)


def load_text_lm(config: TextLmConfig, device: torch.device) -> TextLm:
    """The LM of a configuration."""
    llm = load_llm(LlmConfig(model=config.model, dtype=config.dtype)).to(device)
    return text_lm(config, llm, LlmTokenizer(config.model))


def _companions(config: DecodeConfig, experiment: Experiment, model: SpeechLLM) -> Companions:
    """What a search of the LLM takes from elsewhere: an LM over its tokens, the label prior, hotwords."""
    search, prompt = config.search, _hotword_prompt(config, model)
    if not isinstance(search, JointConfig):
        return Companions(hotword_prompt=prompt)
    wanted = search.weights.prior is not None
    log_prior = read_prior(experiment.folder / PRIOR_FILE, model.ctc_tokenizer.size) if wanted else None
    return Companions(_lm(search, model), log_prior, _hotwords(search, model), prompt, _lexicon(search, model))


def _lm(config: JointConfig, model: SpeechLLM) -> torch.nn.Module | None:
    if config.lm is None:
        return None
    if not LlmTokenizer(config.lm).same_vocabulary(model.llm_tokenizer):
        raise UserError(f"{config.lm}: other tokens than those of the model's LLM: joint decoding needs one vocabulary")
    return load_llm(LlmConfig(model=config.lm))


def _lexicon(config: JointConfig, model: SpeechLLM) -> Lexicon | None:
    """How words are pronounced in the units of the CTC head."""
    units = model.ctc_tokenizer
    if config.lexicon is None:
        return None
    if not isinstance(units, PhonemeTokenizer):
        raise UserError(f"search.lexicon is {config.lexicon}, but the CTC units are no phonemes: leave it out")
    return Lexicon(units) if config.lexicon == "dictionary" else read_lexicon(Path(config.lexicon), units)


def _hotwords(config: JointConfig, model: SpeechLLM) -> HotwordTree | None:
    """The phrases that the search favours, over the tokens of the model's LLM."""
    if config.hotwords is None:
        return None
    phrases, tokens = read_hotwords(Path(config.hotwords)), model.llm_tokenizer
    check_hotwords(phrases, tokens, model.ctc_tokenizer if config.weights.ctc is not None else None, config.hotwords)
    return HotwordTree(phrases, tokens.strings, model.llm.get_output_embeddings().weight.shape[0])


def _hotword_prompt(config: DecodeConfig, model: SpeechLLM) -> HotwordPrompt | None:
    """The phrases that the prompt may name."""
    if config.hotword_prompt is None:
        return None
    phrases = read_hotwords(Path(config.hotword_prompt.file))
    return HotwordPrompt(config.hotword_prompt, phrases, model.ctc_tokenizer, model.llm_tokenizer)


def _decode(
    utterances: Sequence[kaldi.Utterance], recognise: Callable[[Batch], list[NBest]], batch_seconds: float
) -> list[NBest]:
    """Results in the order of `utterances`; batches of like durations."""
    dataset = Dataset(utterances, SAMPLE_RATE)
    plan = sampler.plan_alike(dataset.seconds(0), batch_seconds)
    found: dict[str, NBest] = {}
    with console.progress("decoding", len(utterances), "utterances") as advance:
        for batch in batches(dataset, plan):
            found |= {result.utt_id: result for result in recognise(batch)}
            advance(len(batch), "")
    return [found[utterance.utt_id] for utterance in utterances]


if __name__ == "__main__":
    console.run(main)
