"""The data doctor's report, as text, JSON and a picture of lengths and speaking rates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from asrllm.console import write_atomically
from asrllm.data.doctor import Examined, Finding

WORDS = {
    "broken_rule": "lines that break a rule of Kaldi's",
    "unusable_audio": "utterances whose audio cannot be used",
    "wrong_duration": "utterances whose table tells another length than their audio",
    "too_short_for_ctc": "utterances too short to write their characters by CTC",
    "clipping": "utterances that are clipped",
    "silence": "utterances that are almost all silence",
    "faint": "utterances that are very faint",
    "odd_speaking_rate": "utterances spoken at an unusual rate: is the transcript theirs?",
    "duplicate_audio": "utterances whose audio another one has too",
    "duplicate_text": "utterances whose sentence another one has too",
    "invisible_characters": "utterances with characters that do not show",
    "mixed_sample_rates": "more than one sample rate",
    "speakers_in_training": "utterances of speakers who are in the training set",
    "sentences_in_training": "utterances whose sentence is in the training set",
    "audio_in_training": "utterances whose audio is in the training set",
    "unseen_characters": "characters that the training set lacks",
}


def write(examined: Sequence[Examined], shared: Sequence[Mapping[str, Finding]], out: Path, listened: bool) -> str:
    """Write report.txt, report.json and report.png; returns the text.

    Args:
        examined: the training set, then those it is held against.
        shared: what each of the latter shares with the training set.
        out: folder.
        listened: whether all audio was decoded.
    """
    entries = [_entry(each, found) for each, found in zip(examined, [{}, *shared], strict=True)]
    text = "".join(_paragraph(entry) for entry in entries)
    if not listened:
        text += "Only headers were read: --listen looks for clipping, silence and equal recordings too.\n"
    out.mkdir(parents=True, exist_ok=True)
    with write_atomically(out / "report.txt") as temporary:
        temporary.write_text(text, encoding="utf-8")
    with write_atomically(out / "report.json") as temporary:
        temporary.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _draw(examined, out / "report.png")
    return text


def _entry(each: Examined, shared: Mapping[str, Finding]) -> dict[str, Any]:
    seconds, rates = np.array(each.seconds), each.rates
    return {
        "folder": str(each.folder),
        "utterances": len(seconds),
        "speakers": len(each.speakers),
        "hours": float(seconds.sum()) / 3600,
        "sample_rates": dict(each.sample_rates.most_common()),
        "seconds": _quantiles(seconds),
        "characters_per_second": _quantiles(rates),
        "characters": dict(each.characters.most_common()),
        "findings": {kind: asdict(found) for kind, found in {**each.findings, **shared}.items()},
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    names = ("least", "1 %", "median", "99 %", "most")
    return dict(zip(names, map(float, np.quantile(values, [0, 0.01, 0.5, 0.99, 1])), strict=True))


def _paragraph(entry: dict[str, Any]) -> str:
    rates = ", ".join(f"{rate} Hz" for rate in entry["sample_rates"]) or "no audio"
    size = f"{entry['utterances']} utterances, {entry['speakers']} speakers, {entry['hours']:.2f} hours"
    lines = [f"{entry['folder']}: {size}, {rates}, {len(entry['characters'])} characters"]
    for name, unit in (("seconds", "s"), ("characters_per_second", "characters/s")):
        if entry[name]:
            spread = ", ".join(f"{label} {value:.2f}" for label, value in entry[name].items())
            lines.append(f"  {unit}: {spread}")
    for kind, found in sorted(entry["findings"].items(), key=lambda item: -item[1]["count"]):
        lines.append(f"  {found['count']} {WORDS[kind]} ({kind})")
        lines += [f"    {example}" for example in found["examples"][:3]]
    if not entry["findings"]:
        lines.append("  nothing odd")
    return "\n".join(lines) + "\n"


def _draw(examined: Sequence[Examined], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    lengths, rates = figure.subplots(1, 2)
    for axes, title, kind in ((lengths, "seconds", 0), (rates, "characters per second", 1)):
        for each in examined:
            values = each.rates if kind else np.array(each.seconds)
            if len(values):
                top = float(np.quantile(values, 0.999)) or 1.0
                axes.hist(np.clip(values, 0, top), bins=60, density=True, alpha=0.6, label=str(each.folder))
        axes.set_xlabel(title)
        axes.set_ylabel("share of utterances")
        axes.set_yticks([])
    lengths.legend()
    FigureCanvasAgg(figure)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
