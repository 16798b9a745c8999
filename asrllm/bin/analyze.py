"""Why one system is better than another, and what it cost: figures and pictures of finished experiments.

Each command writes a table (.md), the same values (.json) and a picture (.png) into the folder --out.
"""

import argparse
import itertools
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from asrllm import console, dist
from asrllm.analysis import alignment, listening, pictures, runs, tables
from asrllm.analysis import panel as panels
from asrllm.analysis.alignment import Alignment
from asrllm.analysis.attention import attention, looked_at
from asrllm.analysis.entropy import Estimate, Floats
from asrllm.analysis.listening import Audio, Held
from asrllm.analysis.panel import Settings
from asrllm.analysis.scaling import fit
from asrllm.console import UserError, positive, write_atomically
from asrllm.data.kaldi import Utterance
from asrllm.experiment import Experiment
from asrllm.score import results
from asrllm.score.scoring import RATE
from asrllm.train import emergence
from asrllm.train.cka import CkaConfig, linear_cka, linear_ckas
from asrllm.train.log import accuracies, read_metrics

log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="analyze", description=__doc__, allow_abbrev=False)
    commands = parse.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        made.add_argument("--out", type=Path, required=True, help="folder for the table, the values and the picture")
        return made

    one = command("scaling", "law of error against training FLOPs, by schedule: fit, intervals, comparison, picture")
    one.add_argument("--ladder", type=Path, help="experiments folder of a ladder (asrllm.bin.ladder)")
    one.add_argument(
        "--schedule",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "EXP"),
        help="a schedule and its finished experiments, the last one of each chain; may be given again; the first "
        "schedule is the one that others are compared with",
    )
    one.add_argument("--decoding", required=True, help="which score of each experiment, such as decode_greedy/test")
    one.add_argument("--unit", choices=list(RATE), default="word", help="of the error rate (word)")
    one.add_argument("--error", type=float, help="percent at which FLOPs are compared (the worst schedule's best)")

    one = command("emergence", "the step at which the LLM began to use the audio, its height and slope, run by run")
    one.add_argument("experiments", type=Path, nargs="+", metavar="EXP", help="experiment; may still be running")

    about = "linear CKA of two encoders, each layer with each, and of their projectors; of more, output with output"
    one = command("drift", about)
    one.add_argument(
        "places", type=Path, nargs="+", metavar="EXP", help="two or more: EXP, or EXP/checkpoints|snapshots/step-N"
    )
    _data(one)
    one.add_argument("--utterances", type=positive, default=CkaConfig().utterances, help="drawn from the data (300)")
    one.add_argument("--frames", type=positive, default=CkaConfig().frames, help="drawn from these utterances (20000)")

    one = command("entropy", "how encoder and LLM share the work: NSE, PAI, CSAI, CTC entropy, allocation ratios")
    one.add_argument("experiments", type=Path, nargs="+", metavar="EXP", help="experiments, compared on equal terms")
    _data(one)
    one.add_argument(
        "--aligner", type=Path, metavar="EXP", help="whose CTC head aligns the audio for all (the first EXP)"
    )
    one.add_argument("--units", type=Path, metavar="CTM", help="times of phones, in the place of an aligner")
    one.add_argument("--words", type=Path, metavar="CTM", help="times of words, beside --units")
    one.add_argument("--frames", type=positive, default=Settings().frames, help="that NSE and probes read (20000)")
    one.add_argument(
        "--min_count", type=positive, default=Settings().min_count, help="of a word that CSAI asks for (20)"
    )

    one = command("attention", "what the LLM looks at in one utterance: weights by layer and head, shares by piece")
    one.add_argument("experiment", type=Path, metavar="EXP")
    _data(one)
    one.add_argument("--utterance", metavar="ID", help="of the data (its first)")
    one.add_argument(
        "--layers", type=positive, nargs="+", metavar="N", help="from 1; of these every head is drawn (all)"
    )

    one = command("hallucination", "text that nobody said: shares with exact intervals over decoded sets")
    one.add_argument("--exp", type=Path, required=True, help="folder of the experiments")
    one.add_argument(
        "--only", action="append", metavar="PATTERN", help="such as '*/decode_joint*/*'; may be given again"
    )
    return parse


def _data(parse: argparse.ArgumentParser) -> None:
    parse.add_argument("--data", type=Path, required=True, help="data directory; the same audio for all experiments")
    parse.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")
    parse.add_argument("--ngpu", type=int, default=0, help="0: the CPU")


def main(argv: Sequence[str] | None = None) -> None:
    """Do one command."""
    args = parser().parse_args(argv)
    run = {"scaling": _scaling, "emergence": _emergence, "drift": _drift, "hallucination": _hallucination}
    run |= {"entropy": _entropy, "attention": _attention}
    run[args.command](args)


