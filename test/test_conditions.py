"""Mini's audio for the hunt after made-up text: its levels, its lengths, and that nobody speaks where none should."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from shell import module_of

from asrllm.console import UserError
from asrllm.data import audio, kaldi
from asrllm.data.kaldi import Utterance
from asrllm.score.transcripts import read_text

SCRIPT = Path(__file__).resolve().parents[1] / "egs/mini/asr1/local/conditions.py"
RATE = 16_000


@pytest.fixture(scope="module")
def conditions() -> ModuleType:
    return module_of(SCRIPT)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two loud sentences in one recording, 0.1 s of faint noise between them."""
    loud, faint = np.random.default_rng(0).standard_normal((2, RATE)) * [[0.1], [1e-4]]
    soundfile.write(tmp_path / "r.wav", np.concatenate([loud, faint[: RATE // 10], loud]), RATE)
    spans = {"r-1": (0.0, 1.0), "r-2": (1.1, 2.1)}
    said = [Utterance(key, "r", "a b", str(tmp_path / "r.wav"), *span, recording="r") for key, span in spans.items()]
    kaldi.write(said, tmp_path / "dev")
    return tmp_path / "dev"


def waves(folder: Path) -> dict[str, torch.Tensor]:
    return {each.utt_id: audio.load(each, RATE) for each in kaldi.read(folder)}


def test_noise_silence_and_clips_without_speech(conditions: ModuleType, recordings: Path, tmp_path: Path) -> None:
    options = ["--data", str(recordings), "--recordings", str(recordings), "--clips", "4"]
    for name in ("one", "other"):
        conditions.main([*options, "--snr", "10", "--silence", "0.5", "--out", str(tmp_path / name)])
    plain = waves(recordings)
    for utt_id, wave in waves(tmp_path / "one/dev_snr10").items():
        noise = wave - plain[utt_id]
        ratio = float(plain[utt_id].square().mean() / noise.square().mean())
        assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.05)
    for utt_id, wave in waves(tmp_path / "one/dev_silence0.5").items():
        assert len(wave) == 2 * RATE and not wave[: RATE // 2].any() and not wave[-RATE // 2 :].any()
        assert torch.equal(wave[RATE // 2 : -RATE // 2], plain[utt_id])
    made, again = (waves(tmp_path / name / "non_speech") for name in ("one", "other"))
    assert len(made) == 12 and all(1 <= len(wave) / RATE <= 5 for wave in made.values())
    assert all(torch.equal(again[utt_id], wave) for utt_id, wave in made.items())
    for kind in ("noise", "tones", "pauses"):
        listed = read_text(tmp_path / "one/non_speech" / kind)
        assert listed == {f"{kind}-{number:03}": "" for number in range(4)}
        levels = [20 * np.log10(float(made[utt_id].square().mean().sqrt()) + 1e-9) for utt_id in listed]
        assert all(-61 < level < -19 for level in levels) if kind != "pauses" else max(levels) < -70


def test_recordings_without_pauses_are_refused(conditions: ModuleType, recordings: Path, tmp_path: Path) -> None:
    conditions.main(["--data", str(recordings), "--recordings", str(recordings), "--out", str(tmp_path)])
    with pytest.raises(UserError, match="has no pauses: name a data directory with segments"):
        conditions.main(
            ["--data", str(recordings), "--recordings", str(tmp_path / "non_speech"), "--out", str(tmp_path)]
        )
