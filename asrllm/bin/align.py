"""When each word was said: texts are aligned to their audio by the CTC head of an experiment.

Writes into --out: words.ctm (recording, channel, start, duration, word, confidence), srt/ and vtt/ with subtitles of
each recording, and `text` with all that was said in each recording. Where the data directory has `segments`, times are
those of the recordings. `bin.score --ref x.stm --hyp words.ctm` scores the ctm.

A formatted directory (dump/) knows nothing of recordings: name the one it was made from with --recordings, or align
that one itself. Without --exp nothing is aligned: words are spread over their utterances.
"""

import argparse
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import torch

from asrllm import console, dist
from asrllm.console import UserError, write_atomically
from asrllm.data import audio, kaldi, sampler
from asrllm.data.dataset import Dataset, batches
from asrllm.decode import subtitles
from asrllm.decode.packed import packed
from asrllm.decode.subtitles import Cue, Place
from asrllm.decode.word_times import Timed, TimedWord, spread, time_words
from asrllm.experiment import Experiment
from asrllm.hypothesis import read_decoding
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.score.transcripts import read_text

FORMATS = ("ctm", "srt", "vtt")
log = logging.getLogger("asrllm")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(
        prog="align", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--exp", type=Path, help="experiment whose encoder and CTC head align; without it: spread")
    parse.add_argument("--data", type=Path, required=True, help="Kaldi directory with the audio")
    parse.add_argument("--hyp", type=Path, help="folder of a decoding, or a Kaldi `text` (the transcripts of --data)")
    parse.add_argument("--out", type=Path, required=True, help="folder of the results")
    parse.add_argument(
        "--recordings", type=Path, help="Kaldi directory that says where utterances lie in recordings (--data)"
    )
    parse.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="what is written (all)")
    parse.add_argument("--batch_seconds", type=float, default=60.0, help="audio that is aligned at once (%(default)s)")
    parse.add_argument("--ngpu", type=int, default=0, help="0: the CPU")
    return parse


def main(argv: Sequence[str] | None = None) -> None:
    """Align all that has a text."""
    args = parser().parse_args(argv)
    utterances = {each.utt_id: each for each in kaldi.read(args.data)}
    texts = _texts(args.hyp, args.data, utterances)
    places = _places(args.recordings or args.data, list(texts))
    chosen = [utterances[utt_id] for utt_id in texts]
    if args.exp is None:
        timed = {each.utt_id: Timed(spread(texts[each.utt_id], audio.seconds(each))) for each in chosen}
    else:
        timed = _align(args.exp, chosen, texts, args.batch_seconds, dist.start(args.ngpu, 0))
    _write(timed, texts, places, args.formats, args.out)
    faults = {utt_id: each.fault for utt_id, each in timed.items() if each.fault}
    with write_atomically(args.out / "not_aligned") as temporary:
        temporary.write_text("".join(f"{utt_id}\t{fault}\n" for utt_id, fault in faults.items()), encoding="utf-8")
    if faults:
        log.warning(
            "%d of %d utterances could not be aligned, for reasons listed in %s: their words are spread evenly and "
            "have confidence 0",
            len(faults),
            len(timed),
            args.out / "not_aligned",
        )
    log.info("%s: %d words of %d utterances", args.out, sum(len(each.words) for each in timed.values()), len(timed))


def _texts(hyp: Path | None, data: Path, utterances: dict[str, kaldi.Utterance]) -> dict[str, str]:
    """What is to be aligned, by utterance."""
    if hyp is None:
        texts = {utt_id: each.text for utt_id, each in utterances.items()}
        if not any(texts.values()):
            raise UserError(f"{data}: no transcripts in it: name a decoding with --hyp")
        return texts
    if hyp.is_dir():
        texts = {utt_id: nbest.best.text for utt_id, nbest in read_decoding(hyp).items()}
    else:
        texts = read_text(hyp)
    if missing := [utt_id for utt_id in texts if utt_id not in utterances]:
        raise UserError(f"{data}: {len(missing)} utterances of {hyp} are not in it, such as {missing[0]}")
    if rest := len(utterances) - len(texts):
        log.warning("%s: no text for %d of the %d utterances of %s", hyp, rest, len(utterances), data)
    return texts


