"""The Conformer: its lengths, its independence of batch mates, its parts against other implementations."""

import pytest
import torch

from asrllm.models.attention import RelativeAttention, sinusoids
from asrllm.models.conformer import Conformer, ConformerConfig
from asrllm.models.frontend import FbankConfig, FrontendConfig, LogMel, SpecAugmentConfig, spec_augment


def small(**changes: object) -> torch.nn.Module:
    """A Conformer, or for a subsampling of 1 the features alone."""
    if changes.get("subsampling") == 1:
        return LogMel(FbankConfig(type="fbank", mels=10)).eval()
    given = {"subsampling_channels": 4, "layers": 2, "dim": 16, "heads": 2, "feed_forward": 32, "kernel": 7, **changes}
    return Conformer(ConformerConfig(type="conformer", **given)).eval()


@pytest.mark.parametrize("subsampling", [1, 4, 8])
def test_output_lens_is_the_real_length_from_1_to_200_frames(subsampling):
    encoder = small(subsampling=subsampling, layers=1)
    for frames in range(1, 201):
        samples = torch.tensor([400 + 160 * (frames - 1) + frames % 160])
        out, lens = encoder(torch.randn(1, int(samples)), samples)
        assert out.shape[1] == int(lens) == int(encoder.output_lens(samples))


@pytest.mark.parametrize("positions", ["rotary", "relative"])
@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("subsampling", [1, 4, 8])
def test_padding_changes_nothing(positions, norm, subsampling):
    encoder = small(positions=positions, convolution_norm=norm, subsampling=subsampling)
    lens = torch.tensor([16000, 9123, 400, 12000])
    waves = torch.randn(4, 16000) * (torch.arange(16000) < lens[:, None])
    together, out_lens = encoder(waves, lens)
    for row, size in enumerate(lens):
        alone, alone_lens = encoder(waves[row : row + 1, :size], lens[row : row + 1])
        assert alone_lens[0] == out_lens[row]
        torch.testing.assert_close(together[row, : out_lens[row]], alone[0], atol=1e-5, rtol=1e-4)


def test_batch_norm_takes_statistics_of_real_frames_only():
    encoder = small(convolution_norm="batch", dropout=0.0, layers=1, frontend=FrontendConfig(specaugment=None))
    norm = encoder.blocks[0].convolution.norm
    waves, lens = torch.randn(1, 8000), torch.tensor([8000])
    encoder.train()(waves, lens)
    alone = norm.running_mean.clone()
    norm.reset_running_stats()
    encoder(torch.nn.functional.pad(waves, (0, 8000)), lens)
    torch.testing.assert_close(norm.running_mean, alone, atol=1e-5, rtol=1e-4)


def mel_power(wave):
    """Power (T, 40) of a wave (S,) in 40 mel bins, frame by frame."""
    from torchaudio.functional import melscale_fbanks

    cut = wave.unfold(0, 400, 160) * torch.hann_window(400)
    power = torch.fft.rfft(torch.nn.functional.pad(cut, (56, 56))).abs() ** 2
    return (power @ melscale_fbanks(257, 20.0, 8000.0, 40, 16000)).clamp(min=1e-10)


