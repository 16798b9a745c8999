"""Kaldi's filters of tables, line by line from a stream: no table has to fit into memory, none has to be sorted."""

from collections.abc import Collection, Iterable, Iterator

from asrllm.console import UserError


def spk2utt(utt2spk: Iterable[str]) -> Iterator[str]:
    """Lines of `spk2utt` from lines of `utt2spk`, speakers and their utterances in the order in which they come."""
    members: dict[str, list[str]] = {}
    for number, line in enumerate(utt2spk, 1):
        fields = line.split()
        if len(fields) != 2:
            raise UserError(f"utt2spk: line {number}: found {len(fields)} fields, expected an utterance and a speaker")
        members.setdefault(fields[1], []).append(fields[0])
    for speaker, utt_ids in members.items():
        yield f"{speaker} {' '.join(utt_ids)}\n"


def utt2spk(spk2utt: Iterable[str]) -> Iterator[str]:
    """Lines of `utt2spk` from lines of `spk2utt`."""
    for number, line in enumerate(spk2utt, 1):
        speaker, *utt_ids = line.split() or [""]
        if not utt_ids:
            raise UserError(f"spk2utt: line {number}: found {line.strip()!r}, expected a speaker and its utterances")
        yield from (f"{utt_id} {speaker}\n" for utt_id in utt_ids)


def first_fields(lines: Iterable[str], name: str) -> list[str]:
    """The first field of every line of the file `name`."""
    fields = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(f"{name}: line {number}: found an empty line, expected an id first in every line")
        fields.append(line.split(maxsplit=1)[0])
    return fields


def keep(lines: Iterable[str], ids: Collection[str], field: int = 1, exclude: bool = False) -> Iterator[str]:
    """The lines whose field number `field`, from 1, is one of `ids`; with `exclude` the others."""
    for number, line in enumerate(lines, 1):
        fields = line.split(maxsplit=field)
        if len(fields) < field:
            raise UserError(f"line {number}: found {len(fields)} field(s), expected at least {field}: {line.strip()!r}")
        if (fields[field - 1] in ids) != exclude:
            yield line
