"""What every recipe's prepare.py needs: the corpus found or fetched, and its sets written where they changed.

It knows archives and data directories; how a corpus is laid out is in its recipe.
"""

import argparse
import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asrllm.console import UserError, log, progress, write_atomically
from asrllm.data import kaldi
from asrllm.data.kaldi import Utterance

CHECKOUT = Path(__file__).resolve().parents[2]
_BLOCK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60.0
_ROOM = 2.2  # of the archive's size: it and what it unpacks to


@dataclass(frozen=True)
class Archive:
    """A tar archive that is published somewhere."""

    url: str
    size: str  # for people, such as 6.4 GB
    holds: str  # path that is there once it is unpacked, relative to the corpus' folder
    bytes: int = 0  # 0: not known
    checksum: str = ""  # md5:... or sha256:...
    top: str = "."  # folder in the archive whose content belongs into the corpus' folder
    inner: str = ""  # archives in it that are unpacked where they lie, such as wav/*.tar.gz

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.split("?")[0].rsplit("/", 1)[-1]


def parser(description: str, corpus: str) -> argparse.ArgumentParser:
    """Options that every prepare.py has; `corpus` names the folder that it looks for first."""
    options = argparse.ArgumentParser(description=description.splitlines()[0], allow_abbrev=False)
    options.add_argument("--out", type=Path, required=True, help="folder for the data directories")
    recordings = os.environ.get("ASRLLM_DATA")
    place = Path(recordings) if recordings else CHECKOUT / "downloads" / "corpora"
    options.add_argument("--corpus", type=Path, default=place / corpus, help="the corpus' folder (%(default)s)")
    options.add_argument("--download", action="store_true", help="fetch into --corpus what is not there")
    return options


def provide(corpus: Path, archives: Iterable[Archive], download: bool) -> None:
    """See that all archives are unpacked in a folder; with `download`, fetch those that are not.

    Raises:
        UserError: something is not there and must not be fetched, or cannot be; names sizes and addresses. No corpus.
    """
    missing = [archive for archive in archives if not (corpus / archive.holds).exists()]
    if missing and not download:
        wanted = ", ".join(f"{archive.url} ({archive.size})" for archive in missing)
        raise UserError(
            f"{corpus / missing[0].holds}: not there: name the corpus' folder with --corpus, or fetch {wanted} into "
            f"{corpus} with --download"
        )
    for archive in missing:
        fetch(archive, corpus)
    if not corpus.is_dir():
        raise UserError(f"{corpus}: no such folder: name the corpus' folder with --corpus (run.sh: --prepare_args)")


def fetch(archive: Archive, corpus: Path) -> None:
    """Download an archive, going on where an earlier try stopped, compare it with its checksum and unpack it.

    What it holds appears in `corpus` in whole folders; the archive is deleted then.
    """
    corpus.mkdir(parents=True, exist_ok=True)
    part = corpus / f"{archive.name}.part"
    if archive.bytes and (free := shutil.disk_usage(corpus).free) < _ROOM * archive.bytes:
        raise UserError(
            f"{corpus}: {free / 1e9:.1f} GB are free, {archive.name} wants {_ROOM * archive.bytes / 1e9:.1f}"
        )
    log.info("fetching %s (%s)", archive.url, archive.size)
    try:
        _download(archive, part)
    except (OSError, urllib.error.URLError) as error:
        raise UserError(
            f"{archive.url}: cannot be fetched ({error}); it has {archive.size}: start again to go on, or fetch it by "
            f"other means and unpack it in {corpus}"
        ) from None
    _compare(archive, part)
    with write_atomically(corpus / f".{archive.name}.unpacked") as temporary:
        _unpack(part, temporary)
        for inner in sorted(temporary.glob(archive.inner)) if archive.inner else ():
            _unpack(inner, inner.parent)
            inner.unlink()
        if not (temporary / archive.top / archive.holds).exists():
            raise UserError(f"{archive.url}: found no {archive.holds} in it: unpack it in {corpus} by hand")
        _merge(temporary / archive.top, corpus)
    shutil.rmtree(corpus / f".{archive.name}.unpacked")
    part.unlink()


def _download(archive: Archive, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    if archive.bytes and done == archive.bytes:
        return
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        if answer.status != 206:
            done = 0  # the server gives all of it
        total = done + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if done else "wb") as stream, progress(archive.name, total, "bytes") as advance:
            advance(done, "")
            while block := answer.read(_BLOCK_BYTES):
                stream.write(block)
                advance(len(block), "")
    if total and part.stat().st_size != total:
        raise OSError(f"{part.stat().st_size} of {total} bytes came")


def _compare(archive: Archive, part: Path) -> None:
    kind, _, expected = archive.checksum.partition(":")
    if not expected:
        return
    digest = hashlib.new(kind)
    with part.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    if (found := digest.hexdigest()) != expected:
        part.unlink()
        raise UserError(f"{archive.url}: found the {kind} {found}, expected {expected}: it is deleted, start again")


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, _inside(tar, folder.resolve()))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}): delete it and start again") from None


def _inside(tar: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    """The members, as long as they are files and folders that land below `folder`.

    Python has a filter of its own for that, but not Debian 12's 3.11.2.
    """
    for member in tar:
        if not (member.isfile() or member.isdir()) or not (folder / member.name).resolve().is_relative_to(folder):
            raise tarfile.TarError(f"{member.name!r} is a link or lies outside the archive's own folder")
        yield member


def _merge(source: Path, target: Path) -> None:
    """Move everything in a folder into another; what is there in both is kept as it was."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if not place.exists():
            path.rename(place)
        elif path.is_dir() and place.is_dir():
            _merge(path, place)


def write(sets: Mapping[str, Sequence[Utterance]], out: Path) -> None:
    """Write one data directory a set; one that holds just this already is left untouched.

    Raises:
        UserError: a set is empty.
    """
    for name, utterances in sets.items():
        if not utterances:
            raise UserError(f"{out / name}: the corpus has no utterance for it")
        tables = kaldi.tables(sorted(utterances, key=lambda each: kaldi.byte_order(each.utt_id)))
        if any(_read(out / name / table) != kaldi.table_bytes(table, lines) for table, lines in tables.items()):
            kaldi.write(utterances, out / name)
        log.info("%s: %d utterances, %d speakers", out / name, len(utterances), len(tables["spk2utt"]))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def held_out(utterances: Sequence[Utterance], share: float) -> tuple[list[Utterance], list[Utterance]]:
    """Part utterances by speaker: those of most speakers, and those of the last ones, at least `share` of all."""
    members: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        members.setdefault(utterance.speaker, []).append(utterance)
    out: list[Utterance] = []
    for speaker in sorted(members, reverse=True):
        if len(out) >= share * len(utterances) or len(members) < 2:
            break
        out += members[speaker]
    chosen = {each.utt_id for each in out}
    return [each for each in utterances if each.utt_id not in chosen], out
