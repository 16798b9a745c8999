"""NSE on known spectra; PAI and CSAI on data made so that the truth is known."""

import math

import numpy as np
import pytest

from asrllm.analysis import entropy
from asrllm.console import UserError


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_nse_is_the_entropy_of_the_spectrum() -> None:
    spectrum = 1 / np.arange(1, 17)
    shares = spectrum / spectrum.sum()
    turn, _ = np.linalg.qr(rng().standard_normal((16, 16)))
    frames = rng().standard_normal((200_000, 16)) * np.sqrt(spectrum) @ turn + 3.0
    assert entropy.spectral_entropy(frames) == pytest.approx(-(shares * np.log(shares)).sum() / math.log(16), abs=2e-3)


def test_nse_is_one_for_equal_directions_and_zero_for_one() -> None:
    assert entropy.spectral_entropy(np.concatenate([np.eye(8), -np.eye(8)])) == pytest.approx(1.0)
    line = rng().standard_normal((100, 1)) * np.ones((1, 8))
    assert entropy.spectral_entropy(line) == pytest.approx(0.0, abs=1e-9)


def test_nse_ignores_scale_and_rotation_and_weights_count_frames() -> None:
    frames = rng().standard_normal((50, 4)) * [1, 2, 3, 4]
    turn, _ = np.linalg.qr(rng().standard_normal((4, 4)))
    value = entropy.spectral_entropy(frames)
    assert entropy.spectral_entropy(7 * frames @ turn + 1) == pytest.approx(value)
    counts = rng().integers(1, 4, 50)
    repeated = entropy.spectral_entropy(np.repeat(frames, counts, 0))
    assert entropy.spectral_entropy(frames, counts.astype(float)) == pytest.approx(repeated)


def test_nse_warns_of_few_frames_and_holds_its_value() -> None:
    frames = rng().standard_normal((60, 8))
    found = entropy.nse(frames, np.repeat(np.arange(12), 5))
    assert "80" in found.note
    assert found.interval[0] < found.value < found.interval[1]
    wide = rng().standard_normal((400, 100))  # drawn again, 64 % of the frames are left, and NSE is lower
    spread = entropy.nse(wide, np.arange(400))
    assert spread.interval[0] < spread.value < spread.interval[1]
    assert entropy.nse(np.tile(frames, (2, 1)), np.repeat(np.arange(12), 10)).note == ""


@pytest.mark.parametrize("what", ["equal", "narrow"])
def test_nse_of_nothing_is_refused(what: str) -> None:
    with pytest.raises(UserError, match="NSE"):
        entropy.spectral_entropy(np.ones((5, 3)) if what == "equal" else rng().standard_normal((5, 1)))


def frames_of(phones: np.ndarray, noise: float) -> np.ndarray:
    codes = rng().standard_normal((phones.max() + 1, 12))
    return codes[phones] + noise * np.random.default_rng(1).standard_normal((len(phones), 12))


def labelled(count: int = 4000) -> tuple[np.ndarray, np.ndarray, list[str]]:
    phones = rng().integers(0, 6, count)
    owners = np.arange(count) // 40
    return phones, owners, [f"speaker{owner % 10}" for owner in owners]


def test_pai_is_one_where_frames_say_the_phone_and_zero_where_they_do_not() -> None:
    phones, owners, speakers = labelled()
    clear, nats = entropy.pai(frames_of(phones, 0.01), phones, owners, speakers)
    assert clear.value > 0.98 and nats.value < 0.05
    blind, nats = entropy.pai(np.random.default_rng(7).standard_normal((len(phones), 12)), phones, owners, speakers)
    assert abs(blind.value) < 0.03 and nats.value == pytest.approx(math.log(6), abs=0.05)


def test_pai_is_the_mutual_information_of_a_noisy_label() -> None:
    phones, owners, speakers = labelled(20_000)
    mixed = np.random.default_rng(5).random(len(phones)) < 0.3
    heard = np.where(mixed, np.random.default_rng(2).integers(0, 6, len(phones)), phones)
    keep, rest = 0.7 + 0.3 / 6, 0.3 / 6
    truth = 1 + (keep * math.log(keep) + 5 * rest * math.log(rest)) / math.log(6)
    found, _ = entropy.pai(np.eye(6)[heard], phones, owners, speakers)
    assert found.value == pytest.approx(truth, abs=0.02)
    assert found.interval[0] < found.value < found.interval[1]


def test_parts_of_a_split_share_no_group() -> None:
    groups = [f"g{n % 17}" for n in range(300)]
    parts = entropy.split(groups, seed=3)
    names = [{g for g, here in zip(groups, part, strict=True) if here} for part in (parts.train, parts.dev, parts.test)]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert len(set.union(*names)) == 17 and all(names)
    assert ((parts.train.astype(int) + parts.dev + parts.test) == 1).all()


def test_a_probe_of_one_speaker_is_refused() -> None:
    with pytest.raises(UserError, match="disjoint"):
        entropy.split(["a", "a", "a"])


def homophones(tells: bool) -> entropy.Words:
    """Pairs of words that sound alike; the mean frame tells them apart, or tells the sound alone."""
    count = 6000
    labels = rng().integers(0, 8, count)
    sound = labels // 2
    told = np.eye(8)[labels] if tells else np.eye(8)[sound]
    around = [tuple(row) for row in np.random.default_rng(3).integers(0, 4, (count, 2))]
    return entropy.Words(
        labels,
        tuple((int(each), 3 - int(each)) for each in sound),
        tuple(around),
        told + 0.05 * np.random.default_rng(4).standard_normal((count, 8)),
        tuple(f"sentence {n % 200}" for n in range(count)),
        np.arange(count) // 10,
    )


def test_csai_is_what_the_sounds_leave_open() -> None:
    found, control = entropy.csai(homophones(tells=True))
    assert found.value > 0.95
    assert abs(control.value) < 0.03


def test_csai_is_zero_where_frames_tell_the_sounds_alone() -> None:
    found, control = entropy.csai(homophones(tells=False))
    assert abs(found.value) < 0.03 and abs(control.value) < 0.03


def test_allocation_ratios() -> None:
    sizes = np.array([10.0, 20.0, 30.0])  # of utterances
    characters, ctc, llm, text = (nats * sizes for nats in (3.0, 1.0, 0.5, 2.0))
    encoder, language = entropy.allocation(characters, ctc, llm, text)
    assert (encoder.value, language.value) == pytest.approx((0.8, 0.4))
    assert encoder.interval == pytest.approx((0.8, 0.8))
    with pytest.raises(UserError, match="learned nothing"):
        entropy.allocation(characters, ctc, 3.5 * sizes, text)


def test_character_nats_are_those_of_the_frequencies_and_ends() -> None:
    """aab and b: of 3 + 1 characters and 2 ends, a is 1/3, b 1/3, an end 1/3."""
    assert entropy.character_nats(["aab", "b"]) == pytest.approx([4 * math.log(3), 2 * math.log(3)])


def test_posterior_entropy_is_one_when_flat() -> None:
    assert entropy.posterior_entropy(np.full((3, 5), -math.log(5))) == pytest.approx(1.0)
