"""Kaldi's tools for data directories under Kaldi's names and options; utils/*.sh are links that call this.

python -m asrllm.bin.data_dir subset_data_dir --first data/train 100 data/train_100
"""

import argparse
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from asrllm import console
from asrllm.console import UserError, log, positive, write_atomically
from asrllm.data import kaldi, lines, perturb, subset
from asrllm.data import tables as directories
from asrllm.data.kaldi import byte_order
from asrllm.data.tables import Tables

_STANDARD_INPUT, _STANDARD_OUTPUT = 0, 1
_SHOWN = 50


def parser() -> argparse.ArgumentParser:
    """The tools as commands, each with the options that Kaldi's has."""
    result = argparse.ArgumentParser(prog="data_dir", description=__doc__.splitlines()[0], allow_abbrev=False)
    tools = result.add_subparsers(dest="tool", required=True, metavar="TOOL")

    def tool(name: str, action: Callable[[argparse.Namespace], None], says: str) -> argparse.ArgumentParser:
        made = tools.add_parser(name, help=says, description=says, allow_abbrev=False)
        made.set_defaults(action=action)
        return made

    _add_checks(tool)
    _add_copies(tool)
    each = tool("utt2spk_to_spk2utt", _spk2utt, "print spk2utt of a utt2spk, from a file or standard input")
    each.add_argument("file", nargs="?", type=Path)
    each = tool("spk2utt_to_utt2spk", _utt2spk, "print utt2spk of a spk2utt, from a file or standard input")
    each.add_argument("file", nargs="?", type=Path)
    each = tool("filter_scp", _filter, "print the lines whose first field is in a list of ids")
    each.add_argument("--exclude", action="store_true", help="print the other lines")
    each.add_argument("-f", type=positive, default=1, metavar="N", help="look at the field number N, from 1")
    each.add_argument("ids", type=Path, help="a file whose lines begin with an id")
    each.add_argument("file", nargs="?", type=Path, help="what is filtered; standard input where it is not given")
    return result


Adder = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]


def _add_checks(tool: Adder) -> None:
    """The tools that change nothing but one directory."""
    each = tool("validate_data_dir", _validate, "hold a directory against Kaldi's rules")
    for name in ("text", "wav", "spk-sort", "feats"):
        each.add_argument(f"--no-{name}", action="store_true", help=f"do not demand {name} (features never are)")
    each.add_argument("--non-print", action="store_true", help="taken for Kaldi's sake; any UTF-8 text is allowed")
    each.add_argument("--audio", action="store_true", help="open all audio too")
    each.add_argument("data", type=Path)
    each = tool("fix_data_dir", _fix, "sort a directory and drop what breaks a rule; the originals go to .backup in it")
    each.add_argument("--audio", action="store_true", help="drop what cannot be opened too")
    each.add_argument("data", type=Path)
    for name in ("utt2dur", "utt2num_samples"):
        each = tool(f"get_{name}", _measure, f"write {name}, unless it is there already")
        each.add_argument("--nj", type=positive, default=4, help="threads that open audio (%(default)s)")
        each.add_argument("--cmd", help="taken for Kaldi's sake")
        each.add_argument("--read-entire-file", help="taken for Kaldi's sake: what a header lacks is read")
        each.add_argument("data", type=Path)


