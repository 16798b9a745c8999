"""Folders of audio clips that are not the corpus: noises, music, room impulse responses.

It knows where clips lie and how to cut a piece of any length from one; not what the piece is for.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from asrllm.console import UserError
from asrllm.data import audio

ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3")


class Clips:
    """All clips under some folders, in the order of their paths; the first channel of each.

    Raises:
        UserError: a folder that is not there or holds no clip.
    """

    def __init__(self, folders: Sequence[str], sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.paths: list[str] = []
        for folder in folders:
            found = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in ENDINGS)
            if not found:
                raise UserError(
                    f"{folder}: no audio clip ({' '.join(ENDINGS)}) in this folder: correct its name under data.augment"
                )
            self.paths += found

    def whole(self, number: int) -> torch.Tensor:
        """All samples (S,) of a clip."""
        return audio.load_source(self.paths[number], self.sample_rate, channel=1)

    def piece(self, number: int, place: float, samples: int) -> torch.Tensor:
        """So many samples of a clip, repeated where it is shorter; `place`, from 0 to 1, says where it is cut."""
        about = audio.header(self.paths[number])
        wanted = max(1, -(-samples * about.sample_rate // self.sample_rate))  # at the clip's own rate
        if about.samples <= wanted:
            wave = self.whole(number)
            wave = wave.roll(round(place * len(wave)))
        else:
            start = round(place * (about.samples - wanted))
            span = start / about.sample_rate, (start + wanted) / about.sample_rate
            wave = audio.load_source(self.paths[number], self.sample_rate, *span, channel=1)
        return wave.repeat(-(-samples // len(wave)))[:samples]
