"""Write a data directory as tar shards, as a table, or as log-mel features in Kaldi's archives.

python -m asrllm.bin.export_data shards dump/train shards/train
"""

import argparse
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile

from asrllm import console
from asrllm.console import UserError, positive, track, write_atomically
from asrllm.data import audio, kaldi, shards
from asrllm.data.kaldi import Utterance
from asrllm.data.shards import Sample


def parser() -> argparse.ArgumentParser:
    """Options of the program."""
    result = argparse.ArgumentParser(prog="export_data", description=__doc__.splitlines()[0], allow_abbrev=False)
    kinds = (
        "shards: a folder of .tar files; table: a .csv, .tsv or .jsonl file; features: a folder with feats.ark and .scp"
    )
    result.add_argument("kind", choices=("shards", "table", "features"), help=kinds)
    result.add_argument("data", type=Path, help="data directory to read")
    result.add_argument("out", type=Path, help="what is written")
    result.add_argument("--sample_rate", type=positive, default=16000, help="Hz of the shards (%(default)s)")
    result.add_argument("--suffix", choices=("flac", "wav"), default="flac", help="audio in the shards (%(default)s)")
    result.add_argument("--shard_mb", type=positive, default=1000, help="size of a shard (%(default)s)")
    result.add_argument("--mels", type=positive, default=80, help="of the features (%(default)s)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Read the data directory and write it in another form."""
    args = parser().parse_args(argv)
    utterances = kaldi.read(args.data)
    match args.kind:
        case "shards":
            count = shards.write(
                lambda done: _samples(utterances[done:], args.sample_rate, args.suffix),
                args.out,
                args.shard_mb * 1_000_000,
            )
            if count != len(utterances):
                raise UserError(
                    f"{args.out}: holds {count} utterances of another run, {args.data} has {len(utterances)}"
                )
        case "table":
            _write_table(utterances, args.out)
        case "features":
            _write_features(utterances, args.out, args.mels)
    print(f"{args.out}: {len(utterances)} utterances")


def _samples(utterances: list[Utterance], sample_rate: int, suffix: str) -> Iterator[Sample]:
    for utterance in track(utterances, "Writing shards", len(utterances), "utterances"):
        buffer = io.BytesIO()
        wave = audio.load(utterance, sample_rate).numpy()
        soundfile.write(buffer, wave, sample_rate, format=suffix.upper(), subtype="PCM_16")
        yield Sample(utterance.utt_id, utterance.speaker, utterance.text, buffer.getvalue(), suffix)


def _write_table(utterances: list[Utterance], out: Path) -> None:
    if out.suffix not in (".csv", ".tsv", ".jsonl"):
        raise UserError(f"{out}: expected a name that ends in .csv, .tsv or .jsonl")
    fields = ["id", "speaker", "audio", "offset", "duration", "text"]
    rows = []
    for each in utterances:
        source = each.source if each.source.endswith("|") else str(Path(each.source).resolve())
        length = "" if each.start is None else audio.seconds(each)
        start = "" if each.start is None else each.start
        rows.append(dict(zip(fields, (each.utt_id, each.speaker, source, start, length, each.text), strict=True)))
    with write_atomically(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        if out.suffix == ".jsonl":
            for row in rows:
                filled = {name: value for name, value in row.items() if value != ""}
                stream.write(json.dumps(filled, ensure_ascii=False) + "\n")
        else:
            writer = csv.DictWriter(
                stream, fields, delimiter="\t" if out.suffix == ".tsv" else ",", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(rows)


def _write_features(utterances: list[Utterance], out: Path, mels: int) -> None:
    """Log-mel features (T, F) of every utterance, as the encoders' front end makes them."""
    import kaldiio
    import torch

    from asrllm.models.frontend import SAMPLE_RATE, FrontendConfig, LogMel

    frontend = LogMel(FrontendConfig(mels=mels, specaugment=None)).eval()
    with write_atomically(out) as temporary:
        temporary.mkdir()
        with (
            kaldiio.WriteHelper(f"ark,scp:{temporary / 'feats.ark'},{temporary / 'feats.scp'}") as write,
            torch.no_grad(),
        ):
            for utterance in track(utterances, "Writing features", len(utterances), "utterances"):
                wave = audio.load(utterance, SAMPLE_RATE)
                frames, _ = frontend(wave[None], torch.tensor([len(wave)]))
                write(utterance.utt_id, frames[0].numpy())
        places = kaldi.read_table(temporary / "feats.scp")
        final = {key: str(out.resolve() / Path(place).name) for key, place in places.items()}
        (temporary / "feats.scp").write_bytes(kaldi.table_bytes("feats.scp", final))


if __name__ == "__main__":
    console.run(main)
