"""Score hypotheses against their references (stage 9): a decoding, or files of Kaldi and sclite.

Writes into the folder of the decoding (or --out): score.json, result.txt, report.html, and for each unit a folder
such as score_wer with ref.trn, hyp.trn and sclite's reports.
"""

import argparse
import gc
import logging
from pathlib import Path

from asrllm import config, console
from asrllm.console import UserError, write_atomically
from asrllm.score.hallucination import hallucination
from asrllm.score.hotwords import hotwords, line
from asrllm.score.page import page
from asrllm.score.recordings import links
from asrllm.score.reports import write_reports
from asrllm.score.scoring import (
    RATE,
    MatchConfig,
    ScoreConfig,
    SetScore,
    UnitScore,
    align_set,
    score_unit,
    write_score,
)
from asrllm.score.sources import date_of, names, read_joined
from asrllm.score.transcripts import fold
from asrllm.score.units import pronounced, splitter
from asrllm.score.utterances import Aligned
from asrllm.text.hotwords import read_hotwords
from asrllm.text.normalize import normalizer

SCHEMA = ScoreConfig

log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """Options of the program."""
    options = argparse.ArgumentParser(prog="score", description=__doc__, allow_abbrev=False)
    options.add_argument("--config", type=Path, required=True, help="YAML: normalizer, units")
    options.add_argument("--ref", type=Path, required=True, help="Kaldi directory with text and utt2spk, or a file")
    options.add_argument(
        "--hyp", type=Path, required=True, help="folder of a decoding, which gets the results, or a file"
    )
    options.add_argument("--out", type=Path, help="folder of the results, where --hyp is a file")
    options.add_argument(
        "--id_kind",
        choices=["spu_id", "rm", "swb", "wsj", "atis", "sp"],
        default="spu_id",
        help="where the speaker stands in the ids of trn files, as sclite -i (spu_id)",
    )
    options.add_argument("--filter", type=Path, help="program that both texts go through (local/wer_output_filter)")
    options.add_argument("--hotwords", type=Path, help="file of phrases, one a line: how well they are recognised")
    options.add_argument("--audio", type=Path, help="Kaldi directory whose recordings report.html links to (--ref)")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key of the YAML")
    return options


def main(argv: list[str] | None = None) -> None:
    """Read, align, write."""
    args = parser().parse_args(argv)
    settings = config.load(args.config, ScoreConfig, args.set)
    out = args.out or args.hyp
    if out.is_file():
        raise UserError(f"--hyp {args.hyp} is a file: name the folder of the results with --out")
    normalize = normalizer(settings.normalizer, Path(settings.spelling_table) if settings.spelling_table else None)
    match = MatchConfig(**{name: getattr(settings, name) for name in MatchConfig.model_fields})
    if match.time_mediated and args.ref.suffix != ".ctm":
        raise UserError(
            f"time_mediated needs the times of words on both sides, found --ref {args.ref}: give two ctm files"
        )
    changes = None if settings.normalizer == "none" else normalize
    phrases = read_hotwords(args.hotwords) if args.hotwords is not None else []
    joined = read_joined(args.ref, args.hyp, changes, args.id_kind, match.case_sensitive, args.filter)
    if joined.missing:
        log.warning("%s: no hypothesis, counted as deletions: %s", args.hyp, names(joined.missing))
    if joined.ignored:
        log.info("%s: %d segments are not to be scored", args.ref, len(joined.ignored))
    if joined.extra:
        log.warning("%s: no reference, not counted: %s", args.hyp, names(joined.extra))

    scores: list[UnitScore] = []
    tables: list[str] = []
    first: list[Aligned] = []
    for unit in settings.units:
        wanted = pronounced(joined, settings) if unit == "phone" else joined
        alignments = align_set(wanted, unit, match, splitter(unit, settings, normalize.spaced))
        first = first or alignments
        scores.append(score_unit(unit, alignments))
        folder, title = out / f"score_{RATE[unit].lower()}", f"{args.hyp} ({unit})"
        tables.append(write_reports(folder, alignments, unit, match, settings.reports, title, date_of(args.hyp)))
    found = None
    if phrases:
        words = align_set(joined, "word", match, splitter("word", settings, normalize.spaced))
        written = [normalize(phrase) if changes else phrase for phrase in phrases]
        found = hotwords(words, written if match.case_sensitive else [fold(phrase) for phrase in written])
    score = SetScore(
        normalizer=normalize.name,
        normalizer_version=normalize.version,
        match=match,
        missing=joined.missing,
        extra=joined.extra,
        ignored=joined.ignored,
        speakers={each.utt_id: each.speaker for each in joined.utterances},
        units=tuple(scores),
        hallucination=hallucination(first, joined.seconds, joined.guards),
        hotwords=found,
    )
    with write_atomically(out / "result.txt") as temporary:
        temporary.write_text("\n".join(tables), encoding="utf-8")
    if "html" in settings.reports:
        if args.audio is not None and not (args.audio / "wav.scp").is_file():
            log.warning("%s: no wav.scp there: report.html links to no recording", args.audio)
        audio = links(args.audio or (args.ref if args.ref.is_dir() else args.ref.parent))
        with write_atomically(out / "report.html") as temporary:
            temporary.write_text(page(str(args.hyp), score, first, audio), encoding="utf-8")
    write_score(score, out / "score.json")
    print("\n".join(f"{args.hyp}: {_line(each)}" for each in scores))
    if found is not None:
        print(f"{args.hyp}: {line(found.total)}")


def _line(score: UnitScore) -> str:
    """Kaldi's one line, such as `%WER 5.07 [ 2667 / 52576, 306 ins, 250 del, 2111 sub ]`."""
    errors = score.substitutions + score.deletions + score.insertions
    rate = "-" if score.err_percent is None else f"{score.err_percent:.2f}"
    kinds = f"{score.insertions} ins, {score.deletions} del, {score.substitutions} sub"
    return f"%{RATE[score.unit]} {rate} [ {errors} / {score.tokens}, {kinds} ]"


if __name__ == "__main__":
    gc.disable()  # a short program that makes millions of small objects, none of them in circles: a fifth of its time
    console.run(main)
