"""Speech that a tiny model learns in seconds: five words, each a tone; and a random LLM of two layers.

The fixtures `recipe` and `work` of conftest.py hold what `make` makes here.
"""

import hashlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from asrllm import console
from asrllm.bin import check_data, decode, report, score, train, train_tokenizer
from asrllm.data import kaldi

HERTZ = {"red": 500, "green": 900, "blue": 1500, "white": 2400, "black": 3800}
SAMPLE_RATE = 16000
ENCODER = """
model:
  encoder: {type: conformer, frontend: {mels: 40, specaugment: null}, subsampling: 4, subsampling_channels: 8,
            layers: 1, dim: 32, heads: 2, feed_forward: 64, kernel: 7, dropout: 0.0}
data: {batch: {max_utterances: 12}}
train: {precision: fp32, keep_checkpoints: 1, average_best: 1, log_every_steps: 10,
        valid_every_steps: 50, checkpoint_every_steps: 10, snapshot_every_steps: 40}
stage:
  phases:
    - {steps: 200, train: {encoder: 5.0e-3, ctc: 5.0e-3}, losses: {ctc: 1.0}, warmup_steps: 10, schedule: cosine}
"""
ALIGN = """
base: train_encoder.yaml
model:
  projector: {type: PROJECTOR, hidden: 32}
  llm: {model: llm}
  prompt: {template: "<speech>"}
data: {cache_frames: true}
train: {snapshot_every_steps: null}
stage:
  init: {encoder: exp/train_encoder, ctc: exp/train_encoder}
  phases:
    - {steps: 20, train: {projector: 1.0e-3}, losses: {llm: 1.0}}
"""
JOINT = """
base: train_align_posterior.yaml
stage:
  init: {encoder: exp/train_encoder, ctc: exp/train_encoder, projector: exp/train_align_posterior}
  phases:
    - {steps: 150, train: {projector: 1.0e-3, llm: 5.0e-3}, losses: {llm: 1.0}, warmup_steps: 10, schedule: cosine}
"""
IASFT = """
base: train_align_posterior.yaml
model: {llm: {lora: {rank: 4}}}
data: {cache_frames: false}
stage:
  phases:
    - steps: 4
      train: {projector: 1.0e-3}
      losses: {llm: 1.0}
      encoder_swaps: {pretraining: exp/train_encoder, shares: [1, 0, 0], cka: {utterances: 3}}
    - steps: 8
      train: {projector: 1.0e-3, llm.lora: 1.0e-3}
      losses: {llm: 1.0}
      encoder_swaps: {pretraining: exp/train_encoder, cka: {utterances: 3}}
"""
FILES = {
    "tokenizer": "tokenizer: {type: llm_subset, llm: llm}\n",
    "train_encoder": ENCODER,
    "train_align_posterior": ALIGN.replace("PROJECTOR", "posterior"),
    "train_align_linear": ALIGN.replace("PROJECTOR", "linear"),
    "train_joint": JOINT,
    "train_iasft": IASFT,  # not one of TRAININGS
    "decode_ctc": "search: {type: ctc_greedy}\n",
    "decode_greedy": "search: {type: beam, beam: 1}\n",
    "decode_beam": "search: {type: beam, beam: 3, nbest: 2}\n",
    "score": "units: [word]\n",
}
TRAININGS = ("train_encoder", "train_align_posterior", "train_align_linear", "train_joint")
SEARCHES = ("decode_ctc", "decode_greedy", "decode_beam")


