"""The decoding configurations of the recipes fit the schema."""

from pathlib import Path

import pytest

from asrllm import config
from asrllm.decode.decoder import DecodeConfig

ROOT = Path(__file__).resolve().parents[2]
FILES = [*ROOT.glob("egs/*/asr1/conf/decode*.yaml"), *ROOT.glob("egs/*/asr1/conf/zero_shot.yaml")]


@pytest.mark.parametrize("file", sorted(FILES), ids=lambda file: str(file.relative_to(ROOT)))
def test_fits(file: Path, tmp_path: Path) -> None:
    read = config.load(file, DecodeConfig)
    config.dump(read, tmp_path / "resolved.yaml")
    assert config.load(tmp_path / "resolved.yaml", DecodeConfig) == read
