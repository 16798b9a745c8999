"""Part long recordings into segments in which somebody speaks: a data directory that is decoded like any other.

    python -m asrllm.bin.segment --config conf/segment.yaml --recordings tapes/ --out data/tapes
    python -m asrllm.bin.decode --config conf/decode_joint.yaml --exp exp/train_joint --data data/tapes --out exp/tapes
    python -m asrllm.bin.align --exp exp/train_joint --data data/tapes --hyp exp/tapes --out exp/tapes/times

The last line joins the results: words, subtitles and texts of each recording, with its times. Recordings of any
length take the same memory. Those without speech are listed in `no_speech`. Wants the package silero-vad.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from asrllm import config as configs
from asrllm import console
from asrllm.console import UserError, positive, write_atomically
from asrllm.data import audio, kaldi
from asrllm.data.importing import audio_files
from asrllm.data.kaldi import Utterance
from asrllm.data.layouts import AUDIO_SUFFIXES
from asrllm.data.voice_activity import SegmentConfig, Silero, segment

SCHEMA = SegmentConfig
log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(
        prog="segment", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--config", type=Path, required=True, help="YAML: threshold, pauses, padding, longest segment")
    parse.add_argument(
        "--recordings",
        type=Path,
        required=True,
        help="folder of audio files, in folders of speakers or not, or a Kaldi directory (wav.scp, utt2spk)",
    )
    parse.add_argument("--out", type=Path, required=True, help="data directory with segments; an older one is replaced")
    parse.add_argument("--channel", type=positive, help="channel from 1, where recordings have several")
    parse.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the YAML")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Segment all recordings."""
    args = parser().parse_args(argv)
    config = configs.load(args.config, SCHEMA, args.set)
    recordings = _recordings(args.recordings, args.channel)
    vad = Silero()
    found: list[Utterance] = []
    silent: list[str] = []
    for recording in console.track(recordings, "listening", len(recordings), "recordings"):
        segments = segment(recording, vad, config)
        found += segments
        if not segments:
            silent.append(f"{recording.utt_id} {audio.seconds(recording):.2f}\n")
    if not found:
        raise UserError(f"{args.recordings}: no speech found in its {len(recordings)} recordings: lower threshold")
    with write_atomically(args.out) as temporary:
        kaldi.write(found, temporary)
        (temporary / "no_speech").write_text("".join(silent), encoding="utf-8")
    speech, total = (sum(audio.seconds(each) for each in some) for some in (found, recordings))
    log.info("%s: %d segments, %.0f s of %.0f s of %d recordings", args.out, len(found), speech, total, len(recordings))
    if silent:
        log.warning("%s: no speech found in %d recordings", args.out / "no_speech", len(silent))


def _recordings(folder: Path, channel: int | None) -> list[Utterance]:
    """Whole recordings; a speaker is the folder that a file lies in, or the file itself."""
    if (folder / "wav.scp").is_file():
        return kaldi.read(folder, channel)
    files = audio_files(folder)
    if not files:
        raise UserError(f"{folder}: holds no audio file ({' '.join(AUDIO_SUFFIXES)}) and no wav.scp")
    return [Utterance(name, first or name, "", str(path), channel=channel) for path, name, first in files]


if __name__ == "__main__":
    console.run(main)
