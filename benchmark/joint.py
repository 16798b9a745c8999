"""Joint CTC + LLM decoding against ESPnet's `CTCPrefixScoreTH` and `BatchBeamSearch`, in one run.

    pip download espnet --no-deps -d espnet && unzip -q espnet/*.whl -d espnet
    python benchmark/joint.py --espnet espnet --model downloads/smollm2-135m-instruct

`scores`: prefix scores alone, 64 rows, 20 candidates, 750 frames; a step scores all candidates and takes one.
`search`: joint beam search with an LLM, 16 utterances of 10 s (250 frames), beam 4. ESPnet decodes one utterance at a
time; its LLM here keeps the keys and values of each hypothesis, and the prefix was read before the clock starts.
`memory`: the most that a search of beam 8 over 64 utterances of 30 s holds, with a vocabulary of 150,000 and a linear
layer in the place of the LLM, in a process of its own. Repetitions are interleaved, medians are taken, of processor
seconds: with one thread they do not count what else runs on the machine.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other where cores are shared

import torch
from beam import load
from transformers import DynamicCache, PreTrainedModel

from asrllm.decode.beam import BeamConfig, beam_search
from asrllm.decode.ctc_prefix import CtcPrefix
from asrllm.decode.ctc_scorer import Chains, CtcScorer
from asrllm.decode.packed import packed
from asrllm.decode.scorer import LlmScorer

ROWS, CANDIDATES, FRAMES, LABELS, STEPS = 64, 20, 750, 5000, 5
UTTERANCES, BEAM, SECONDS, TOKENS, BEGIN, END = 16, 4, 10, 30, 1, 2
WEIGHTS = {"llm": 1.0, "ctc": 1.0}


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--espnet", type=Path, help="folder that holds the package espnet")
    options.add_argument("--model", type=Path, help="folder of a causal LM (random weights of SmolLM2-135M's shape)")
    options.add_argument("--parts", nargs="+", default=["scores", "search", "memory"], help="what to measure (all)")
    options.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    options.add_argument("--repeats", type=int, default=3, help="repetitions of each contender (3)")
    return options


def medians(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, Any]]:
    """Processor seconds of each and what it gave; the contenders take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    given: dict[str, Any] = {}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.process_time()
            given[name] = run()
            seconds[name].append(time.process_time() - start)
    return {name: (statistics.median(each), given[name]) for name, each in seconds.items()}


def peaked(utterances: int, frames: int, labels: int, said: int) -> torch.Tensor:
    """Log-posteriors (B, T, U) of a sharp CTC head that says so many random labels, at equal distances."""
    path = torch.zeros(utterances, frames, dtype=torch.long)
    places = torch.linspace(2, frames - 3, said).long()
    path[:, places] = torch.randint(END + 1, labels, (utterances, said))
    scores = torch.randn(utterances, frames, labels)
    return scores.scatter_add_(2, path[..., None], torch.full((utterances, frames, 1), 16.0)).log_softmax(-1)


@torch.inference_mode()
def scores(repeats: int) -> None:
    """Prefix scores alone: each row is an utterance of its own."""
    from espnet.nets.ctc_prefix_score import CTCPrefixScoreTH

    log_probs, lens = peaked(ROWS, FRAMES, LABELS, 90), torch.full((ROWS,), FRAMES)
    candidates = torch.stack([torch.randperm(LABELS - 2)[:CANDIDATES] + 1 for _ in range(ROWS * STEPS)])
    steps = candidates.view(STEPS, ROWS, CANDIDATES)
    theirs_impl, ours_impl = CTCPrefixScoreTH(log_probs, lens, 0, LABELS - 1), CtcPrefix(log_probs, lens)

    def theirs() -> list[torch.Tensor]:
        rows, state, found = torch.zeros(ROWS, 1, dtype=torch.long), None, []
        for tokens in steps:
            scored, after = theirs_impl(list(rows), state, tokens)
            found.append(scored.gather(1, tokens))
            state = theirs_impl.index_select_state(after, tokens[:, :1])
            rows = torch.cat([rows, tokens[:, :1]], 1)
        return found

    def ours() -> list[torch.Tensor]:
        state, found = ours_impl.start(), []
        for tokens in steps:
            found.append(ours_impl.log_prefix(state, tokens) - state.log_prefix[:, None])
            state = ours_impl.append(state, tokens[:, 0])
        return found

    timed = medians({"espnet": theirs, "asrllm": ours}, repeats)
    worst = max((a - b).abs().max().item() for a, b in zip(timed["espnet"][1], timed["asrllm"][1], strict=True))
    print(f"\nPrefix scores: {ROWS} rows, {CANDIDATES} candidates, {FRAMES} frames, {LABELS} labels; a step, median\n")
    print("| ESPnet, ms | asrllm, ms | ratio | largest difference |\n|---|---|---|---|")
    one, other = (1000 * timed[name][0] / STEPS for name in ("espnet", "asrllm"))
    print(f"| {one:.0f} | {other:.1f} | {one / other:.1f}x | {worst:.1e} (float32 there, float64 here) |")


