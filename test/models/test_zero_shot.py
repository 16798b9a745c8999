"""Whole pretrained recognisers: right words on real speech, no loop on noise, CTC equal to the library's own path."""

import json
from pathlib import Path

import pytest
import soundfile
import torch
import transformers

from asrllm.console import UserError
from asrllm.models.zero_shot import ZeroShotRecogniser


@pytest.mark.parametrize("part", ["moonshine-base", "whisper-tiny.en"])
def test_a_well_known_sentence(part: str, pretrained: Path, real_data: Path) -> None:
    recogniser = ZeroShotRecogniser(str(pretrained / part))
    speech = torch.from_numpy(soundfile.read(real_data / "misc" / "jfk.flac", dtype="float32")[0])
    waves = torch.stack([speech, torch.zeros_like(speech)])
    text, nothing = recogniser.transcribe(waves, torch.tensor([len(speech), 500]))
    words = "".join(letter for letter in text.lower() if letter.isalpha() or letter == " ").split()
    assert " ".join(words) == (
        "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
    )
    assert nothing == ""


def test_noise_gives_no_loop(pretrained: Path) -> None:
    recogniser = ZeroShotRecogniser(str(pretrained / "moonshine-base"))
    (text,) = recogniser.transcribe(torch.randn(1, 16000) * 0.3, torch.tensor([16000]))
    assert len(recogniser.processor.tokenizer(text).input_ids) <= 14  # 6.5 tokens a second, spare ones, start


def test_ctc_takes_the_best_label_of_every_frame(tmp_path: Path) -> None:
    letters = {"<pad>": 0, "|": 1, "a": 2, "b": 3, "<unk>": 4, "<s>": 5, "</s>": 6}
    (tmp_path / "vocab.json").write_text(json.dumps(letters))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(tmp_path)
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        vocab_size=len(letters),
        initializer_range=1.0,
    )
    transformers.Wav2Vec2ForCTC(config).save_pretrained(tmp_path)
    recogniser = ZeroShotRecogniser(str(tmp_path))
    waves = torch.randn(2, 16000)
    found = recogniser.transcribe(waves, torch.tensor([16000, 9000]))
    for text, wave in zip(found, [waves[0], waves[1, :9000]], strict=True):
        wave = (wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt()
        with torch.no_grad():
            best = recogniser.model(wave[None]).logits[0].argmax(-1).tolist()
        path = [label for label, before in zip(best, [None, *best], strict=False) if label != before and label != 0]
        specials = {"<unk>", "<s>", "</s>"}
        names = [name for label in path for name, number in letters.items() if number == label and name not in specials]
        assert text == "".join(names).replace("|", " ").strip()


def test_an_encoder_without_its_decoder_is_refused(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'bert'"):
        ZeroShotRecogniser(str(tmp_path))