def _write(args: argparse.Namespace, text: str, values: Any, figure: Figure) -> None:
    """The three files of a command, and its table on the terminal."""
    paths = {".md": text, ".json": json.dumps(_plain(values), indent=1, ensure_ascii=False) + "\n"}
    for suffix, content in paths.items():
        with write_atomically(args.out / f"{args.command}{suffix}") as temporary:
            temporary.write_text(content, encoding="utf-8")
    pictures.save(figure, args.out / f"{args.command}.png")
    print(text, end="")
    log.info("%s: %s.md, .json, .png", args.out, args.command)


def _plain(values: Any) -> Any:
    """For JSON, which knows no infinity and no NaN: null in their place."""
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _scaling(args: argparse.Namespace) -> None:
    schedules = runs.read_ladder(args.ladder, args.decoding) if args.ladder else {}
    for name, *folders in args.schedule:
        if not folders:
            raise UserError(f"--schedule {name}: names no experiment: give its folders after the name")
        schedules[name] = [*schedules.get(name, []), *map(Path, folders)]
    if not schedules:
        raise UserError("scaling: no runs are named: give --ladder FOLDER or --schedule NAME EXP EXP ...")
    read = runs.read_runs(schedules, args.decoding, args.unit)
    by_name = {name: [run for run in read if run.schedule == name] for name in schedules}
    points = {name: [run.point for run in each] for name, each in by_name.items()}
    fits = {}
    for name, each in points.items():
        try:
            fits[name] = fit(each)
        except UserError as fault:
            raise UserError(f"{name}: {fault}") from None
    text, values = tables.scaling(by_name, fits, args.error)
    _write(args, text, values, pictures.scaling(points, fits, RATE[args.unit]))


def _emergence(args: argparse.Namespace) -> None:
    curves, found = {}, {}
    for folder in args.experiments:
        curve = accuracies(read_metrics(folder))
        warmup = Experiment(folder).config.stage.phases[0].warmup_steps
        if not curve[0]:
            raise UserError(
                f"{folder / 'metrics.jsonl'}: logs no accuracy of an LLM: was it trained with the loss llm?"
            )
        curves[str(folder)], found[str(folder)] = curve, emergence.find(*curve, warmup)
    values = {name: asdict(jump) if jump else None for name, jump in found.items()}
    _write(args, tables.emergence(curves, found), values, pictures.jumps(curves, found))


def _drift(args: argparse.Namespace) -> None:
    if len(args.places) < 2:
        raise UserError(f"drift: {args.places[0]} is compared with nothing: name two experiments or more")
    device = dist.start(args.ngpu)
    corpus = Audio(args.data)
    held = []
    for place in args.places:
        batches = corpus.drawn(args.utterances, args.seed)
        held.append(listening.listen(listening.load(place, device), batches, device, layers=len(args.places) == 2))
    names = [str(place) for place in args.places]
    if len(held) == 2:
        frames, values = _layers(held[0], held[1], args)
        rows, columns, titles = held[0].sites, held[1].sites, (names[0], names[1])
        of = f"CKA of `{names[0]}` (rows) and `{names[1]}` (columns)"
    else:
        frames, values = _outputs(held, args)
        rows, columns, titles, of = names, names, ("", ""), "CKA of the encoders' outputs"
    cells = [
        [name, *(results.NONE if np.isnan(value) else f"{value:.3f}" for value in row)]
        for name, row in zip(rows, values, strict=True)
    ]
    text = f"{of}, {frames} frames\n\n" + results.markdown_table(["", *columns], cells) + "\n"
    figures = {"rows": rows, "columns": columns, "cka": values.tolist()}
    figure = pictures.heat_map(values, rows, columns, titles)
    _write(args, text, {"experiments": names, "frames": frames, **figures}, figure)


def _layers(one: Held, other: Held, args: argparse.Namespace) -> tuple[int, Floats]:
    """How many frames, and CKA of each layer with each; the projectors with each other."""
    values = np.full((len(one.sites), len(other.sites)), np.nan)
    inner = [[site for site in each.sites if site != listening.PROJECTOR] for each in (one, other)]
    pairs = [listening.paired(one, other, (inner[0][0], site), args.frames, args.seed)[1] for site in inner[1]]
    lefts = [listening.paired(one, other, (site, inner[1][0]), args.frames, args.seed)[0] for site in inner[0]]
    values[: len(lefts), : len(pairs)] = linear_ckas(lefts, pairs)
    if one.positions and other.positions:
        left, right = listening.paired(one, other, (listening.PROJECTOR,) * 2, args.frames, args.seed)
        values[-1, -1] = linear_cka(left, right)
    return len(lefts[0]), values