def test_log_mel_equals_kaldi_like_framing_of_torchaudio():
    """Frame t is the mel spectrum of samples [160 t, 160 t + 400) under a Hann window, computed here by hand."""
    frontend = LogMel(FrontendConfig(mels=40)).eval()
    wave = torch.randn(1, 4000)
    frames, lens = frontend(wave, torch.tensor([4000]))
    assert lens.tolist() == [(4000 - 400) // 160 + 1]
    mel = mel_power(wave[0]).log()
    mel = mel - mel.mean(0)
    torch.testing.assert_close(frames[0], mel / mel.square().mean().sqrt(), atol=1e-3, rtol=1e-3)


def test_loud_frames_make_the_mean_and_what_is_far_below_is_cut_off():
    """Noise, the same 20 dB and 40 dB lower, and digital silence, computed here frame by frame."""
    noise = torch.randn(4000)
    wave = torch.cat([noise, 0.1 * noise, 0.01 * noise, torch.zeros(4000)])
    mel = mel_power(wave)
    level = 10 * mel.sum(1).log10()
    loud = level >= level.max() - 30
    assert 45 <= int(loud.sum()) <= 55
    mel = mel.clamp(min=float(mel.max()) * 1e-8).log()
    mel = mel - mel[loud].mean(0)
    frames, _ = LogMel(FrontendConfig(mels=40, specaugment=None))(wave[None], torch.tensor([16000]))
    torch.testing.assert_close(frames[0], mel / mel[loud].square().mean().sqrt(), atol=1e-3, rtol=1e-3)


def test_silence_around_the_speech_does_not_change_its_features():
    frontend = LogMel(FrontendConfig(specaugment=None))
    speech = torch.randn(16000) * torch.linspace(0, 3, 16000).sin() * 0.1
    speech[:400] = speech[-400:] = 0
    alone, _ = frontend(speech[None], torch.tensor([16000]))
    for before, after in ((8000, 0), (0, 32000), (16000, 16000)):
        wave = torch.nn.functional.pad(speech, (before, after))[None]
        padded, _ = frontend(wave, torch.tensor([wave.shape[1]]))
        torch.testing.assert_close(padded[:, before // 160 :][:, : alone.shape[1]], alone)


def test_spec_augment_masks_inside_the_utterance_and_each_row_for_itself():
    lens = torch.tensor([100, 40])
    config = SpecAugmentConfig(frequency_masks=1, frequency_width=10, time_masks=1, time_width_share=0.3)
    seen = set()
    for _ in range(50):
        masked = spec_augment(torch.ones(2, 100, 20), lens, config) == 0
        rows = masked.all(2)
        assert rows[1, 40:].sum() == 0
        assert int(rows[0].sum()) <= 30 and int(rows[1].sum()) <= 12
        assert int(masked.all(1).sum(1).max()) <= 10
        seen.add(tuple(rows.sum(1).tolist()))
    assert len(seen) > 10


def test_relative_attention_equals_the_double_loop_over_positions():
    attention = RelativeAttention(8, 2, 0.0).eval()
    torch.nn.init.normal_(attention.content_bias)
    torch.nn.init.normal_(attention.distance_bias)
    frames, size = torch.randn(1, 5, 8), 5
    table = sinusoids(size, 8, frames.device)
    got = attention(frames, torch.ones(1, size, dtype=torch.bool), table)
    query, key, value = attention.inputs(frames)[0].unflatten(-1, (3, 2, 4)).unbind(1)  # (T, heads, 4)
    distance = attention.distance(table).unflatten(-1, (2, 4))  # (2T - 1, heads, 4)
    rows = []
    for i in range(size):
        heads = []
        for head in range(2):
            scores = torch.stack(
                [
                    (query[i, head] + attention.content_bias[head, 0]) @ key[j, head]
                    + (query[i, head] + attention.distance_bias[head, 0]) @ distance[size - 1 - (i - j), head]
                    for j in range(size)
                ]
            )
            heads.append((scores / 2.0).softmax(0) @ value[:, head])
        rows.append(torch.cat(heads))
    torch.testing.assert_close(got[0], attention.out(torch.stack(rows)), atol=1e-5, rtol=1e-4)


def test_intermediate_frames_are_those_after_the_named_layers():
    encoder = small(layers=3, intermediate_layers=(1, 2))
    waves, lens = torch.randn(1, 8000), torch.tensor([8000])
    frames, _, taps = encoder.with_intermediate(waves, lens)
    assert len(taps) == 2
    encoder.blocks = encoder.blocks[:1]
    torch.testing.assert_close(encoder(waves, lens)[0], taps[0])
    assert not torch.equal(frames, taps[1])
