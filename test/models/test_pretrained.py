"""Pretrained encoders against the library's own models on unpadded utterances, and against themselves when padded."""

from pathlib import Path

import pytest
import soundfile
import torch
import transformers

from asrllm.batch import pad
from asrllm.console import UserError
from asrllm.models.pretrained import PretrainedConfig, PretrainedEncoder
from asrllm.models.whisper import LogMel

RAW = ["moonshine", "wav2vec2-group", "wav2vec2-layer", "hubert", "wavlm"]
KINDS = [*RAW, "whisper-pad_30s", "whisper-cut"]
SAMPLES = [16000, 9000, 12345, 4321]


def tiny_model(kind: str) -> transformers.PreTrainedModel:
    """A random model of `kind` with two narrow layers; weights large enough for padding to be seen."""
    name, _, variant = kind.partition("-")
    if name == "moonshine":
        config = transformers.MoonshineConfig(
            hidden_size=32,
            intermediate_size=64,
            encoder_num_hidden_layers=2,
            decoder_num_hidden_layers=1,
            encoder_num_attention_heads=2,
            decoder_num_attention_heads=2,
            vocab_size=50,
            initializer_range=0.3,
        )
        return transformers.MoonshineModel(config)
    if name == "whisper":
        config = transformers.WhisperConfig(
            d_model=32,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            vocab_size=60,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            init_std=0.3,
        )
        return transformers.WhisperModel(config)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": [16] * 7,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "feat_extract_norm": variant or "group",
        "do_stable_layer_norm": variant == "layer",
        "initializer_range": 0.3,
    }
    match name:
        case "wav2vec2":
            return transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**shape))
        case "hubert":
            return transformers.HubertModel(transformers.HubertConfig(**shape))
    return transformers.WavLMModel(transformers.WavLMConfig(**shape))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def saved(kind: str, folder: Path) -> tuple[transformers.PreTrainedModel, PretrainedEncoder]:
    """A tiny model written to `folder`, and the encoder read from there."""
    model = tiny_model(kind).eval()
    model.save_pretrained(folder)
    if kind.startswith(("wav2vec2", "hubert", "wavlm")):
        transformers.Wav2Vec2FeatureExtractor(do_normalize=kind != "hubert").save_pretrained(folder)
    padding = "cut" if kind == "whisper-cut" else "pad_30s"
    config = PretrainedConfig(type="pretrained", model=str(folder), whisper_padding=padding)
    return model, PretrainedEncoder(config).eval()


def recordings() -> list[torch.Tensor]:
    """Noise around a constant, of several lengths and loudnesses."""
    return [torch.randn(size) * 0.1 * (row + 1) + 0.05 for row, size in enumerate(SAMPLES)]


