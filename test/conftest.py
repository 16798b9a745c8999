"""Settings and fixtures of all tests: one torch thread, no network, real recordings and pretrained parts if at hand."""

import os
import shutil
import sys
from pathlib import Path

import pytest

# Spinning OpenMP threads of two processes on two cores starve each other; this must stand before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test"))  # for toy_corpus


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real recordings: ASRLLM_DATA, or ../shared/data beside the checkout. Skips where there is none."""
    folder = Path(os.environ.get("ASRLLM_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real recordings: {folder} is not there (set ASRLLM_DATA to the folder that holds them)")
    return folder


@pytest.fixture(scope="session")
def pretrained() -> Path:
    """Folder of pretrained parts: ASRLLM_PRETRAINED, or downloads/ in the checkout. Skips where it is not complete."""
    folder = Path(os.environ.get("ASRLLM_PRETRAINED") or ROOT / "downloads")
    for part in ("smollm2-135m-instruct", "moonshine-base", "whisper-tiny.en"):
        if not (folder / part).is_dir():
            pytest.skip(f"no pretrained parts: {folder / part} is not there (test/run.sh fetches it where it can)")
    return folder


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a toy recipe after a run of all its stages; not to be changed. Takes some ten seconds, once."""
    import toy_corpus

    folder = tmp_path_factory.mktemp("recipe")
    toy_corpus.make(folder)
    return folder


@pytest.fixture
def work(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the toy recipe to work in or to spoil, and the working directory."""
    folder = tmp_path / "recipe"
    shutil.copytree(recipe, folder)
    monkeypatch.chdir(folder)
    return folder
