"""A whole pretrained recogniser as its makers left it, for a figure to compare one's own models with.

Whisper and Moonshine generate greedily, CTC models (wav2vec 2.0, HuBERT, WavLM) take the best label of every frame.
"""

import math
from typing import Any

import torch

from asrllm.console import UserError
from asrllm.models.pretrained import model_type

GENERATIVE = ("whisper", "moonshine")
TOKENS_PER_SECOND = 6.5  # Moonshine's makers' bound on real speech; whatever passes it is a loop
SPARE_TOKENS = 6  # start, task and end tokens, and some for very short recordings
MIN_SAMPLES = 1600  # a tenth of a second: below it no kind has a full window, and no word fits


class ZeroShotRecogniser:
    """Transcribes with the pretrained model in a folder (or of a hub id), its decoder included.

    Utterances go through one at a time, so that none depends on its batch mates. Raises UserError where the model
    is missing or not a recogniser.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        import transformers

        kinds: dict[str, Any] = {
            "whisper": transformers.WhisperForConditionalGeneration,
            "moonshine": transformers.MoonshineForConditionalGeneration,
            "wav2vec2": transformers.Wav2Vec2ForCTC,
            "hubert": transformers.HubertForCTC,
            "wavlm": transformers.WavLMForCTC,
        }
        self.kind = model_type(model)
        if self.kind not in kinds:
            raise UserError(f"{model} is of model_type {self.kind!r}, expected one of {', '.join(kinds)}")
        self.model, report = kinds[self.kind].from_pretrained(model, dtype=torch.float32, output_loading_info=True)
        if missing := [key for key in report["missing_keys"] if not key.endswith("masked_spec_embed")]:
            raise UserError(f"{model} is not a whole recogniser: it lacks {', '.join(sorted(missing))}")
        self.model.eval().to(device)
        self.processor = transformers.AutoProcessor.from_pretrained(model)

    @torch.inference_mode()
    def transcribe(self, waves: torch.Tensor, wave_lens: torch.Tensor) -> list[str]:
        """`waves` (B, S) at 16 kHz with `wave_lens` (B,) -> B texts as the model writes them (case, punctuation)."""
        return [self._transcribe_one(wave[:size]) for wave, size in zip(waves, wave_lens.tolist(), strict=True)]

    def _transcribe_one(self, wave: torch.Tensor) -> str:
        if len(wave) < MIN_SAMPLES:
            return ""
        inputs = self.processor(wave.cpu().numpy(), sampling_rate=16000, return_tensors="pt").to(self.model.device)
        if self.kind not in GENERATIVE:
            return self._collapse(self.model(**inputs).logits[0].argmax(-1))
        limit = math.ceil(TOKENS_PER_SECOND * len(wave) / 16000) + SPARE_TOKENS
        ids = self.model.generate(**inputs, max_length=limit, do_sample=False, num_beams=1)
        return str(self.processor.batch_decode(ids, skip_special_tokens=True)[0]).strip()

    def _collapse(self, path: torch.Tensor) -> str:
        """Text of a CTC path (T,): repeats merged first, blank and other special labels dropped afterwards.

        The tokenizer's own `skip_special_tokens` drops the blank first and so writes "helo" for "hello".
        """
        tokenizer = self.processor.tokenizer
        special = set(tokenizer.all_special_ids) - {tokenizer.word_delimiter_token_id}
        labels = [label for label in torch.unique_consecutive(path).tolist() if label not in special]
        return str(tokenizer.decode(labels, group_tokens=False)).strip()
