"""How long a training takes to know its first batch where the corpus has ten million utterances, and how much memory.

    python benchmark/startup.py [--utterances 10000000] [--folder /tmp/large]

Makes the tables of a formatted directory (the audio itself is never opened), indexes them, and starts twice, each time
in a process of its own: the first start counts the labels of all transcripts and keeps the counts, the second reads
them, as every later one does. Seconds are those since the process began, memory is its peak resident set; where other
work shares the machine, seconds of the processor say more than those of the clock. Draws of
noise and of examples without speech, which need a random generator for each utterance, are not part of it.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SPEAKERS = 1000
SENTENCE = "she took the letter from his hand and read it twice before anyone in the room could say a word "
AT_ONCE = 100_000
CONFIG = {
    "model": {"encoder": {"type": "conformer", "layers": 1, "dim": 64}},
    "data": {"speed_factors": [0.9, 1.0, 1.1]},
    "stage": {"phases": [{"epochs": 1, "train": {"encoder": 1e-3, "ctc": 1e-3}, "losses": {"ctc": 1.0}}]},
}


def make(folder: Path, count: int) -> None:
    """Tables of `count` utterances of 1 to 17 s, 14 letters a second, as stage 2 writes them."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    sentence = 3 * SENTENCE
    offset = 0
    with (
        (folder / "wav.scp").open("w") as sources,
        (folder / "utt2spk").open("w") as speakers,
        (folder / "text").open("w") as texts,
        (folder / "utt2dur").open("w") as durations,
    ):
        for first in range(0, count, AT_ONCE):
            seconds = draw.normal(11, 4, min(AT_ONCE, count - first)).clip(1, 17).round(2).tolist()
            utt_ids = [f"s{n * SPEAKERS // count:03}-{n:08}" for n in range(first, first + len(seconds))]
            ends = np.cumsum([32000 * each for each in seconds]).astype(np.int64)
            offsets = (offset + np.concatenate([[0], ends[:-1]]) + 60).tolist()
            offset += int(ends[-1])
            sources.writelines(f"{u} dump/train/audio.ark:{o}\n" for u, o in zip(utt_ids, offsets, strict=True))
            speakers.writelines(f"{u} {u[:4]}\n" for u in utt_ids)
            texts.writelines(f"{u} {sentence[: int(14 * s)].strip()}\n" for u, s in zip(utt_ids, seconds, strict=True))
            durations.writelines(f"{u} {s:.6f}\n" for u, s in zip(utt_ids, seconds, strict=True))


def start(folder: Path) -> None:
    """What a training does until it can ask for its first batch, the model's weights apart."""
    from asrllm.config import parse
    from asrllm.experiment import ExperimentConfig, Loader, new_model, open_corpus

    config = parse(CONFIG, ExperimentConfig, "startup")
    units = folder / "tokenizer"
    model = new_model(config, units)
    tell("programs and model are there")
    corpus = open_corpus(folder / "train", config, model, units, training=True, keep=True)
    tell(f"{len(corpus.dataset)} utterances are known")
    loader = Loader(corpus, config.train.seed)
    tell(f"the plan has {loader.count(0)} batches")
    plan = corpus.plan(0, config.train.seed)
    outline = corpus.dataset.outline(plan[0], 0)
    padding = plan.padding_share(corpus.dataset.seconds(0))
    print(
        f"the first holds {len(outline)} utterances, {outline.utt_ids[0]} among them; {padding:.1%} of all is padding"
    )


def tell(what: str) -> None:
    """Print how long it took and what memory it took."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    gigabytes = int(peak.split()[1]) * 1024 / 1e9  # getrusage would tell that of the parent process where it was more
    print(f"{time.time() - BEGIN:6.1f} s {time.process_time():6.1f} s {gigabytes:6.2f} GB  {what}", flush=True)


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--utterances", type=int, default=10_000_000, help="how many (10 million)")
    options.add_argument(
        "--folder", type=Path, help="where to make the directory, or where it lies; none: a temporary one"
    )
    options.add_argument("--start", action="store_true", help="start once, in this process")
    return options


def main() -> None:
    """Make the directory, start twice."""
    options = parser().parse_args()
    if options.start:
        start(options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "train").is_dir():
            prepare(folder, options.utterances)
        print("   wall processor   memory")
        for _ in range(2):
            subprocess.run([sys.executable, __file__, "--start", "--folder", str(folder)], check=True)


def prepare(folder: Path, count: int) -> None:
    """The formatted directory with its index, and character units."""
    from asrllm.data import index
    from asrllm.text import tokenizer_training as training

    make(folder / "train", count)
    begin = time.perf_counter()
    index.write(folder / "train")
    print(f"{count} utterances indexed in {time.perf_counter() - begin:.1f} s, once, when the data are formatted")
    training.train(training.CharacterConfig(type="character"), [SENTENCE.strip()], folder / "tokenizer")


BEGIN = time.time()
if __name__ == "__main__":
    main()