def _places(folder: Path, utt_ids: Sequence[str]) -> dict[str, Place]:
    """Where each utterance lies; file and channel as in reco2file_and_channel, else the recording and 1."""
    utterances = {each.utt_id: each for each in kaldi.read(folder)}
    if missing := [utt_id for utt_id in utt_ids if utt_id not in utterances]:
        raise UserError(f"{folder}: {len(missing)} utterances are not in it, such as {missing[0]}: name the right one")
    table = folder / "reco2file_and_channel"
    sides = kaldi.read_table(table) if table.exists() else {}
    places = {}
    for utt_id in utt_ids:
        recording = utterances[utt_id].recording or utt_id
        file, channel = sides.get(recording, f"{recording} 1").split()[-2:]
        places[utt_id] = Place(file, channel, utterances[utt_id].start or 0.0)
    return places


def _align(
    exp: Path, utterances: Sequence[kaldi.Utterance], texts: dict[str, str], batch_seconds: float, device: torch.device
) -> dict[str, Timed]:
    """The words of each utterance, times from its beginning on."""
    model = Experiment(exp).model().to(device)
    frame_seconds = model.samples_per_frame / SAMPLE_RATE
    dataset = Dataset(utterances, SAMPLE_RATE)
    plan = sampler.plan_alike(dataset.seconds(0), batch_seconds)
    timed: dict[str, Timed] = {}
    with console.progress("aligning", len(utterances), "utterances") as advance, packed(model), torch.inference_mode():
        for batch in batches(dataset, plan):
            log_probs, lens = model.ctc_log_probs(batch.to(device))
            rows = [texts[utt_id] for utt_id in batch.utt_ids]
            found = time_words(log_probs, lens, rows, model.ctc_tokenizer, frame_seconds)
            timed |= dict(zip(batch.utt_ids, found, strict=True))
            advance(len(batch), "")
    return {each.utt_id: timed[each.utt_id] for each in utterances}


@dataclass
class _Recording:
    """What was said in a recording, in the order of time."""

    channels: dict[str, list[TimedWord]] = field(default_factory=lambda: defaultdict(list))
    cues: list[Cue] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def _write(
    timed: dict[str, Timed], texts: dict[str, str], places: dict[str, Place], formats: Sequence[str], out: Path
) -> None:
    recordings: dict[str, _Recording] = defaultdict(_Recording)
    for utt_id in sorted(timed, key=lambda utt_id: (places[utt_id].file, places[utt_id].start, utt_id)):
        place = places[utt_id]
        words = subtitles.shift(timed[utt_id].words, place.start)
        recording = recordings[place.file]
        recording.channels[place.channel] += words
        recording.cues += subtitles.cues(words)
        recording.texts.append(texts[utt_id])
    with write_atomically(out / "text") as temporary:
        lines = (f"{name} {' '.join(' '.join(each.texts).split())}" for name, each in recordings.items())
        temporary.write_text("".join(f"{line.strip()}\n" for line in lines), encoding="utf-8")
    if "ctm" in formats:
        with write_atomically(out / "words.ctm") as temporary, temporary.open("w", encoding="utf-8") as stream:
            for name, recording in recordings.items():
                for channel, words in sorted(recording.channels.items()):
                    stream.write(subtitles.ctm(words, name, channel))
    for kind, write in (("srt", subtitles.srt), ("vtt", subtitles.vtt)):
        if kind in formats:
            with write_atomically(out / kind) as temporary:
                temporary.mkdir()
                for name, recording in recordings.items():
                    text = write(sorted(recording.cues, key=lambda cue: cue.start))
                    (temporary / f"{quote(name, safe='')}.{kind}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
