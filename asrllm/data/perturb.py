"""A directory whose audio is played faster or slower by sox, as `perturb_data_dir_speed.sh` of Kaldi makes it.

Recipes here need none of it: training draws a speed for each utterance and epoch (`data.speed_factors`).
"""

import re
import shlex
import shutil

from asrllm.console import UserError
from asrllm.data import tables as directory
from asrllm.data.tables import Tables

_STALE = ("feats.scp", "vad.scp", "cmvn.scp", "utt2num_frames", "utt2num_samples")  # of other audio


def speed(tables: Tables, factor: str) -> Tables:
    """The directory at `factor` times the speed, under new ids (`sp0.9-` before the old ones).

    Raises:
        UserError: no sox, not a speed, or audio in an archive, which sox cannot read.
    """
    try:
        rate = float(factor)
    except ValueError:
        rate = 0.0
    if not 0.1 <= rate <= 10:
        raise UserError(f"speed factor {factor}: expected a number from 0.1 to 10, such as 0.9")
    if not shutil.which("sox"):
        raise UserError("sox is not on the PATH, and the pipes of the new wav.scp would call it: install sox")
    kept = {name: table for name, table in tables.items() if name not in _STALE}

    def renamed(name: str) -> str:
        return f"sp{factor}-{name}"

    made = directory.rename(kept, renamed, renamed, renamed)
    made["wav.scp"] = {name: _through_sox(source, factor) for name, source in made["wav.scp"].items()}
    for name in ("utt2dur", "reco2dur"):
        if name in made:
            made[name] = {key: f"{float(value) / rate:.6f}" for key, value in made[name].items()}
    if "segments" in made:
        made["segments"] = {key: _stretch(value, rate) for key, value in made["segments"].items()}
    return made


def _through_sox(source: str, factor: str) -> str:
    if source.endswith("|"):
        return f"{source.removesuffix('|').rstrip()} | sox -t wav - -t wav - speed {factor} |"
    if re.search(r":\d+$", source):
        raise UserError(f"{source}: sox cannot read an archive: change the speed before the directory is formatted")
    return f"sox {shlex.quote(source)} -t wav - speed {factor} |"


def _stretch(segment: str, rate: float) -> str:
    recording, *times = segment.split()
    scaled = ("-1" if float(time) == -1 else f"{float(time) / rate:.6f}" for time in times)
    return " ".join((recording, *scaled))
