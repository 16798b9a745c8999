"""Make a data directory out of what people have: files, tables, published corpora, datasets of Hugging Face.

python -m asrllm.bin.import_data table corpus/train.tsv data/train --audio path --text sentence
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from asrllm import console
from asrllm.console import UserError, positive
from asrllm.data import corpora, importing, layouts, shards
from asrllm.data.importing import Columns
from asrllm.data.kaldi import Utterance

_KINDS = {
    "folder": "audio files with NAME.txt beside them, in folders of speakers or not",
    "table": "a .csv or .tsv file whose first line names its fields",
    "jsonl": "objects, one a line, as NeMo has them",
    "librispeech": "a part such as LibriSpeech/train-clean-100",
    "aishell": "data_aishell, with --part",
    "commonvoice": "the folder of a language, with --part",
    "lhotse": "supervisions, with --recordings",
    "shards": "tar shards that export_data or an import wrote",
    "huggingface": "a hub id or folder, with --config and --part; its audio goes into --shards",
}


def parser() -> argparse.ArgumentParser:
    """Options of the program."""
    result = argparse.ArgumentParser(prog="import_data", description=__doc__.splitlines()[0], allow_abbrev=False)
    kinds = "; ".join(f"{kind}: {says}" for kind, says in _KINDS.items())
    result.add_argument("kind", choices=_KINDS, metavar="KIND", help=kinds)
    result.add_argument("source", type=str, help="what is read")
    result.add_argument("out", type=Path, help="data directory to write")
    for name, option in (("audio", "audio"), ("text", "text"), ("id", "utt_id"), ("speaker", "speaker")):
        default = getattr(Columns(), option)
        result.add_argument(f"--{name}", default=default, help="field that holds it (%(default)s)")
    result.add_argument("--part", default="train", help="part, table or split (%(default)s)")
    result.add_argument("--config", help="of a dataset of Hugging Face, such as a size or a language")
    result.add_argument("--recordings", type=Path, help="of Lhotse")
    result.add_argument("--shards", type=Path, help="folder for the audio of a dataset of Hugging Face")
    result.add_argument("--shard_mb", type=positive, default=1000, help="size of a shard (%(default)s)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Read the source and write the data directory, whole or not at all."""
    parse = parser()
    args = parse.parse_args(argv)
    if args.kind == "lhotse" and args.recordings is None:
        parse.error("lhotse wants --recordings FILE too")
    if args.kind == "huggingface" and args.shards is None:
        parse.error("huggingface wants --shards FOLDER, into which the audio goes")
    source = Path(args.source)
    for place in (source, args.recordings):
        if place is not None and args.kind != "huggingface" and not place.exists():
            raise UserError(f"{place}: no such file or folder")
    columns = Columns(args.audio, args.text, args.id, args.speaker)
    readers: dict[str, Callable[[], Iterable[Utterance]]] = {
        "folder": lambda: importing.folder(source),
        "table": lambda: importing.table(source, columns),
        "jsonl": lambda: importing.json_lines(source, columns),
        "librispeech": lambda: layouts.librispeech(source.resolve()),
        "aishell": lambda: layouts.aishell(source.resolve(), args.part),
        "commonvoice": lambda: layouts.common_voice(source.resolve(), args.part),
        "lhotse": lambda: importing.lhotse(source, args.recordings),
        "shards": lambda: shards.utterances(source.resolve()),
        "huggingface": lambda: _huggingface(args, columns),
    }
    utterances = list(readers[args.kind]())
    corpora.write({args.out.name: utterances}, args.out.parent)
    print(f"{args.out}: {len(utterances)} utterances")


def _huggingface(args: argparse.Namespace, columns: Columns) -> Iterable[Utterance]:
    folder: Path = args.shards.resolve()
    shards.write(
        lambda done: importing.huggingface(args.source, args.config, args.part, columns, done),
        folder,
        args.shard_mb * 1_000_000,
    )
    return shards.utterances(folder)


if __name__ == "__main__":
    console.run(main)