def _outputs(held: Sequence[Held], args: argparse.Namespace) -> tuple[int, Floats]:
    """How many frames, the fewest of all pairs, and CKA of the output of each encoder with that of each."""
    values, counts = np.eye(len(held)), []
    for i, j in itertools.combinations(range(len(held)), 2):
        left, right = listening.paired(held[i], held[j], (listening.ENCODER,) * 2, args.frames, args.seed)
        values[i, j] = values[j, i] = linear_cka(left, right)
        counts.append(len(left))
    return min(counts), values


def _entropy(args: argparse.Namespace) -> None:
    if (args.units is None) != (args.words is None):
        raise UserError("entropy: --units and --words are given together, or neither of them")
    device = dist.start(args.ngpu)
    corpus = Audio(args.data)
    utterances = corpus.listed()
    settings = Settings(args.frames, args.min_count, args.seed)
    aligned = _aligned(args, corpus, utterances, device)
    found = {}
    for place in args.experiments:
        model = listening.load(place, device)
        held = listening.listen(model, corpus.batches(aligned), device)
        panel = panels.measure(held, [utterances[utt_id] for utt_id in held.utt_ids], aligned, settings)
        if model.llm is not None:
            panels.allocate(panel, model, corpus.batches(aligned), device, args.seed)
        found[str(place)] = panel
    if args.units is None:
        alignment.write(aligned, args.out / "units.ctm", args.out / "words.ctm")
    values = {name: {key: _estimates(at) for key, at in panel.figures.items()} for name, panel in found.items()}
    _write(args, tables.panels(found), values, pictures.panels(found))


def _estimates(at: dict[str, Estimate]) -> dict[str, Any]:
    return {site or "model": asdict(estimate) for site, estimate in at.items()}


def _aligned(
    args: argparse.Namespace, corpus: Audio, utterances: dict[str, Utterance], device: torch.device
) -> dict[str, Alignment]:
    """One alignment for all experiments."""
    if args.units is not None:
        aligned, where = alignment.read(args.units, args.words), str(args.units)
        alignment.check(aligned, {name: each.seconds or 0.0 for name, each in utterances.items()}, where)
        return {name: aligned[name] for name in utterances}
    model = listening.load(args.aligner or args.experiments[0], device)
    return alignment.by_ctc(model, corpus.batches(), device)


def _attention(args: argparse.Namespace) -> None:
    device = dist.start(args.ngpu)
    corpus = Audio(args.data)
    batch = corpus.one(args.utterance)
    weights, pieces = attention(listening.load(args.experiment, device), batch.to(device))
    heads = weights.shape[1]
    for layer in args.layers or range(1, len(weights) + 1):
        if not 1 <= layer <= len(weights):
            raise UserError(f"--layers {layer}: the LLM has layers 1 to {len(weights)}")
        titles = [f"layer {layer}, head {head}" for head in range(1, heads + 1)]
        pictures.save(pictures.attention(weights[layer - 1], titles, pieces), args.out / f"layer-{layer:02}.png")
    shares = looked_at(weights, pieces)
    rows = [
        [f"layer {layer}", *(f"{100 * share[layer - 1].mean():.1f}" for share in shares.values())]
        for layer in range(1, len(weights) + 1)
    ]
    said = " + ".join(f"{size} {name}" for name, size in pieces.items())
    text = (
        f"`{batch.utt_ids[0]}` ({batch.texts[0]}): {said} positions; where the transcript's positions look, %, mean of "
    )
    text += f"{heads} heads\n\n" + results.markdown_table(["", *shares], rows) + "\n"
    values = {"utterance": batch.utt_ids[0], "pieces": pieces, "shares": {k: v.tolist() for k, v in shares.items()}}
    titles = [f"layer {layer}" for layer in range(1, len(weights) + 1)]
    _write(args, text, values, pictures.attention(weights.mean(1), titles, pieces))


def _hallucination(args: argparse.Namespace) -> None:
    found = results.collect(args.exp).decodings
    wanted = args.only or ["*"]
    rows = [row for row in found if any(fnmatch(row.label, pattern) for pattern in wanted)]
    if not rows:
        raise UserError(f"{args.exp}: none of its {len(found)} scored decodings is named like {' or '.join(wanted)}")
    rows.sort(key=lambda row: results.condition(row.set))
    values = {row.label: row.score.hallucination.model_dump(mode="json") for row in rows}
    kinds = ("unrelated", "inserted", "looping", "truncated", "non_speech")
    lines: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in kinds}
    for row in rows:
        for kind in kinds:
            line = lines[kind].setdefault(f"{row.experiment}/{row.name}", {})
            line[row.set] = getattr(row.score.hallucination, kind)
    _write(args, results.made_up(rows) + "\n", values, pictures.shares(lines))


if __name__ == "__main__":
    console.run(main)
