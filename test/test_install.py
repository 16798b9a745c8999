"""Installation: what is chosen on which machine, what is found missing, and torchaudio mended beside a CPU torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "tools"


def run(*words: str | Path, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command at the top of the checkout; `path` stands first where Python looks for packages."""
    found = {**os.environ, **environment}
    if path is not None:
        found["PYTHONPATH"] = os.pathsep.join([str(path), str(ROOT)])
    command = [str(word) for word in words]
    return subprocess.run(command, env=found, cwd=ROOT, capture_output=True, text=True, timeout=120)


# --- tools/mend_torchaudio.py, on a copy of the real torchaudio whose libraries cannot be loaded


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder that holds torchaudio in the state that PyPI's wheel is in beside a CPU build of torch."""
    torchaudio = pytest.importorskip("torchaudio", reason="torchaudio is not installed: run tools/install.sh")
    source = Path(torchaudio.__file__).parent
    shutil.copytree(source, tmp_path / "torchaudio", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("_torchaudio.abi3.so", "libtorchaudio.abi3.so"):
        (tmp_path / "torchaudio" / "lib" / name).write_bytes(b"no library")
    return tmp_path


def test_torchaudio_is_mended_where_it_cannot_be_imported(broken: Path) -> None:
    both = (sys.executable, "-c", "import torchaudio; from transformers import LlamaForCausalLM")
    before = run(*both, path=broken)
    assert before.returncode != 0 and "OSError" in before.stderr

    mended = run(sys.executable, TOOLS / "mend_torchaudio.py", path=broken)
    assert (mended.returncode, mended.stderr) == (0, "")
    assert "torchaudio mended: deleted _torchaudio.abi3.so, libtorchaudio.abi3.so" in mended.stdout
    assert not list(broken.rglob("*.so*"))
    after = run(*both, path=broken)
    assert (after.returncode, after.stderr) == (0, "")

    again = run(sys.executable, TOOLS / "mend_torchaudio.py", path=broken)
    assert (again.returncode, again.stdout) == (0, "torchaudio works: nothing to mend\n")


def test_a_fault_of_another_kind_deletes_nothing(broken: Path) -> None:
    (broken / "torchaudio" / "__init__.py").write_text("raise ValueError('torn')")
    result = run(sys.executable, TOOLS / "mend_torchaudio.py", path=broken)
    assert result.returncode == 1
    assert "cannot be mended: ValueError: torn" in result.stderr
    assert len(list(broken.rglob("*.so"))) == 2


def test_a_broken_torch_is_not_blamed_on_torchaudio(broken: Path) -> None:
    (broken / "torch.py").write_text("raise OSError('libtorch is gone')")
    result = run(sys.executable, TOOLS / "mend_torchaudio.py", path=broken)
    assert result.returncode == 1
    assert "torch itself does not work: OSError: libtorch is gone" in result.stderr
    assert len(list(broken.rglob("*.so"))) == 2


@pytest.mark.parametrize("line", ["import torchaudio", "from transformers import LlamaForCausalLM"])
def test_a_program_in_the_broken_state_says_one_sentence(broken: Path, line: str) -> None:
    program = f"from asrllm import console\ndef main():\n    {line}\nconsole.run(main)"
    result = run(sys.executable, "-c", program, path=broken)
    assert result.returncode == 1
    assert result.stderr.endswith("run tools/install.sh, which mends it\n")
    assert "Traceback" not in result.stderr


# --- tools/check_install.py


def test_where_nothing_is_installed_all_is_listed_as_missing() -> None:
    result = run(sys.executable, "-S", TOOLS / "check_install.py", path=Path("/nowhere"))
    assert (result.returncode, result.stderr) == (1, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    missing = [row[0] for row in rows if "missing" in row]
    assert {"torch", "transformers", "torchaudio", "kaldiio", "gguf"} <= set(missing)
    assert "pytest" not in missing
    assert all("tools/install.sh" in row for row in rows if "missing" in row)


def test_a_broken_and_an_old_package_are_named_with_the_cure(broken: Path) -> None:
    (broken / "jiwer.py").write_text("raise ImportError('no such symbol')")
    (broken / "rich-1.0.dist-info").mkdir()
    (broken / "rich-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: rich\nVersion: 1.0\n")
    stamp = broken / "stamp"
    result = run(sys.executable, TOOLS / "check_install.py", "--stamp", stamp, path=broken)
    assert (result.returncode, result.stderr) == (1, "")
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "broken: ImportError: no such symbol  ->  tools/install.sh" in rows["jiwer"]
    assert "1.0" in rows["rich"] and "too old  ->  tools/install.sh" in rows["rich"]
    assert "broken: OSError" in rows["torchaudio"] and rows["torchaudio"].endswith("tools/mend_torchaudio.py")
    assert rows["safetensors"].endswith("ok")
    assert not stamp.exists()


@pytest.mark.parametrize(
    ("version", "floor", "older"),
    [
        ("2.13.0+cpu", "2.6", False),
        ("2.6.0", "2.6", False),
        ("2.10", "2.9", False),
        ("1.9.9", "1.10", True),
        ("6.0.12.20261113", "6.0", False),
    ],
)
def test_versions_are_compared_as_numbers(
    monkeypatch: pytest.MonkeyPatch, version: str, floor: str, older: bool
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    import check_install

    assert check_install.is_older(version, floor) is older


# --- tools/install.sh, with a Python that only writes down what it is asked to do

PYTHON = """#!/usr/bin/env bash
# Knows the files `version` (that of the installed torch) and `refused` (a package that no index has) beside it.
here=$(dirname "$0")
printf '%s\\n' "$*" >> "$here/calls"
case "$*" in
    *check_install.py*--quiet*) exit 1 ;;
    *importlib.metadata*) cat "$here/version" 2>/dev/null ;;
    *'sys.argv[1]'*) exec "$REAL_PYTHON" "$@" ;;
    '- '*) exec "$REAL_PYTHON" "$@" ;;
    *pip*install*"$(cat "$here/refused" 2>/dev/null || echo nothing-is)"*) exit 1 ;;
    *'torch=='*+cpu | *'torch>='*) [[ -e $here/version ]] || echo 2.13.0+cpu > "$here/version" ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The bin folder of an active environment that is not really there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(PYTHON)
    (folder / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder


def installed(folder: Path) -> list[str]:
    """What install.sh has pip or uv install, in order."""
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": path, "VIRTUAL_ENV": str(folder.parent), "REAL_PYTHON": sys.executable}
    result = run(TOOLS / "install.sh", "--active", **variables)
    assert result.returncode == 0, result.stderr
    calls = [line for line in (folder / "calls").read_text().splitlines() if " install " in line]
    return [line.split()[-1] for line in calls]


REST = ["wheel", ".[pretrained]"]


def test_without_a_gpu_a_cpu_build_is_taken(environment: Path) -> None:
    assert installed(environment) == ["torch==2.13.0+cpu", *REST, "torchaudio>=2.11"]


def test_where_pip_has_no_cpu_build_uv_finds_one(environment: Path) -> None:
    (environment / "refused").write_text("torch==2.13.0+cpu")
    assert installed(environment) == ["torch==2.13.0+cpu", "uv", "torch>=2.11,<2.15", *REST, "torchaudio>=2.11"]
    assert "--torch-backend=cpu" in (environment / "calls").read_text()


def test_with_a_gpu_a_cuda_build_is_taken(environment: Path) -> None:
    (environment / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: Some (UUID: x)'\n")
    chosen = installed(environment)
    assert chosen[:3] == ["torch>=2.11,<2.15", *REST]
    assert "cpu" not in " ".join(chosen)


@pytest.mark.parametrize(
    ("version", "torchaudio"), [("2.15.0", "torchaudio>=2.11"), ("2.9.1+cu128", "torchaudio==2.9.*")]
)
def test_an_installed_torch_is_kept(environment: Path, version: str, torchaudio: str) -> None:
    (environment / "version").write_text(version)
    assert installed(environment) == [*REST, torchaudio]
    calls = (environment / "calls").read_text().splitlines()
    assert all("--constraint" in line for line in calls if ".[pretrained]" in line)
    assert all("--no-deps" in line for line in calls if torchaudio in line and "install" in line)


def test_an_old_torch_is_neither_used_nor_replaced(environment: Path) -> None:
    (environment / "version").write_text("2.5.1")
    with pytest.raises(AssertionError, match=r"torch 2\.5\.1 is older than 2\.6"):
        installed(environment)
    assert " install " not in (environment / "calls").read_text()


def test_active_needs_an_active_environment() -> None:
    result = run(TOOLS / "install.sh", "--active", VIRTUAL_ENV="", CONDA_PREFIX="")
    assert result.returncode == 1
    assert result.stderr.startswith("install.sh: --active, but no virtual or conda environment is active")


def test_torchaudio_is_never_required_by_the_package() -> None:
    text = (ROOT / "setup.py").read_text()
    required = text[text.index("install_requires") : text.index("extras_require")]
    assert "torchaudio" not in required
    assert '"torch>=2.6",' in required  # open above, so that an installed torch is never replaced