def reference(
    llm: PreTrainedModel, embeds: torch.Tensor, log_probs: torch.Tensor
) -> Callable[[], list[tuple[list[int], float]]]:
    """ESPnet's search of each utterance in turn; the prefixes are read now."""
    from espnet.nets.batch_beam_search import BatchBeamSearch
    from espnet.nets.scorer_interface import BatchScorerInterface
    from espnet.nets.scorers.ctc import CTCPrefixScorer

    class Llm(BatchScorerInterface):
        """Keys and values (layers, 2, heads, positions, size) are the state of a hypothesis."""

        def __init__(self, row: int) -> None:
            output = llm(inputs_embeds=embeds[row : row + 1], use_cache=True)
            self.first = output.logits[:, -1].log_softmax(-1)
            self.prefix = torch.stack(
                [torch.stack([layer.keys[0], layer.values[0]]) for layer in output.past_key_values.layers]
            )

        def batch_init_state(self, x: torch.Tensor) -> None:
            return None

        def batch_score(self, ys: torch.Tensor, states: list[Any], xs: torch.Tensor) -> tuple[torch.Tensor, list[Any]]:
            if ys.shape[1] == 1:
                return self.first, [self.prefix]
            cache = DynamicCache()
            for number, layer in enumerate(torch.stack(states, 2)):
                cache.update(layer[0], layer[1], number)
            logits = llm(input_ids=ys[:, -1:], past_key_values=cache, use_cache=True).logits[:, -1]
            after = torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers], 1)
            return logits.log_softmax(-1), list(after.transpose(0, 1).unbind(2))

    class Head(torch.nn.Module):
        """ESPnet's CTC has the units of the decoder: those without a label get no probability."""

        def log_softmax(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(x, (0, llm.config.vocab_size - LABELS), value=-1e10)

    searches = []
    for row in range(len(embeds)):
        scorers = {"llm": Llm(row), "ctc": CTCPrefixScorer(Head(), END)}
        vocabulary = llm.config.vocab_size
        options = {"pre_beam_score_key": "full", "pre_beam_ratio": CANDIDATES / BEAM}
        searches.append(BatchBeamSearch(scorers, WEIGHTS, BEAM, vocabulary, BEGIN, END, **options))

    def run() -> list[tuple[list[int], float]]:
        found = [search(x, maxlenratio=-TOKENS - 4)[0] for search, x in zip(searches, log_probs, strict=True)]
        return [(each.yseq.tolist()[1:-1], float(each.score)) for each in found]

    return run


@torch.inference_mode()
def search(llm: PreTrainedModel, repeats: int) -> None:
    """Joint beam search, and what the CTC score adds to a search by the LLM alone."""
    size = llm.config.vocab_size
    embeds = llm.get_input_embeddings()(torch.randint(3, size, (UTTERANCES, 40)))
    lens = torch.full((UTTERANCES,), 40)
    log_probs = peaked(UTTERANCES, 25 * SECONDS, LABELS, TOKENS)
    chains = Chains({token: [token] for token in range(1, LABELS) if token != END}, size, None)

    def ours(weights: dict[str, float], least: int) -> list[tuple[list[int], float]]:
        config = BeamConfig(beam=BEAM, candidates=CANDIDATES, length_exponent=0.0, min_tokens=least)
        scorers = {"llm": LlmScorer(llm, embeds, lens, TOKENS + 4)}
        raters = {}
        if "ctc" in weights:
            prefix = CtcPrefix(log_probs, torch.full((UTTERANCES,), 25 * SECONDS))
            raters["ctc"] = CtcScorer(prefix, chains, [END])
        found = beam_search(scorers, weights, [END], [TOKENS + 4] * UTTERANCES, config, raters)
        return [(pool[0].tokens, pool[0].score) for pool in found]

    with packed(llm):
        contenders = {
            "espnet": reference(llm, embeds, log_probs),
            "joint": lambda: ours(WEIGHTS, 0),
            "forced": lambda: ours(WEIGHTS, TOKENS),
            "alone": lambda: ours({"llm": 1.0}, TOKENS),
        }
        timed = medians(contenders, repeats)
    pairs = list(zip(timed["espnet"][1], timed["joint"][1], strict=True))
    same = [abs(one[1] - other[1]) for one, other in pairs if one[0] == other[0]]
    print(f"\nJoint search: beam {BEAM}, {UTTERANCES} utterances of {SECONDS} s, {CANDIDATES} candidates\n")
    print("| ESPnet, s | asrllm, s | ratio | same best hypothesis | largest difference of their scores |")
    print("|---|---|---|---|---|")
    one, other = timed["espnet"][0], timed["joint"][0]
    print(
        f"| {one:.1f} | {other:.2f} | {one / other:.1f}x | {len(same)} of {UTTERANCES} | {max(same, default=0):.1e} |"
    )
    one, other = timed["alone"][0], timed["forced"][0]
    print("\n| LLM alone, s | with CTC, s | slower by |\n|---|---|---|")
    print(f"| {one:.2f} | {other:.2f} | {100 * (other / one - 1):.0f} % |")


class Linear:
    """In the place of an LLM: random logits over a large vocabulary."""

    bounds = (-torch.inf, 0.0)

    def __init__(self, utterances: int, vocabulary: int) -> None:
        self.utterances = utterances
        self.tokens, self.head = torch.nn.Embedding(vocabulary, 16), torch.nn.Linear(16, vocabulary, bias=False)

    def start(self) -> tuple[torch.Tensor, None]:
        return self.score(torch.zeros(self.utterances, 1, dtype=torch.long), None)

    def score(self, tokens: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        return torch.log_softmax(self.head(self.tokens(tokens)), -1), None

    def select(self, state: None, rows: torch.Tensor) -> None:
        return None


@torch.inference_mode()
def peak(joint: bool) -> tuple[float, float]:
    """GiB of this process before a search and at its worst; `joint` with CTC."""
    utterances, beam, vocabulary, frames, labels = 64, 8, 150_000, 750, 2000
    llm = Linear(utterances, vocabulary)
    log_probs = torch.randn(utterances, frames, labels)
    chains = Chains({token: [token] for token in range(1, labels)}, vocabulary, None)
    begin = _most_gib()
    raters = {}
    if joint:
        prefix = CtcPrefix(log_probs.sub_(log_probs.logsumexp(-1, keepdim=True)), torch.full((utterances,), frames))
        raters["ctc"] = CtcScorer(prefix, chains, [0])
    config = BeamConfig(beam=beam, length_exponent=0.0, candidates=CANDIDATES, min_tokens=8)
    beam_search({"llm": llm}, WEIGHTS, [0], [8] * utterances, config, raters)
    return begin, _most_gib()


def _most_gib() -> float:
    """The most that this process ever held; rusage's figure would be the parent's."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def memory() -> None:
    """The peak of a large search, with what its parts should take."""
    print("\nMemory: 64 utterances of 30 s (750 frames, 2000 labels), beam 8, vocabulary 150,000; GiB\n")
    print("| search | before | peak | more |\n|---|---|---|---|")
    for name, joint in (("LLM alone", False), ("joint", True)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            before, most = pool.apply(peak, (joint,))
        print(f"| {name} | {before:.2f} | {most:.2f} | {most - before:.2f} |")
    print(f"\nScores of all tokens of all hypotheses in float32: {64 * 8 * 150_000 * 4 / 2**30:.2f}")


def main() -> None:
    """Print Markdown tables."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.espnet:
        sys.path.insert(0, str(options.espnet))
    if "scores" in options.parts:
        scores(options.repeats)
    if "search" in options.parts:
        search(load(options.model), options.repeats)
    if "memory" in options.parts:
        memory()


if __name__ == "__main__":
    main()
