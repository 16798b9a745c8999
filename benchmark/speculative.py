"""Speculative decoding against greedy search on a recogniser of one's own, in one run.

    python benchmark/speculative.py --exp egs/mini/asr1/exp/train_align --data egs/mini/asr1/dump/dev

Run it from the folder of the recipe if the experiment names its LLM by a relative path. Times are of the search: frames
of the encoder are computed before; they are processor seconds, so that other work on the machine does not count. Both
searches must give the same texts; passes are interleaved, medians taken. 2 seconds at once are one utterance at a time.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other where cores are shared

import torch

from asrllm.batch import Batch
from asrllm.data import kaldi, sampler
from asrllm.data.dataset import Dataset, batches
from asrllm.decode.decoder import DecodeConfig, Decoder, prepared
from asrllm.decode.joint import JointConfig
from asrllm.decode.scorer import encoded
from asrllm.decode.speculative import SpeculativeConfig
from asrllm.experiment import Experiment
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.speech_llm import SpeechLLM


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--exp", type=Path, required=True, help="experiment with an LLM")
    options.add_argument("--data", type=Path, required=True, help="formatted data directory")
    options.add_argument("--batch_seconds", type=float, default=60.0, help="audio decoded at once (60)")
    options.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    options.add_argument("--repeats", type=int, default=3, help="repetitions of each search (3)")
    return options


@torch.inference_mode()
def heard(model: SpeechLLM, folder: Path, batch_seconds: float) -> list[Batch]:
    """The utterances of a data directory with their frames."""
    dataset = Dataset(kaldi.read(folder), SAMPLE_RATE)
    plan = sampler.plan_alike(dataset.seconds(0), batch_seconds)
    return [encoded(model, batch) for batch in batches(dataset, plan)]


def main() -> None:
    """Both searches over all batches, in turn."""
    args = parser().parse_args()
    torch.set_num_threads(args.threads)
    model = Experiment(args.exp).model()
    searches = {
        "greedy": DecodeConfig(search=JointConfig(beam=1)),
        "speculative": DecodeConfig(search=SpeculativeConfig()),
    }
    times: dict[str, list[float]] = {name: [] for name in searches}
    texts: dict[str, list[str]] = {}
    counts = {"llm_calls": 0, "draft_tokens": 0, "draft_accepted": 0}
    with prepared(model, searches["greedy"]):
        data = heard(model, args.data, args.batch_seconds)
        decoders = {name: Decoder(model, config) for name, config in searches.items()}
        for repeat in range(args.repeats):
            for name, decoder in decoders.items():
                begin = time.process_time()
                found = [result for batch in data for result in decoder.decode(batch)]
                times[name].append(time.process_time() - begin)
                texts[name] = [result.best.text for result in found]
                if name == "speculative" and repeat == 0:
                    counts = {key: sum(result.counts[key] for result in found) for key in counts}
    assert texts["greedy"] == texts["speculative"], "the searches differ"
    seconds = {name: statistics.median(each) for name, each in times.items()}
    utterances = len(texts["greedy"])
    print(f"{utterances} utterances, {args.threads} threads; the texts are equal")
    for name, each in seconds.items():
        print(f"{name}: {each:.2f} processor s, {utterances / each:.1f} utterances/s, {seconds['greedy'] / each:.2f}x")
    print(
        f"draft: {counts['draft_accepted'] / max(1, counts['draft_tokens']):.0%} of its tokens accepted, "
        f"{counts['llm_calls'] / utterances:.2f} LLM calls per utterance"
    )


if __name__ == "__main__":
    main()
