"""From what the user names to joined utterances: Kaldi directories and `text`, decodings, `trn`, `stm` with `ctm`."""

import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from asrllm.console import UserError
from asrllm.hypothesis import read_decoding
from asrllm.score.timed import join_timed, join_words, read_ctm, read_stm
from asrllm.score.transcripts import IdKind, read_text, read_trn, read_utt2spk
from asrllm.score.utterances import Joined, Normalize, join, join_trn

NAMED_AT_MOST = 10


def read_joined(
    ref: Path, hyp: Path, normalize: Normalize | None, id_kind: IdKind, case_sensitive: bool, wer_filter: Path | None
) -> Joined:
    """Read and join references and hypotheses.

    Args:
        ref: Kaldi directory, or a file: `.trn`, `.stm`, `.ctm`, or Kaldi's `text` with `utt2spk` beside it.
        hyp: folder of a decoding, or a file: `.trn`, `.ctm` for `.stm` or `.ctm`, Kaldi `text`.
        normalize: applied to both sides; None for no normaliser at all.
        id_kind: of trn files.
        case_sensitive: as in `asrllm.score.transcripts.read_trn`.
        wer_filter: a program that both sides go through first as Kaldi `text`, as Kaldi's local/wer_output_filter.

    Raises:
        UserError: files that do not go together, or that are broken.
    """
    kinds = ref.suffix, hyp.suffix
    pairs = (".trn", ".trn"), (".stm", ".ctm"), (".ctm", ".ctm")
    if kinds not in pairs and {".trn", ".stm", ".ctm"} & set(kinds):
        raise UserError(
            f"--ref {ref} and --hyp {hyp}: expected two .trn files, or .stm and .ctm, or two .ctm, or Kaldi's text"
        )
    if wer_filter is not None and kinds in pairs:
        raise UserError(f"--filter {wer_filter} reads Kaldi text, found {ref} and {hyp}: filter them beforehand")
    if kinds[0] == ".trn":
        refs = read_trn(ref, id_kind, case_sensitive)
        return join_trn(refs, read_trn(hyp, id_kind, case_sensitive), normalize)
    if kinds[0] == ".stm":
        return join_timed(read_stm(ref, case_sensitive), read_ctm(hyp, case_sensitive), normalize)
    if kinds[0] == ".ctm":
        return join_words(read_ctm(ref, case_sensitive), read_ctm(hyp, case_sensitive), normalize)
    return _join_kaldi(ref, hyp, normalize or _squeezed, wer_filter)


def _join_kaldi(ref: Path, hyp: Path, normalize: Normalize, wer_filter: Path | None) -> Joined:
    folder = ref if ref.is_dir() else ref.parent
    texts = read_text(ref / "text" if ref.is_dir() else ref)
    speakers = read_utt2spk(folder / "utt2spk") if (folder / "utt2spk").exists() or ref.is_dir() else {}
    if not speakers:
        speakers = {utt_id: utt_id.split("-")[0] for utt_id in texts}
    if unknown := [utt_id for utt_id in texts if utt_id not in speakers]:
        raise UserError(f"{folder / 'utt2spk'}: no speaker for {names(unknown)}: run check_data on {folder}")
    hyps, seconds, guards = _texts(hyp)
    sides = texts, hyps
    if wer_filter is not None:
        sides = _filtered(sides[0], wer_filter), _filtered(sides[1], wer_filter)
    return replace(join(*sides, speakers, normalize), seconds=seconds or _durations(folder / "utt2dur"), guards=guards)


def _texts(hyp: Path) -> tuple[dict[str, str], dict[str, float], dict[str, list[str]]]:
    """Hypotheses, and durations and guards where the decoding tells them."""
    if not hyp.is_dir():
        return read_text(hyp), {}, {}
    decoding = read_decoding(hyp)
    return (
        {utt_id: nbest.best.text for utt_id, nbest in decoding.items()},
        {utt_id: nbest.seconds for utt_id, nbest in decoding.items()},
        {utt_id: [name for name in nbest.counts if name.startswith("guard_")] for utt_id, nbest in decoding.items()},
    )


def _durations(path: Path) -> dict[str, float]:
    """Kaldi's utt2dur, where there is one."""
    if not path.is_file():
        return {}
    try:
        return {utt_id: float(text) for utt_id, text in read_text(path).items()}
    except ValueError as fault:
        raise UserError(f"{path}: {fault}: expected an utterance and its seconds in each line") from None


def date_of(hyp: Path) -> str:
    """When hypotheses were written, as ctime writes it."""
    paths = [*hyp.glob("hyp.*.jsonl")] if hyp.is_dir() else [hyp]
    return time.ctime(max((path.stat().st_mtime for path in paths), default=0))


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _filtered(texts: Mapping[str, str], program: Path) -> dict[str, str]:
    """The texts after a program that reads and writes lines of `utterance words`."""
    lines = "".join(f"{utt_id} {text}\n" for utt_id, text in texts.items())
    try:
        done = subprocess.run([str(program.resolve())], input=lines, capture_output=True, text=True, encoding="utf-8")
    except OSError as fault:
        raise UserError(f"{program}: cannot be run: {fault.strerror}: it must be executable") from None
    if done.returncode:
        raise UserError(f"{program}: failed with status {done.returncode}: {done.stderr.strip()[-300:]}")
    table = {}
    for line in done.stdout.splitlines():
        utt_id, _, text = line.strip().partition(" ")
        table[utt_id] = text.strip()
    if table.keys() != texts.keys():
        lost = sorted(texts.keys() ^ table.keys())
        raise UserError(f"{program}: must write each utterance it reads once: lost or added {names(lost)}")
    return table


def names(utt_ids: tuple[str, ...] | list[str]) -> str:
    """How many utterances, and the first of them."""
    more = f" and {len(utt_ids) - NAMED_AT_MOST} more" if len(utt_ids) > NAMED_AT_MOST else ""
    return f"{len(utt_ids)} utterance(s), {', '.join(utt_ids[:NAMED_AT_MOST])}{more}"
