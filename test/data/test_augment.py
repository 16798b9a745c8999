"""Speed, rooms, noise: a tone's pitch tells the speed, power the noise, convolution by hand the room."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asrllm import config
from asrllm.console import UserError
from asrllm.data.augment import AugmentConfig, Augmenter, Change, draw_factors, noise_gain, reverberate, speed
from asrllm.data.clips import Clips


@pytest.fixture
def clips(tmp_path: Path) -> str:
    """A folder with a clip of half a second at 16 kHz and, deeper, one of two seconds in stereo at 8 kHz."""
    noise = np.random.default_rng(0)
    (tmp_path / "clips" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "clips" / "short.wav", noise.uniform(-0.5, 0.5, 8000), 16000)
    soundfile.write(tmp_path / "clips" / "deep" / "long.flac", noise.uniform(-0.5, 0.5, (16000, 2)), 8000)
    (tmp_path / "clips" / "notes.txt").write_text("no audio")
    return str(tmp_path / "clips")


def augmenter(**parts: dict) -> Augmenter:
    return Augmenter(config.parse({**parts}, AugmentConfig, "test"), 16000, seed=5)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1, 1.25])
def test_a_tone_is_raised_by_the_factor(factor: float) -> None:
    tone = torch.sin(2 * math.pi * 440 * torch.arange(16000) / 16000)
    played = speed(tone, factor)
    assert len(played) == math.ceil(16000 / factor)
    spectrum = torch.fft.rfft(played, n=160000).abs()
    assert spectrum.argmax().item() / 10 == pytest.approx(440 * factor, abs=0.5)
    assert played[500:-500].abs().max() == pytest.approx(1.0, abs=0.01)


def test_factors_are_drawn_evenly_and_the_same_every_time() -> None:
    factors = (0.9, 1.0, 1.1)
    state = torch.get_rng_state()
    drawn = [factor for epoch in range(3) for factor in draw_factors(factors, 1, epoch, 1000).tolist()]
    assert drawn == [factor for epoch in range(3) for factor in draw_factors(factors, 1, epoch, 1000).tolist()]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(900 < count < 1100 for count in Counter(drawn).values())
    assert drawn[:1000] != drawn[1000:2000]


@pytest.mark.parametrize("samples", [1, 777, 8000, 30001, 50000])
@pytest.mark.parametrize("place", [0.0, 0.37, 1.0])
def test_a_piece_has_the_length_asked_for_and_comes_from_the_clip(clips: str, samples: int, place: float) -> None:
    found = Clips([clips], 16000)
    assert [Path(path).name for path in found.paths] == ["long.flac", "short.wav"]
    for number in range(2):
        assert len(found.piece(number, place, samples)) == samples
    whole, piece = found.whole(1), found.piece(1, place, samples)
    if samples < len(whole):
        start = round(place * (len(whole) - samples))
        assert torch.equal(piece, whole[start : start + samples])
    else:  # goes round and round
        start = -round(place * len(whole)) % len(whole)
        assert torch.equal(piece, whole[(start + torch.arange(samples)) % len(whole)])


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no audio clip"):
        augmenter(noise={"folders": [str(tmp_path / "nowhere")]})


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5])
def test_noise_is_so_many_decibels_below_the_speech(clips: str, snr: float) -> None:
    speech = 0.1 * torch.randn(20000)
    made = augmenter(noise={"folders": [clips]}).apply(speech, Change(None, 300, 500, 0, 0.2, snr))
    assert len(made) == 300 + 20000 + 500
    noise = made.double() - torch.nn.functional.pad(speech, (300, 500)).double()
    ratio = speech.double().square().mean() / noise.square().mean()
    assert 10 * math.log10(ratio) == pytest.approx(snr, abs=1e-3)
    piece = Clips([clips], 16000).piece(0, 0.2, 20800).double()
    torch.testing.assert_close(noise, piece * (noise @ piece) / (piece @ piece), atol=1e-6, rtol=1e-4)


def test_silent_speech_and_silent_noise_stay_as_they_are() -> None:
    assert noise_gain(torch.zeros(5), torch.ones(5), 10.0) == noise_gain(torch.ones(5), torch.zeros(5), 10.0) == 0.0
    assert torch.equal(reverberate(torch.zeros(50), torch.randn(20)), torch.zeros(50))


def test_draws_follow_the_configured_distributions(clips: str) -> None:
    maker = augmenter(
        noise={"folders": [clips], "share": 0.5, "snr_mean": 3.0, "snr_deviation": 2.0, "silence_seconds": 2.0},
        reverb={"folders": [clips], "share": 0.25},
    )
    changes = [maker.draw(epoch, f"utt{number}") for epoch in range(4) for number in range(1000)]
    assert changes == [maker.draw(epoch, f"utt{number}") for epoch in range(4) for number in range(1000)]
    noisy = [change for change in changes if change.noise is not None]
    assert len(noisy) / 4000 == pytest.approx(0.5, abs=0.03)
    assert sum(change.response is not None for change in changes) / 4000 == pytest.approx(0.25, abs=0.03)
    levels = torch.tensor([change.snr for change in noisy])
    assert float(levels.mean()) == pytest.approx(3.0, abs=0.2) and float(levels.std()) == pytest.approx(2.0, abs=0.15)
    silence = torch.tensor([[change.before, change.after] for change in noisy]) / 32000
    assert float(silence.mean()) == pytest.approx(1 / 4, abs=0.02)  # Beta(1, 3)
    assert float(silence.var()) == pytest.approx(3 / 80, abs=0.005)
    assert all(change.before == change.after == 0 for change in changes if change.noise is None)
    assert {change.noise for change in noisy} == {0, 1}


def test_a_room_is_a_convolution_with_the_direct_sound_in_place() -> None:
    wave, response = torch.randn(400), torch.randn(50)
    response[7] = 9.0
    by_hand = torch.tensor(np.convolve(wave.numpy(), response.numpy())[7 : 7 + 400])
    by_hand *= (wave.square().mean() / by_hand.square().mean()).sqrt()
    torch.testing.assert_close(reverberate(wave, response), by_hand, atol=1e-4, rtol=1e-4)
