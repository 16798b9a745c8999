"""CTC prefix beam search against flashlight-text; LM scores of n-best lists against a padded batch of transformers.

    python benchmark/fusion.py --model downloads/smollm2-135m-instruct --lists exp/train_encoder/decode_ctc_prefix/dev

Search: random posteriors that are as peaked as a trained model's, all frames and labels real. Lists: the texts of a
decoding; each utterance's lists are one padded batch for transformers, one tree for asrllm. Contenders are interleaved
and the median is taken. Without --model or --lists that part is left out; so is flashlight-text where it is missing.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other where cores are shared

import torch
from transformers import AutoModelForCausalLM

from asrllm.decode.ctc_search import CtcPrefixConfig, prefix_beam_search
from asrllm.decode.packed import packed
from asrllm.decode.rescore import LmRescorer
from asrllm.decode.text_lm import TextLm
from asrllm.hypothesis import read_decoding
from asrllm.text.llm_tokenizer import LlmTokenizer

UTTERANCES, FRAMES, UNITS = 32, 250, 500


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, help="folder of a causal LM")
    options.add_argument("--lists", type=Path, help="folder of a decoding with n-best lists")
    options.add_argument("--beams", type=int, nargs="+", default=[4, 16, 64], help="prefixes (4 16 64)")
    options.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    options.add_argument("--repeats", type=int, default=3, help="repetitions of each contender (3)")
    return options


def medians(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def posteriors() -> torch.Tensor:
    """(B, T, V): every fifth frame a label, the others blanks, none of it sure."""
    logits = 2.0 * torch.randn(UTTERANCES, FRAMES, UNITS)
    logits[..., 0] += 11.0
    labels = torch.randint(1, UNITS, (UTTERANCES, FRAMES // 5, 1))
    logits[:, ::5].scatter_add_(2, labels, torch.full(labels.shape, 18.0))
    return torch.log_softmax(logits, 2)


def search(options: argparse.Namespace) -> None:
    """Print the table of the search."""
    try:
        from flashlight.lib.text import decoder
    except ImportError:
        decoder = None
    log_probs, lens = posteriors(), torch.full((UTTERANCES,), FRAMES)
    print(f"CTC prefix beam, {UTTERANCES} x {FRAMES} frames, {UNITS} units, 16 labels a frame; frames per second\n")
    print("| beam | flashlight-text | asrllm, one by one | asrllm, one batch |")
    print("|---|---|---|---|")
    for beam in options.beams:
        config = CtcPrefixConfig(beam=beam, labels_per_frame=16)

        def alone(config: CtcPrefixConfig = config) -> None:
            for row in log_probs:
                prefix_beam_search(row[None], lens[:1], config)

        contenders = {"batch": lambda: prefix_beam_search(log_probs, lens, config), "alone": alone}  # noqa: B023
        if decoder is not None:
            settings = decoder.LexiconFreeDecoderOptions(beam, 16, 1e9, 0.0, 0.0, True, decoder.CriterionType.CTC)

            def theirs(settings: Any = settings) -> None:
                peer = decoder.LexiconFreeDecoder(settings, decoder.ZeroLM(), -1, 0, [])
                for row in log_probs:
                    peer.decode(row.data_ptr(), FRAMES, UNITS)

            contenders["theirs"] = theirs
        seconds = medians(contenders, options.repeats)
        rates = {name: UTTERANCES * FRAMES / each for name, each in seconds.items()}
        peer = rates.get("theirs")
        ratio = f" ({rates['batch'] / peer:.1f}x)" if peer else ""
        print(f"| {beam} | {peer or 0:.0f} | {rates['alone']:.0f} | {rates['batch']:.0f}{ratio} |", flush=True)


@torch.inference_mode()
def padded(llm: Any, rows: list[list[int]], context: list[int]) -> list[float]:
    """Log-probabilities of token rows after a context, as one padded batch."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(context + row) for row in rows], batch_first=True)
    log_probs = torch.log_softmax(llm(ids).logits[:, len(context) - 1 : -1].float(), 2)
    steps = log_probs.gather(2, ids[:, len(context) :, None])[..., 0]
    return [float(step[: len(row)].sum()) for step, row in zip(steps, rows, strict=True)]


def lists(options: argparse.Namespace) -> None:
    """Print the table of the scoring of lists."""
    llm = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    tokenizer = LlmTokenizer(str(options.model))
    lm = TextLm(llm, tokenizer, [tokenizer.end_id], tokenizer.end_id)
    texts = [
        [each.text for each in nbest.hypotheses] for nbest in list(read_decoding(options.lists).values())[:UTTERANCES]
    ]
    found: dict[str, list[list[float]]] = {}

    def ours() -> None:
        with torch.inference_mode():
            found["ours"] = [each.scores for each in LmRescorer(lm).rate(texts, None)]

    def theirs() -> None:
        found["theirs"] = [
            padded(llm, [[*lm.tokens(text), lm.end] for text in group], list(lm.context)) for group in texts
        ]

    with packed(llm):
        seconds = medians({"theirs": theirs, "ours": ours}, options.repeats)
    pairs = zip(sum(found["ours"], []), sum(found["theirs"], []), strict=True)
    largest = max(abs(one - other) for one, other in pairs)
    rates = {name: len(texts) / each for name, each in seconds.items()}
    print(
        f"\nLM scores of {sum(map(len, texts))} texts of {len(texts)} utterances, packed weights; utterances a second\n"
    )
    print("| padded batch | asrllm, tree | largest difference of a score |")
    print("|---|---|---|")
    print(f"| {rates['theirs']:.1f} | {rates['ours']:.1f} ({rates['ours'] / rates['theirs']:.1f}x) | {largest:.0e} |")


def main() -> None:
    """Print Markdown tables."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    search(options)
    if options.model and options.lists:
        lists(options)


if __name__ == "__main__":
    main()
