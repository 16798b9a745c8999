"""Make an installed torchaudio importable where its compiled libraries do not fit the installed torch.

PyPI's torchaudio is built for one version of CUDA. Beside a CPU build of torch, or one for another CUDA, its import
fails (OSError or RuntimeError), and so does the import of every model class of transformers. torchaudio itself runs
without its compiled libraries where it does not find them: features, resampling and masking are plain torch. So where
the import fails, and only there, the libraries are deleted. What needs them (forced alignment) is then gone from
torchaudio; asrllm has its own. `pip install --force-reinstall --no-deps torchaudio` brings the libraries back.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

PROBE = """
import torch, torchaudio, torchaudio.compliance.kaldi, torchaudio.functional, torchaudio.transforms
wave = torch.zeros(1, 1600)
torchaudio.compliance.kaldi.fbank(wave, sample_frequency=16000.0, num_mel_bins=80)
mel = torchaudio.transforms.MelSpectrogram(sample_rate=16000, n_fft=400, n_mels=40)(wave)
torchaudio.transforms.FrequencyMasking(8)(mel)
torchaudio.transforms.TimeMasking(2)(mel)
torchaudio.functional.resample(wave, 16000, 8000)
"""


def fault(code: str = PROBE) -> str:
    """The last line of what `code` wrote to stderr in a Python of its own, or "" where it ran."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if result.returncode == 0:
        return ""
    return (result.stderr.strip().splitlines() or [f"ended with code {result.returncode}"])[-1]


def folder() -> Path | None:
    """Where torchaudio is installed, found without importing it; None where it is not installed."""
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def libraries(package: Path) -> list[Path]:
    """The compiled libraries in torchaudio's folder."""
    return sorted(path for path in package.rglob("*") if path.suffix in (".so", ".pyd", ".dylib"))


def main() -> int:
    """Exit code 0 where torchaudio works in the end, 1 where it does not."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    package = folder()
    if package is None:
        print("torchaudio is not installed: run tools/install.sh", file=sys.stderr)
        return 1
    before = fault()
    if not before:
        print("torchaudio works: nothing to mend")
        return 0
    if torch_fault := fault("import torch"):
        print(f"torch itself does not work: {torch_fault}; run tools/install.sh", file=sys.stderr)
        return 1
    found = libraries(package)
    aside = [path.rename(path.with_name(path.name + ".aside")) for path in found]
    after = fault()
    if after:
        for path, original in zip(aside, found, strict=True):
            path.rename(original)
        print(f"torchaudio in {package} cannot be mended: {after}", file=sys.stderr)
        return 1
    for path in aside:
        path.unlink()
    names = ", ".join(path.name for path in found)
    print(f"torchaudio mended: deleted {names}, which do not fit this torch ({before})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
