"""Write RESULTS.md from all scores below an exp/ folder (stage 10), or the table of a comparison of searches.

Curves are copied to pictures/ beside it. Everything but the header depends on the files below exp/ alone.
"""

import argparse
import datetime
import importlib.metadata
import logging
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from asrllm import console
from asrllm.console import write_atomically
from asrllm.score.results import NONE, Results, collect, render, tables
from asrllm.score.searches import searches

PACKAGES = ("torch", "transformers", "asrllm")

log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """Options of the program."""
    options = argparse.ArgumentParser(prog="report", description=__doc__, allow_abbrev=False)
    options.add_argument("--exp", type=Path, required=True, help="folder of the experiments")
    outputs = options.add_mutually_exclusive_group(required=True)
    outputs.add_argument("--out", type=Path, help="the Markdown file to write, such as RESULTS.md")
    outputs.add_argument("--tables", action="store_true", help="print ESPnet's tables instead (utils/show_result.sh)")
    outputs.add_argument("--searches", type=Path, metavar="FILE", help="write one table instead, a row for each search")
    options.add_argument("--command", default="", help="the command that made the results, shown in the header")
    return options


def main(argv: list[str] | None = None) -> None:
    """Collect, copy the pictures, write."""
    args = parser().parse_args(argv)
    results = collect(args.exp)
    if args.tables:
        print(tables(results, _header(args.command)), end="")
        return
    if args.searches:
        out, text = args.searches, searches(results, _header(args.command))
    else:
        out = args.out
        text = render(results, _header(args.command), _copy_curves(results, out.parent / "pictures"))
    with write_atomically(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    log.info("%s: %d scored decodings, %d experiments", out, len(results.decodings), len(results.experiments))


def _copy_curves(results: Results, folder: Path) -> dict[str, str]:
    """Copy every picture of curves into `folder`; experiment -> link relative to the folder above."""
    links = {}
    for experiment in results.experiments:
        if experiment.curves is not None:
            target = folder / f"{experiment.name}.png"
            with write_atomically(target) as temporary:
                shutil.copyfile(experiment.curves, temporary)
            links[experiment.name] = f"{folder.name}/{target.name}"
    return links


def _header(command: str) -> dict[str, str]:
    versions = [f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)]
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"`{command}`" if command else NONE,
        "commit": _commit(),
        "versions": ", ".join(versions),
        "machine": f"{cores} cores, {_processor()}, GPU {_gpu()}",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return NONE


def _commit() -> str:
    """Commit of the checkout that holds this file, and whether tracked files differ from it.

    What the report itself writes is not counted.
    """
    commit = _output("git", "rev-parse", "HEAD")
    if commit == NONE:
        return NONE
    own = [":(top)", *(f":(top,exclude)*{name}" for name in ("RESULTS.md", "DECODING.md", "/pictures/*"))]
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", "--", *own)
    return commit if changed == NONE else f"{commit}, with changes that are not committed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or NONE


def _gpu() -> str:
    return ", ".join(sorted(set(_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines())))


def _output(*command: str) -> str:
    """What a command prints, run beside this file; a dash where it fails, prints nothing or is not installed."""
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return NONE
    return done.stdout.strip() or NONE


if __name__ == "__main__":
    console.run(main)