@torch.no_grad()
def library_frames(kind: str, model: transformers.PreTrainedModel, wave: torch.Tensor) -> torch.Tensor:
    """What the library makes of one unpadded utterance (T, D)."""
    if kind == "moonshine":
        return model.encoder(wave[None]).last_hidden_state[0]
    if not kind.startswith("whisper"):
        features = transformers.Wav2Vec2FeatureExtractor(do_normalize=kind != "hubert")
        inputs = features(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_values
        return model(inputs).last_hidden_state[0]
    features = transformers.WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    log_mel = features(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    if kind == "whisper-pad_30s":
        return model.encoder(log_mel).last_hidden_state[0]
    mel_frames = len(wave) // 160 // 2 * 2  # the library takes even numbers only
    model.config.max_source_positions = mel_frames // 2
    model.encoder.embed_positions = torch.nn.Embedding.from_pretrained(
        model.encoder.embed_positions.weight[: mel_frames // 2]
    )
    return model.encoder(log_mel[:, :, :mel_frames]).last_hidden_state[0]


@torch.no_grad()
def test_frames_equal_the_library_on_one_unpadded_utterance(kind: str, tmp_path: Path) -> None:
    model, encoder = saved(kind, tmp_path)
    wave = torch.randn(14400) * 0.1 + 0.05
    frames, lens = encoder(wave[None], torch.tensor([len(wave)]))
    expected = library_frames(kind, model, wave)
    if kind == "whisper-pad_30s":
        assert len(expected) == 1500 and lens.tolist() == [45]
        expected = expected[:45]
    assert frames.shape == (1, *expected.shape) and encoder.dim == frames.shape[2]
    torch.testing.assert_close(frames[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_changes_no_result(kind: str, tmp_path: Path) -> None:
    _, encoder = saved(kind, tmp_path)
    rows = recordings()
    waves, lens = pad(rows)
    frames, frame_lens = encoder(torch.nn.functional.pad(waves, (0, 5000)), lens)
    for row, wave in enumerate(rows):
        alone, alone_lens = encoder(wave[None], torch.tensor([len(wave)]))
        assert alone_lens[0] == frame_lens[row]
        torch.testing.assert_close(frames[row, : frame_lens[row]], alone[0], atol=1e-5, rtol=1e-5)
        assert not frames[row, frame_lens[row] :].any()


@torch.no_grad()
def test_output_lens_equal_the_real_lengths(kind: str, tmp_path: Path) -> None:
    model, encoder = saved(kind, tmp_path)
    sizes = [400, 719, 720, 894, 895, 896, 1279, 1280, 5000, *range(8000, 8400, 37)]
    for size in sizes if kind in RAW else [320, 1600, 16160, 16200]:
        wave = torch.randn(size)
        lens = encoder.output_lens(torch.tensor([size]))
        frames, frame_lens = encoder(wave[None], torch.tensor([size]))
        assert torch.equal(lens, frame_lens) and frames.shape[1] == max(1, int(lens))
        if kind == "moonshine" and size < 895:
            assert int(lens) == 0
        elif kind in RAW:
            assert int(lens) == len(library_frames(kind, model, wave))
        else:
            assert int(lens) == -(-(size // 160) // 2)


def test_an_utterance_too_short_for_a_frame_has_none_and_a_finite_gradient(kind: str, tmp_path: Path) -> None:
    _, encoder = saved(kind, tmp_path)
    lens = torch.tensor([100, 8000])
    frames, frame_lens = encoder(torch.randn(2, 8000), lens)
    assert frame_lens[0] == 0 and not frames[0].any()
    frames.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
    assert encoder(torch.randn(1, 100), torch.tensor([100]))[1].tolist() == [0]


def test_only_the_encoder_is_kept(kind: str, tmp_path: Path) -> None:
    _, encoder = saved(kind, tmp_path)
    assert not [name for name, _ in encoder.named_parameters() if "decoder" in name or "masked_spec" in name]


@pytest.mark.parametrize("mel_bins", [80, 128])
def test_log_mel_equals_the_feature_extractor(mel_bins: int) -> None:
    wave = torch.randn(30000) * 0.1
    features = transformers.WhisperFeatureExtractor(feature_size=mel_bins)
    expected = features(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    found = LogMel(mel_bins)(torch.nn.functional.pad(wave, (0, 480000 - 30000))[None])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_intermediate_frames_of_whisper_are_the_librarys_hidden_states(tmp_path: Path) -> None:
    model, _ = saved("whisper-pad_30s", tmp_path)
    config = PretrainedConfig(type="pretrained", model=str(tmp_path), intermediate_layers=(1,))
    encoder, wave = PretrainedEncoder(config).eval(), torch.randn(14400) * 0.1
    frames, lens, taps = encoder.with_intermediate(wave[None], torch.tensor([14400]))
    features = transformers.WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    log_mel = features(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    states = model.encoder(log_mel, output_hidden_states=True).hidden_states
    assert len(taps) == 1
    torch.testing.assert_close(taps[0][0], states[1][0, : int(lens)], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(frames, encoder(wave[None], torch.tensor([14400]))[0])


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder"):
        PretrainedEncoder(PretrainedConfig(type="pretrained", model=str(tmp_path / "nowhere")))
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="model_type 'bert'"):
        PretrainedEncoder(PretrainedConfig(type="pretrained", model=str(tmp_path / "bert")))
    _, encoder = saved("whisper-cut", tmp_path / "whisper")
    with pytest.raises(UserError, match="30.0 s is longer"):
        encoder(torch.zeros(1, 480001), torch.tensor([480001]))


def test_a_missing_weight_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny_model("moonshine")
    weights = model.state_dict()
    del weights["encoder.layers.1.mlp.fc1.weight"]
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(UserError, match="encoder.layers.1.mlp.fc1.weight"):
        PretrainedEncoder(PretrainedConfig(type="pretrained", model=str(tmp_path)))


@torch.no_grad()
@pytest.mark.parametrize("part", ["moonshine-base", "whisper-tiny.en"])
def test_real_weights_on_real_speech(part: str, pretrained: Path, real_data: Path) -> None:
    encoder = PretrainedEncoder(
        PretrainedConfig(type="pretrained", model=str(pretrained / part), whisper_padding="cut")
    ).eval()
    speech = torch.from_numpy(soundfile.read(real_data / "misc" / "jfk.flac", dtype="float32")[0])[:80000]
    rows = [speech, speech[:30000], speech[20000:60001]]
    waves, lens = pad(rows)
    frames, frame_lens = encoder(waves, lens)
    for row, wave in enumerate(rows):
        alone, _ = encoder(wave[None], torch.tensor([len(wave)]))
        # Whisper's activations reach the hundreds: the bound is relative to the largest.
        bound = 1e-5 * float(alone.abs().max())
        torch.testing.assert_close(frames[row, : frame_lens[row]], alone[0], atol=max(bound, 1e-5), rtol=1e-5)