def write_data(folder: Path, name: str, count: int, seed: int) -> None:
    """A Kaldi directory of `count` utterances of two to four words."""
    draw = np.random.default_rng(seed)
    wavs = folder / "wav"
    wavs.mkdir(parents=True, exist_ok=True)
    utterances = []
    for number in range(count):
        words = [str(word) for word in draw.choice(list(HERTZ), draw.integers(2, 5))]
        pieces = [np.zeros(800)]
        for word in words:
            seconds = np.arange(4000) / SAMPLE_RATE
            pieces += [0.3 * np.sin(2 * np.pi * HERTZ[word] * seconds) * np.hanning(4000), np.zeros(1600)]
        wave = np.concatenate(pieces)
        utt_id = f"s{number % 2}-{name}{number:02}"
        path = wavs / f"{utt_id}.wav"
        soundfile.write(path, wave + 0.003 * draw.standard_normal(len(wave)), SAMPLE_RATE)
        utterances.append(kaldi.Utterance(utt_id, utt_id[:2], " ".join(words), str(path)))
    kaldi.write(utterances, folder / name)


def write_llm(folder: Path) -> None:
    """A random Llama of two layers with a byte-level BPE tokenizer, in transformers' form."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    core.train_from_iterator([" " + " ".join(HERTZ)] * 5, trainer)
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>").save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = LlamaConfig(vocab_size=core.get_vocab_size(), **size, bos_token_id=0, eos_token_id=0)
    LlamaForCausalLM(settings).save_pretrained(folder)


def train_options(name: str, exp: str | None = None) -> list[str]:
    """The command line of a training."""
    data = "--train_data dump/train --valid_data dump/dev --tokenizer exp/tokenizer"
    return f"--config conf/{name}.yaml --exp {exp or f'exp/{name}'} {data}".split()


def decode_options(search: str, exp: str, out: str | None = None) -> list[str]:
    """The command line of a decoding of the test set."""
    return f"--config conf/{search}.yaml --exp {exp} --data dump/test --out {out or f'{exp}/{search}/test'}".split()


def run_chain() -> None:
    """Stages 2 to 10 in the working directory; what is done already is done quickly."""
    for name in ("train", "dev", "test"):
        check_data.main([f"data/{name}", "--format", f"dump/{name}"])
    train_tokenizer.main(["--config", "conf/tokenizer.yaml", "--text", "dump/train/text", "--out", "exp/tokenizer"])
    for name in TRAININGS:
        train.main(train_options(name))
    for exp in TRAININGS:
        for search in SEARCHES[: 1 if exp == "train_encoder" else 3]:
            decode.main(decode_options(search, f"exp/{exp}"))
            folder = f"exp/{exp}/{search}/test"
            score.main(f"--config conf/score.yaml --ref dump/test --hyp {folder}".split())
    report.main(["--exp", "exp", "--out", "RESULTS.md", "--command", "./run.sh"])


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in another directory, as a recipe does."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make(folder: Path) -> None:
    """A recipe's folder after a whole run; paths in it are relative, so that a copy works as well."""
    (folder / "conf").mkdir()
    for name, text in FILES.items():
        (folder / "conf" / f"{name}.yaml").write_text(text)
    write_llm(folder / "llm")
    logging.getLogger("asrllm").setLevel(logging.INFO)
    with inside(folder):
        for seed, (name, count) in enumerate({"train": 48, "dev": 4, "test": 12}.items()):
            write_data(Path("data"), name, count, seed)
        run_chain()


def rewrite(path: str, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of a file."""
    lines = Path(path).read_text().splitlines(keepends=True)
    Path(path).write_text("".join(change(lines)))


def refused(capsys: pytest.CaptureFixture[str], program: str, options: list[str], code: int = 1) -> tuple[str, str]:
    """What a program says on stderr and on stdout when it must refuse.

    It says one sentence (a faulty YAML: one more line for each fault) and leaves the files below the working directory
    as they are; an empty folder is nothing half-written.
    """
    main = importlib.import_module(f"asrllm.bin.{program}").main
    before = tree(Path.cwd())
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        console.run(lambda: main(options))
    said = capsys.readouterr()
    assert end.value.code == code, said.err
    assert "Traceback" not in said.err
    if code == 1:
        first, *others = said.err.splitlines()
        assert ": error: " in first and all(line.startswith("  ") for line in others), said.err
    assert tree(Path.cwd()) == before
    return said.err, said.out


def tree(folder: Path) -> dict[str, str]:
    """Every file below `folder`: path -> hash of what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
