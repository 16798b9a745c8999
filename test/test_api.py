"""asrllm/api.py: audio files from Python."""

from pathlib import Path

import pytest

from asrllm.api import transcriber
from asrllm.console import UserError
from asrllm.data import kaldi
from asrllm.hypothesis import read_decoding


@pytest.mark.parametrize("search", ["decode_ctc", "decode_beam"])
def test_files_give_what_the_decoding_of_their_directory_gave(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    monkeypatch.chdir(recipe)
    files = kaldi.read_table(Path("data/test/wav.scp"))
    decoded = read_decoding(Path("exp/train_joint", search, "test"))
    with transcriber("exp/train_joint", f"conf/{search}.yaml") as transcribe:
        results = transcribe(list(files.values()))
        with pytest.raises(UserError, match=r"^none\.wav: no such file$"):
            transcribe(["none.wav"])
    assert [each.utt_id for each in results] == list(files.values())
    for utt_id, result in zip(files, results, strict=True):
        assert result.best.text == decoded[utt_id].best.text
        assert result.best.score == pytest.approx(decoded[utt_id].best.score, abs=1e-4)
