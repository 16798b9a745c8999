"""Score a decoding against its references (stage 9).

Writes into the folder of the decoding: ref.trn and hyp.trn (for sclite), alignments.txt, result.txt, score.json.
"""

import argparse
import logging
from pathlib import Path

from asrllm import config, console
from asrllm.console import UserError, write_atomically
from asrllm.hypothesis import read_decoding
from asrllm.score import table, transcripts
from asrllm.score.scoring import ScoreConfig, SetScore, UnitScore, align_set, join, score_unit, write_score
from asrllm.text.normalize import normalizer

SCHEMA = ScoreConfig
NAMED_AT_MOST = 10

log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """Options of the program."""
    options = argparse.ArgumentParser(prog="asrllm.bin.score", description=__doc__, allow_abbrev=False)
    options.add_argument("--config", type=Path, required=True, help="YAML: normalizer, units")
    options.add_argument("--ref", type=Path, required=True, help="Kaldi directory with text and utt2spk")
    options.add_argument("--hyp", type=Path, required=True, help="folder of a decoding, which gets the results")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key of the YAML")
    return options


def main(argv: list[str] | None = None) -> None:
    """Read, align, write."""
    args = parser().parse_args(argv)
    settings = config.load(args.config, ScoreConfig, args.set)
    normalize = normalizer(settings.normalizer, Path(settings.spelling_table) if settings.spelling_table else None)
    refs = transcripts.read_text(args.ref / "text")
    speakers = transcripts.read_utt2spk(args.ref / "utt2spk")
    if unknown := [utt_id for utt_id in refs if utt_id not in speakers]:
        raise UserError(f"{args.ref / 'utt2spk'}: no speaker for {_names(unknown)}: run check_data on {args.ref}")
    hyps = {utt_id: nbest.best.text for utt_id, nbest in read_decoding(args.hyp).items()}
    texts = join(refs, hyps, normalize)
    if texts.missing:
        log.warning("%s: no hypothesis, counted as deletions: %s", args.hyp, _names(texts.missing))
    if texts.extra:
        log.warning("%s: no reference, not counted: %s", args.hyp, _names(texts.extra))

    transcripts.write_trn(texts.refs, speakers, args.hyp / "ref.trn")
    transcripts.write_trn(texts.hyps, speakers, args.hyp / "hyp.trn")
    scores: list[UnitScore] = []
    for unit in settings.units:
        alignments = align_set(texts, unit, normalize.spaced)
        if not scores:
            with write_atomically(args.hyp / "alignments.txt") as temporary:
                lines = (table.alignment(f"{speakers[utt]}-{utt}", pairs) for utt, pairs in alignments.items())
                temporary.write_text("\n".join(lines), encoding="utf-8")
        scores.append(score_unit(unit, alignments))
    with write_atomically(args.hyp / "result.txt") as temporary:
        tables = (table.summary(score, speakers, f"{args.hyp} ({score.unit})") for score in scores)
        temporary.write_text("\n".join(tables), encoding="utf-8")
    score = SetScore(
        normalizer=normalize.name,
        normalizer_version=normalize.version,
        missing=texts.missing,
        extra=texts.extra,
        units=tuple(scores),
    )
    write_score(score, args.hyp / "score.json")
    print("\n".join(f"{args.hyp}: {_line(each)}" for each in scores))


def _line(score: UnitScore) -> str:
    """Kaldi's one line, such as `%WER 5.07 [ 2667 / 52576, 306 ins, 250 del, 2111 sub ]`."""
    name = "WER" if score.unit == "word" else "CER"
    errors = score.substitutions + score.deletions + score.insertions
    rate = "-" if score.err_percent is None else f"{score.err_percent:.2f}"
    kinds = f"{score.insertions} ins, {score.deletions} del, {score.substitutions} sub"
    return f"%{name} {rate} [ {errors} / {score.tokens}, {kinds} ]"


def _names(utt_ids: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(utt_ids) - NAMED_AT_MOST} more" if len(utt_ids) > NAMED_AT_MOST else ""
    return f"{len(utt_ids)} utterance(s), {', '.join(utt_ids[:NAMED_AT_MOST])}{more}"


if __name__ == "__main__":
    console.run(main)
