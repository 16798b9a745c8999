"""One HTML file of an experiment that needs no network: what it is, its results, curves, analyses and examples to hear.

The program behind the page stands in `page.html`; it shares style and functions with the page of a score. Pictures and
audio are in the file.
"""

import base64
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from asrllm.console import UserError
from asrllm.data import audio, kaldi
from asrllm.experiment import Experiment
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.score.align import count
from asrllm.score.page import edits_of, fill
from asrllm.score.results import Decoding
from asrllm.score.scoring import RATE, ScoreConfig, align_set
from asrllm.score.sources import read_joined
from asrllm.score.units import splitter
from asrllm.score.utterances import Aligned
from asrllm.text.normalize import normalizer

NORMALIZED = ("word", "char", "mixed")  # units that need no file of their own


@dataclass(frozen=True)
class Example:
    """An utterance with its audio, as an address that holds it."""

    aligned: Aligned
    audio: str


def page(
    folder: Path, decodings: Sequence[Decoding], shown: Sequence[Path], told: str, examples: Sequence[Example]
) -> str:
    """The whole file.

    Args:
        folder: of the experiment.
        decodings: of it, scored.
        shown: folders that asrllm.bin.analyze wrote.
        told: what the examples are of.
        examples: with audio.
    """
    summary = Experiment(folder).summary
    figures = [_curves(folder), *itertools.chain.from_iterable(map(_figures, shown))]
    data = {
        "title": str(folder),
        "about": _about(summary),
        "results": [row for each in decodings for row in _results(each)],
        "figures": [figure for figure in figures if figure],
        "examples_of": told,
        "examples": [_example(each) for each in examples],
    }
    return fill(Path(__file__).with_suffix(".html"), data)


def choose(decoding: Decoding, folder: Path, data: Path, most: int) -> list[Example]:
    """Up to `most` utterances of a scored decoding, evenly from the most errors to the fewest, aligned anew.

    Raises:
        UserError: a data directory of other utterances, or a score in no unit that can be aligned without its files.
    """
    score = decoding.score
    unit = next((each.unit for each in score.units if each.unit in NORMALIZED), None)
    if unit is None:
        raise UserError(
            f"{folder}: scored in none of the units {', '.join(NORMALIZED)}: score it again with one of them"
        )
    settings = ScoreConfig.model_validate({"normalizer": score.normalizer, "units": (unit,)})
    normalize = normalizer(settings.normalizer)
    changes = None if settings.normalizer == "none" else normalize
    joined = read_joined(data, folder, changes, "spu_id", score.match.case_sensitive, None)
    alignments = align_set(joined, unit, score.match, splitter(unit, settings, normalize.spaced))
    ranked = sorted(alignments, key=lambda each: -count(each.edits).errors)
    step = max(1.0, len(ranked) / max(1, most))
    chosen = [ranked[int(place * step)] for place in range(min(most, len(ranked)))]
    recordings = {each.utt_id: each for each in kaldi.read(data)}
    return [Example(each, _heard(recordings[each.utterance.utt_id])) for each in chosen]


def _heard(utterance: kaldi.Utterance) -> str:
    stream = io.BytesIO()
    soundfile.write(stream, audio.load(utterance, SAMPLE_RATE).numpy(), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return _address("audio/wav", stream.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _about(summary: Mapping[str, Any]) -> list[list[str]]:
    trained = ", ".join(f"{part} ({size / 1e6:.2f} M)" for part, size in (summary.get("trained") or {}).items())
    valid = ", ".join(f"{name} {value:.4g}" for name, value in (summary.get("valid") or {}).items())
    flops = (summary.get("flops") or {}).get("model")
    rows = {
        "trained": trained,
        "steps": summary.get("steps"),
        "model FLOPs": f"{flops:.3e}" if flops else None,
        "audio, hours": f"{summary['audio_hours']:.2f}" if "audio_hours" in summary else None,
        "wall clock, hours": f"{summary['wall_hours']:.2f}" if "wall_hours" in summary else None,
        "validation": valid,
        "command": summary.get("command"),
        "commit": summary.get("commit"),
    }
    return [[name, str(value)] for name, value in rows.items() if value]


def _results(decoding: Decoding) -> Iterator[list[str | int | float]]:
    for score in decoding.score.units:
        bounds = score.interval_percent
        interval = "-" if bounds is None else f"{bounds[0]:.2f} to {bounds[1]:.2f}"
        percent = "-" if score.err_percent is None else f"{score.err_percent:.2f}"
        counts = [score.sentences, score.tokens, score.substitutions, score.deletions, score.insertions]
        yield [f"{decoding.name}/{decoding.set}", RATE[score.unit], *counts, percent, interval]


def _curves(folder: Path) -> dict[str, Any] | None:
    path = folder / "curves.png"
    if not path.is_file():
        return None
    return {"title": "Curves", "blocks": [], "picture": _address("image/png", path.read_bytes())}


def _figures(folder: Path) -> Iterator[dict[str, Any]]:
    """Each analysis in a folder: its table and its picture."""
    paths = sorted(folder.glob("*.md"))
    if not paths:
        raise UserError(f"{folder}: no analysis there: make one with asrllm.bin.analyze COMMAND --out {folder}")
    for path in paths:
        picture = path.with_suffix(".png")
        shown = _address("image/png", picture.read_bytes()) if picture.is_file() else None
        yield {"title": path.stem.capitalize(), "blocks": _blocks(path.read_text(encoding="utf-8")), "picture": shown}


def _blocks(text: str) -> list[str | list[list[str]]]:
    """Paragraphs of Markdown as they are, tables as rows of cells, the head first."""
    found: list[str | list[list[str]]] = []
    for is_table, lines in itertools.groupby(text.splitlines(), key=lambda line: line.startswith("|")):
        if is_table:
            rows = [line[1:-1].replace("`", "").split("|") for line in lines]
            found.append([rows[0], *rows[2:]])
        else:
            found += [line.lstrip("# ").replace("`", "") for line in lines if line.strip()]
    return found


def _example(example: Example) -> dict[str, Any]:
    counts = count(example.aligned.edits)
    edits = edits_of(example.aligned)
    name = example.aligned.utterance.name
    return {"name": name, "errors": counts.errors, "tokens": counts.tokens, "edits": edits, "audio": example.audio}
