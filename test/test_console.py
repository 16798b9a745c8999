"""Errors of one sentence and files that are whole or absent, whatever stops the writing."""

import contextlib
import errno
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asrllm import console
from asrllm.console import UserError, write_atomically


def ended(capsys: pytest.CaptureFixture[str], fault: BaseException | None) -> tuple[int, str]:
    """Exit code and stderr of a program that raises `fault`."""

    def main() -> None:
        if fault is not None:
            raise fault

    with pytest.raises(SystemExit) as end:
        console.run(main)
    return end.value.code, capsys.readouterr().err


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__context__ = inner
    return outer


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "exp/a/weights.safetensors")


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (None, 0, ""),
        (KeyboardInterrupt(), 130, ""),
        (UserError("text: line 3: no."), 1, "text: line 3: no.\n"),
        (FULL, 1, "no space left on the disk for exp/a/weights.safetensors: free some space, then start again\n"),
        (
            chained(RuntimeError("unexpected pos 64"), OSError(errno.ENOSPC, "full")),
            1,
            "no space left on the disk for a file: free some space, then start again\n",
        ),
        (
            Exception("No space left on device (os error 28)"),
            1,
            "no space left on the disk for a file: free some space, then start again\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "exp/a"),
            1,
            "exp/a: Permission denied: give a path that can be read or written\n",
        ),
        (
            IsADirectoryError(errno.EISDIR, "Is a directory", ".a.1.part", None, "exp/a"),
            1,
            "exp/a: Is a directory: give a path that can be read or written\n",
        ),
        (
            OSError("/venv/lib/torchaudio/lib/libtorchaudio.so: undefined symbol"),
            1,
            "torchaudio is missing or does not fit the installed torch: run tools/install.sh, which mends it\n",
        ),
        (
            chained(ImportError("cannot import WhisperModel"), ModuleNotFoundError("No module named 'torchaudio'")),
            1,
            "torchaudio is missing or does not fit the installed torch: run tools/install.sh, which mends it\n",
        ),
    ],
)
def test_what_a_program_says_and_returns(
    capsys: pytest.CaptureFixture[str], fault: BaseException | None, code: int, said: str
) -> None:
    name = Path(sys.argv[0]).stem
    assert ended(capsys, fault) == (code, f"{name}: error: {said}" if said else "")


@pytest.mark.parametrize("fault", [ValueError("ours"), OSError(errno.EIO, "broken"), ZeroDivisionError()])
def test_a_defect_keeps_its_traceback(fault: Exception) -> None:
    def main() -> None:
        raise fault

    with pytest.raises(type(fault)):
        console.run(main)


def make(path: Path, folder: bool, text: str) -> None:
    """Write a file, or a folder with one."""
    if folder:
        path.mkdir()
    (path / "inner" if folder else path).write_text(text)


def read(path: Path, folder: bool) -> str:
    return (path / "inner" if folder else path).read_text()


@pytest.mark.parametrize("folder", [False, True])
def test_written_whole_and_replaced_whole(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "new" / "target"
    for text in ("one", "two"):
        with write_atomically(target) as temporary:
            make(temporary, folder, text)
            assert not target.exists() or read(target, folder) == "one"
        assert read(target, folder) == text
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, UserError])
def test_an_exception_leaves_the_old(tmp_path: Path, folder: bool, fault: type[BaseException]) -> None:
    target = tmp_path / "target"
    with write_atomically(target) as temporary:
        make(temporary, folder, "old")
    with pytest.raises(fault), write_atomically(target) as temporary:
        make(temporary, folder, "half")
        raise fault
    assert read(target, folder) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_full_disk_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool) -> None:
    """The disk may fill up as late as in fsync."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "target"
    with write_atomically(target) as temporary:
        make(temporary, folder, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), write_atomically(target) as temporary:
        make(temporary, folder, "new")
    assert read(target, folder) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


KILLED = """
import os, signal
from pathlib import Path
from asrllm.console import write_atomically
with write_atomically(Path("target")) as temporary:
    if {folder}:
        temporary.mkdir()
        temporary /= "inner"
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("folder", [False, True])
def test_a_kill_leaves_the_old(tmp_path: Path, root: Path, folder: bool) -> None:
    target = tmp_path / "target"
    make(target, folder, "old")
    command = [sys.executable, "-c", KILLED.format(folder=folder)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == -signal.SIGKILL
    assert read(target, folder) == "old"
    left = [path.name for path in tmp_path.iterdir() if path.name != "target"]
    assert len(left) == 1 and left[0].startswith(".target.") and left[0].endswith(".part")  # no reader takes it


def test_progress_draws_nothing_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASRLLM_PROGRESS", raising=False)
    assert list(console.track([1, 2], "counting", 2)) == [1, 2]
    assert "counting" not in "".join(capsys.readouterr())
    monkeypatch.setenv("ASRLLM_PROGRESS", "/nowhere/tty")
    assert list(console.track([1, 2], "counting", 2)) == [1, 2]


@pytest.mark.parametrize(("total", "drawn"), [(2, "2/2"), (None, "2/?")])
def test_progress_is_drawn_on_the_terminal_that_is_named(
    monkeypatch: pytest.MonkeyPatch, total: int | None, drawn: str
) -> None:
    master, slave = pty.openpty()
    for name, value in (("ASRLLM_PROGRESS", os.ttyname(slave)), ("TERM", "xterm"), ("COLUMNS", "100")):
        monkeypatch.setenv(name, value)
    assert list(console.track([1, 2], "counting", total)) == [1, 2]
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # nobody writes any more, and all is read
        while piece := os.read(master, 10_000):
            said += piece
    os.close(master)
    assert b"counting" in said and drawn.encode() in said


def test_too_little_memory_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        console.run(lambda: torch.empty(10**15))  # type: ignore[arg-type, return-value]
    assert end.value.code == 1 and "error: not enough memory (" in capsys.readouterr().err


def test_sweep_removes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    other = os.getppid()
    for name in (".a.99999999.part", f".b.{other}.part", ".c.part", "d.99999999.part"):
        (tmp_path / name).touch()
    (tmp_path / ".folder.99999999.part").mkdir()
    (tmp_path / ".folder.99999999.part" / "half").touch()
    console.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".b.{other}.part", ".c.part", "d.99999999.part"]
