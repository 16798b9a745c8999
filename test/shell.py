"""How the tests start or import scripts, and how they see what is left of them."""

import importlib.util
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType


def module_of(path: Path) -> ModuleType:
    """A Python program that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def heed_signals() -> None:
    """What a shell started in the background ignores, it cannot trap either: the tests may have been started so."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "it did not come true in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
