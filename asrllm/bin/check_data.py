"""Check a Kaldi data directory, write a repaired copy of it, or make it ready for training.

python -m asrllm.bin.check_data data/train --format dump/train --nj 4
python -m asrllm.bin.check_data data/train --doctor exp/doctor --against data/test --listen --nj 4
"""

import argparse
from pathlib import Path

from asrllm import console
from asrllm.console import UserError, positive, write_atomically
from asrllm.data import doctor, doctor_report, repair, validate
from asrllm.data import format as formatting
from asrllm.data.kaldi import Problem

_SHOWN = 50


def parser() -> argparse.ArgumentParser:
    """Options of the program."""
    result = argparse.ArgumentParser(prog="check_data", description=__doc__.splitlines()[0], allow_abbrev=False)
    result.add_argument("data", type=Path, help="data directory to check")
    result.add_argument("--fix", type=Path, metavar="OUT", help="write a repaired copy here, with dropped.txt")
    result.add_argument("--format", type=Path, metavar="OUT", help="make the training-ready directory after the check")
    result.add_argument(
        "--sample_rate", type=positive, default=16000, help="Hz of the training-ready audio (%(default)s)"
    )
    result.add_argument("--sample_rate_must_be", type=positive, metavar="HZ", help="refuse recordings at other rates")
    result.add_argument("--channel", type=positive, help="channel of all recordings, from 1")
    result.add_argument(
        "--nj", type=positive, default=1, help="threads that check, processes that decode (%(default)s)"
    )
    result.add_argument("--no_text", action="store_true", help="for a directory without transcripts")
    result.add_argument("--doctor", type=Path, metavar="OUT", help="look for what is odd too; report.* go into OUT")
    result.add_argument(
        "--against", type=Path, nargs="+", default=[], metavar="TEST", help="with --doctor: sets that are tested on"
    )
    result.add_argument("--listen", action="store_true", help="with --doctor: decode all audio, not headers alone")
    result.add_argument(
        "--frame_seconds", type=float, default=0.04, help="with --doctor: of the encoder's frames (%(default)s)"
    )
    result.add_argument("--report", type=Path, metavar="FILE", help="write every problem here")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    parse = parser()
    options = parse.parse_args(argv)
    folder: Path = options.data
    if options.doctor is None and (options.listen or options.against):
        parse.error("--listen and --against belong to --doctor OUT, which is not given")
    if options.doctor is not None and (options.fix or options.format or options.report):
        parse.error("--doctor looks and changes nothing: give --fix, --format and --report to another call")
    if options.doctor is not None:
        _examine(options)
        return
    if options.fix is not None:
        dropped = repair.fix(folder, options.fix, options.channel, options.nj)
        print(f"{options.fix}: repaired copy of {folder}, {len(dropped)} utterance(s) dropped: see dropped.txt")
        folder = options.fix
    demands = validate.Demands(text=not options.no_text)
    report = validate.check(folder, options.channel, options.sample_rate_must_be, options.nj, demands)
    print(_summary(folder, report))
    _tell(report.problems, options.report)
    if report.problems:
        hint = "" if options.fix is not None else ": --fix OUT writes a repaired copy"
        raise UserError(f"{folder}: {len(report.problems)} problem(s){hint}")
    if options.format is not None:
        made = formatting.write(folder, options.format, options.sample_rate, options.channel, options.nj)
        print(f"{options.format}: {'written' if made else 'up to date'}")


def _examine(options: argparse.Namespace) -> None:
    """Walk through the directory and those it is held against, in memory that hardly grows with their size."""
    limits = doctor.Limits(frame_seconds=options.frame_seconds)
    trained = doctor.examine(options.data, options.listen, options.nj, limits)
    others = [doctor.examine(folder, options.listen, options.nj, limits) for folder in options.against]
    shared = [doctor.compare(trained, other) for other in others]
    text = doctor_report.write([trained, *others], shared, options.doctor, options.listen)
    print(text, end="")
    broken = sum(each.findings["broken_rule"].count for each in (trained, *others) if "broken_rule" in each.findings)
    if broken:
        raise UserError(f"{options.data}: {broken} broken rule(s), see {options.doctor / 'report.txt'}")


def _summary(folder: Path, report: validate.Report) -> str:
    rates = " ".join(f"{rate} Hz" for rate in report.sample_rates) or "no audio"
    size = f"{report.utterances} utterances, {report.speakers} speakers, {report.seconds / 3600:.2f} hours"
    return f"{folder}: {size}, {rates}, {len(report.problems)} problem(s)"


def _tell(problems: list[Problem], file: Path | None) -> None:
    """Print the first problems, write all of them."""
    for problem in problems[:_SHOWN]:
        print(f"  {problem}")
    if len(problems) > _SHOWN:
        print(f"  and {len(problems) - _SHOWN} more" + ("" if file else ": --report FILE writes all"))
    if file is not None:
        with write_atomically(file) as temporary:
            temporary.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
