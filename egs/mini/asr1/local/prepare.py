"""Stage 1: write Kaldi directories data/{train,dev,test} from the shipped corpus/, and see that the LLM is there."""

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from asrllm.console import UserError, run, write_atomically

RECIPE = Path(__file__).resolve().parents[1]
CHECKOUT = RECIPE.parents[2]
PARTS = ("train", "dev", "test")


def table(lines: Iterable[str]) -> bytes:
    """The lines in the order of their bytes, as `LC_ALL=C sort` has them."""
    return b"".join(sorted(f"{line}\n".encode() for line in lines))


def prepare_part(source: Path, target: Path) -> None:
    """Write `target` (wav.scp segments text utt2spk spk2utt) from `source`, a part of the corpus.

    `target` appears whole or not at all, and stays untouched where it already holds just this. A recording holds one
    voice, so the recording's name is the speaker's. Raises UserError where the corpus is not there.
    """
    for name in ("text", "segments"):
        if not (source / name).is_file():
            raise UserError(f"{source / name} is not there: --corpus must name the folder of the shipped corpus")
    segments = (source / "segments").read_text().splitlines()
    utterances: dict[str, list[str]] = {}
    for segment in segments:
        utterance, speaker, _, _ = segment.split()
        utterances.setdefault(speaker, []).append(utterance)
    files = {
        "wav.scp": table(f"{speaker} {source / speaker}.opus" for speaker in utterances),
        "segments": table(segments),
        "text": table((source / "text").read_text().splitlines()),
        "utt2spk": table(f"{utterance} {speaker}" for speaker, own in utterances.items() for utterance in own),
        "spk2utt": table(f"{speaker} {' '.join(sorted(own))}" for speaker, own in utterances.items()),
    }
    if all((target / name).is_file() and (target / name).read_bytes() == content for name, content in files.items()):
        return
    with write_atomically(target) as building:
        building.mkdir()
        for name, content in files.items():
            (building / name).write_bytes(content)


def parser() -> argparse.ArgumentParser:
    """Options of this program."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True, help="folder for train, dev and test")
    options.add_argument("--corpus", type=Path, default=RECIPE / "corpus", help="folder of the shipped corpus")
    options.add_argument("--llm_source", default="auto", help="auto, hub, package, or a folder that holds the LLM")
    options.add_argument("--no_llm", action="store_true", help="write the data directories only")
    return options


def main(argv: list[str]) -> None:
    """Write the three data directories, then have tools/pretrained put the LLM under the checkout's downloads/."""
    args = parser().parse_args(argv)
    for part in PARTS:
        prepare_part(args.corpus.resolve() / part, args.out / part)
    if args.no_llm:
        return
    program = CHECKOUT / "tools" / "pretrained" / "smollm2.py"
    llm = CHECKOUT / "downloads" / "smollm2-135m-instruct"
    command = [sys.executable, program, "--out", llm, "--source", args.llm_source]
    if subprocess.run(command).returncode:
        raise UserError(f"the LLM could not be put at {llm} (see above): name a copy with --llm_source FOLDER")


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