def _add_copies(tool: Adder) -> None:
    """The tools that make a directory of others."""
    each = tool("subset_data_dir", _subset, "make a directory of some utterances: SRC [NUMBER] DEST")
    which = each.add_mutually_exclusive_group()
    which.add_argument("--first", action="store_const", dest="rule", const="first", help="the first NUMBER")
    which.add_argument("--last", action="store_const", dest="rule", const="last", help="the last NUMBER")
    which.add_argument("--shortest", action="store_const", dest="rule", const="shortest", help="the shortest NUMBER")
    which.add_argument(
        "--speakers", action="store_const", dest="rule", const="speakers", help="random speakers with NUMBER together"
    )
    which.add_argument("--per-spk", action="store_const", dest="rule", const="per-spk", help="NUMBER of each speaker")
    which.add_argument("--utt-list", type=Path, help="those that a file names first in its lines")
    which.add_argument("--spk-list", type=Path, help="those of the speakers that a file names first in its lines")
    each.add_argument("places", nargs="+", metavar="SRC [NUMBER] DEST", help="without a rule: NUMBER spread evenly")

    each = tool("combine_data", _combine, "join directories")
    each.add_argument("--extra-files", default="", help="more tables by utterance, such as 'utt2category'")
    each.add_argument("--skip-fix", help="taken for Kaldi's sake: what needs fixing is not joined")
    each.add_argument("dest", type=Path)
    each.add_argument("sources", type=Path, nargs="+")

    each = tool("copy_data_dir", _copy, "copy a directory, with other ids where asked")
    for name in ("utt-prefix", "utt-suffix", "spk-prefix", "spk-suffix"):
        each.add_argument(f"--{name}", default="")
    each.add_argument("--validate-opts", help="taken for Kaldi's sake")
    each.add_argument("source", type=Path)
    each.add_argument("dest", type=Path)

    each = tool("split_data", _split, "write DATA/split<N>/1 to N (--per-utt: split<N>utt)")
    how = each.add_mutually_exclusive_group()
    how.add_argument("--per-utt", action="store_true", help="speakers may be parted")
    how.add_argument("--per-reco", action="store_true", help="recordings stay whole, speakers may be parted")
    each.add_argument("data", type=Path)
    each.add_argument("parts", type=positive)

    each = tool("perturb_data_dir_speed", _perturb, "the same audio at another speed, by sox, under new ids")
    each.add_argument("factor")
    each.add_argument("source", type=Path)
    each.add_argument("dest", type=Path)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool that is named first."""
    args = parser().parse_args(_as_kaldi_types(sys.argv[1:] if argv is None else argv))
    args.action(args)


_WITH_VALUE = "utt-list spk-list extra-files skip-fix utt-prefix utt-suffix spk-prefix spk-suffix validate-opts nj cmd"


def _as_kaldi_types(words: Sequence[str]) -> list[str]:
    """`--utt_suffix -a` as `--utt-suffix=-a`: underscores are allowed, and a value may begin with a hyphen."""
    result: list[str] = []
    waiting = False  # the last option wants a value
    for word in words:
        if waiting:
            result[-1] += f"={word}"
            waiting = False
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            result.append(name.replace("_", "-") + equals + value)
            waiting = not equals and result[-1][2:] in (*_WITH_VALUE.split(), "read-entire-file")
        else:
            result.append(word)
    return result


def _say(tool: str, text: str) -> None:
    print(f"{tool}.sh: {text}")


def _validate(args: argparse.Namespace) -> None:
    from asrllm.data.validate import Demands, check  # imported late: torch is behind it

    demands = Demands(not args.no_text, not args.no_wav, not args.no_spk_sort, args.audio)
    report = check(args.data, demands=demands)
    for problem in report.problems[:_SHOWN]:
        print(f"  {problem}")
    if report.problems:
        raise UserError(f"{args.data}: {len(report.problems)} problem(s): utils/fix_data_dir.sh {args.data} mends them")
    _say(args.tool, f"Successfully validated data-directory {args.data}")


def _fix(args: argparse.Namespace) -> None:
    from asrllm.data import repair

    count, dropped, backup = repair.fix_in_place(args.data, args.audio)
    for each in dropped[:_SHOWN]:
        print(f"  dropped {each.utt_id}: {each.why}")
    if backup is None:
        _say(args.tool, f"{args.data}: nothing to mend, {count} utterances")
    else:
        _say(args.tool, f"kept {count} utterances, dropped {len(dropped)}; old files are kept in {backup}")


def _measure(args: argparse.Namespace) -> None:
    from asrllm.data import durations

    directories.check_folder(args.data)
    name = args.tool.removeprefix("get_")
    place = args.data / name
    if place.exists() and kaldi.read_table(place).keys() == kaldi.read_table(args.data / "utt2spk").keys():
        _say(args.tool, f"{place} already exists with the expected length.  We won't recompute it.")
        return
    if name == "utt2dur":
        table = {key: f"{seconds:.6f}" for key, seconds in durations.seconds(args.data, args.nj).items()}
    else:
        table = {key: str(size.samples) for key, size in durations.measure(args.data, args.nj).items()}
    with write_atomically(place) as temporary:
        temporary.write_bytes(kaldi.table_bytes(name, table))
    _say(args.tool, f"computed {place}")


def _subset(args: argparse.Namespace) -> None:
    listed = args.utt_list or args.spk_list
    if len(args.places) != (2 if listed else 3):
        raise UserError(f"expected SRC {'' if listed else 'NUMBER '}DEST, found {' '.join(args.places)}")
    source, dest = Path(args.places[0]), Path(args.places[-1])
    _apart(source, dest)
    tables = directories.read(source)
    if listed:
        chosen = _listed(tables, args)
    else:
        chosen = _chosen(tables, args.rule, args.places[1], source)
    directories.write(directories.keep(tables, chosen), dest)
    _say(args.tool, f"reducing #utt from {len(tables['utt2spk'])} to {len(chosen)}")


def _listed(tables: Tables, args: argparse.Namespace) -> list[str]:
    place = args.utt_list or args.spk_list
    with _text(place) as stream:
        ids = set(lines.first_fields(stream, str(place)))
    there = tables["utt2spk"] if args.utt_list else tables["spk2utt"]
    if absent := ids - there.keys():
        log.warning("%s: %d id(s) of it are not in the directory, %s first", place, len(absent), min(absent))
    chosen = ids & there.keys()
    if args.utt_list:
        return list(chosen)
    return [utt_id for utt_id, speaker in tables["utt2spk"].items() if speaker in chosen]


def _chosen(tables: Tables, rule: str | None, number: str, source: Path) -> list[str]:
    if not re.fullmatch(r"[1-9][0-9]*", number):
        raise UserError(f"expected SRC NUMBER DEST, found {number!r} for the number of utterances")
    count = int(number)
    everyone = sorted(tables["utt2spk"], key=byte_order)
    if count > len(everyone):
        raise UserError(f"cannot subset to {count} utterances: {source} has {len(everyone)}")
    members = {speaker: utt_ids.split() for speaker, utt_ids in tables["spk2utt"].items()}
    match rule:
        case "first":
            return everyone[:count]
        case "last":
            return everyone[-count:]
        case "speakers":
            return subset.whole_speakers(members, count)
        case "per-spk":
            return subset.of_each_speaker(members, count)
        case "shortest":
            from asrllm.data import durations

            return subset.shortest(durations.seconds(source), count)
    return subset.spread(everyone, count)


def _combine(args: argparse.Namespace) -> None:
    extra = args.extra_files.split()
    for source in args.sources:
        _apart(source, args.dest)
    parts = [directories.read(source, extra) for source in args.sources]
    joined = directories.join(parts, [str(source) for source in args.sources])
    directories.write(joined, args.dest)
    _say(args.tool, f"{args.dest}: {len(joined['utt2spk'])} utterances of {len(parts)} directories")


def _copy(args: argparse.Namespace) -> None:
    _apart(args.source, args.dest)
    tables = directories.rename(
        directories.read(args.source),
        lambda utt_id: f"{args.utt_prefix}{utt_id}{args.utt_suffix}",
        lambda speaker: f"{args.spk_prefix}{speaker}{args.spk_suffix}",
    )
    directories.write(tables, args.dest)
    _say(args.tool, f"copied data from {args.source} to {args.dest}")


def _split(args: argparse.Namespace) -> None:
    tables = directories.read(args.data)
    if args.per_utt:
        groups = [[utt_id] for utt_id in sorted(tables["utt2spk"], key=byte_order)]
    elif args.per_reco:
        groups = directories.by_recording(tables)
    else:
        groups = [utt_ids.split() for _, utt_ids in sorted(tables["spk2utt"].items())]
    kind = "utt" if args.per_utt else "reco" if args.per_reco else ""
    out = args.data / f"split{args.parts}{kind}"
    parts = directories.split(groups, args.parts)
    with write_atomically(out) as temporary:
        for number, utt_ids in enumerate(parts, 1):
            (temporary / str(number)).mkdir(parents=True)
            kaldi.write_tables(directories.keep(tables, utt_ids), temporary / str(number))
    _say(args.tool, f"{out}: {len(parts)} parts")


def _perturb(args: argparse.Namespace) -> None:
    _apart(args.source, args.dest)
    directories.write(perturb.speed(directories.read(args.source), args.factor), args.dest)
    _say(args.tool, f"generated speed-perturbed version of data in {args.source}, in {args.dest}")


def _apart(source: Path, dest: Path) -> None:
    if source.resolve() == dest.resolve() or dest.resolve() in source.resolve().parents:
        raise UserError(f"{dest}: the new directory would replace {source}, which it is made of: name another")


def _spk2utt(args: argparse.Namespace) -> None:
    with _text(args.file) as stream:
        _print(lines.spk2utt(stream))


def _utt2spk(args: argparse.Namespace) -> None:
    with _text(args.file) as stream:
        _print(lines.utt2spk(stream))


def _filter(args: argparse.Namespace) -> None:
    with _text(args.ids) as stream:
        ids = set(lines.first_fields(stream, str(args.ids)))
    with _text(args.file) as stream:
        _print(lines.keep(stream, ids, args.f, args.exclude))


@contextmanager
def _text(path: Path | None) -> Iterator[Iterable[str]]:
    """Lines of a file or of standard input; bytes that are not UTF-8 pass through as they are."""
    place: Path | int = _STANDARD_INPUT if path is None or str(path) == "-" else path
    try:
        with open(place, encoding="utf-8", errors="surrogateescape", newline="\n", closefd=path is place) as stream:
            yield stream
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _print(made: Iterable[str]) -> None:
    with open(_STANDARD_OUTPUT, "w", encoding="utf-8", errors="surrogateescape", newline="\n", closefd=False) as out:
        out.writelines(made)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` ends it without a word
    console.run(main)
