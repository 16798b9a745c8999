"""What the person at the terminal sees: errors of one sentence, log lines, progress bars, whole files.

It knows nothing of speech. Every program of `asrllm.bin` starts through `run`.
"""

import argparse
import errno
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
log = logging.getLogger("asrllm")
_WRONG_PATHS = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)


class UserError(Exception):
    """A mistake that the user can mend; its text is the one sentence that is printed."""


def run(main: Callable[[], None]) -> NoReturn:
    """Run a program and exit: 0 when done, 1 with one sentence for a `UserError`, 130 when interrupted.

    argparse exits with 2 by itself. Anything else is a defect of ours and keeps its traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    name = Path(sys.argv[0]).stem
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as fault:
        sentence = _explain(fault)
        if sentence is None:
            raise
        print(f"{name}: error: {sentence}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def positive(text: str) -> int:
    """The type of an option that counts: a whole number from 1."""
    if not re.fullmatch(r"[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def _explain(fault: BaseException) -> str | None:
    """The sentence for a fault that a user can mend, None for a defect."""
    if isinstance(fault, UserError):
        return str(fault)
    link: BaseException | None = fault
    while link is not None:
        if tells_no_memory(link):
            return (
                f"not enough memory ({str(link).splitlines()[0] if str(link) else 'no more said'}): use smaller batches"
            )
        if _tells_full_disk(link):
            name = link.filename if isinstance(link, OSError) else None
            return f"no space left on the disk for {name or 'a file'}: free some space, then start again"
        if isinstance(link, _WRONG_PATHS) and link.filename:
            return f"{link.filename2 or link.filename}: {link.strerror}: give a path that can be read or written"
        if isinstance(link, (ImportError, OSError, RuntimeError)) and "torchaudio" in str(link).lower():
            return "torchaudio is missing or does not fit the installed torch: run tools/install.sh, which mends it"
        link = link.__cause__ or link.__context__
    return None


def tells_no_memory(fault: BaseException) -> bool:
    """Whether memory was lacking; torch says so in a RuntimeError, of the CPU's memory in its text alone."""
    said = str(fault)
    return isinstance(fault, MemoryError) or (
        isinstance(fault, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)
    )


def _tells_full_disk(fault: BaseException) -> bool:
    """Whether a disk or a quota was full; shutil and libraries in Rust tell the system's error in their text alone."""
    if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(f"{words} {errno.ENOSPC}{end}" in str(fault) for words, end in (("os error", ")"), ("[Errno", "]")))


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or a folder; rename it to `path` when the block ends without error.

    Whatever stops the block, `path` is either as it was or whole, and the temporary is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        _sync(temporary)
        if temporary.is_dir() and path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def sweep(folder: Path) -> None:
    """Remove what processes of this machine that are dead left half-written in `folder` (see `write_atomically`)."""
    for path in folder.glob(".*.part"):
        pid = path.name.split(".")[-2]
        if pid.isdigit() and not _is_alive(int(pid)):
            _remove(path)


def _is_alive(pid: int) -> bool:
    """Whether another process has this number; this one is just starting, so what it left was left by a namesake."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _terminal() -> AbstractContextManager[TextIO]:
    try:
        return open(os.environ["ASRLLM_PROGRESS"], "w")
    except (KeyError, OSError):
        return nullcontext(sys.stderr)


@contextmanager
def progress(title: str, total: int | None, unit: str = "") -> Iterator[Callable[[int, str], None]]:
    """A progress bar, which only counts where `total` is not known; yields `advance(count, note)`.

    It draws on the terminal named by ASRLLM_PROGRESS (the job runner sets it, since it sends stderr to a log), else on
    stderr; nothing is drawn where neither is a terminal.
    """
    with _terminal() as stream:
        console = Console(file=stream)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        ending = (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, *ending, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task(title, total=total, note="")

            def advance(count: int, note: str) -> None:
                bar.update(task, advance=count, note=note)

            yield advance


def track(items: Iterable[Item], title: str, total: int | None, unit: str = "") -> Iterator[Item]:
    """Iterate over `items` under a progress bar."""
    with progress(title, total, unit) as advance:
        for item in items:
            yield item
            advance(1, "")
