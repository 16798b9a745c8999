"""Every report against the real sclite: frozen output everywhere, sclite itself where it is installed."""

import importlib.util
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asrllm.score import table
from asrllm.score.align import count
from asrllm.score.dump import Writer
from asrllm.score.listing import Tally, of_speaker, overall
from asrllm.score.scoring import MatchConfig, ScoreConfig, Unit, align_set
from asrllm.score.sources import read_joined
from asrllm.score.units import splitter
from asrllm.score.utterances import Aligned

spec = importlib.util.spec_from_file_location("sclite_golden", Path(__file__).parent / "sclite_golden.py")
assert spec is not None and spec.loader is not None
golden = importlib.util.module_from_spec(spec)
sys.modules["sclite_golden"] = golden  # dataclasses look there
spec.loader.exec_module(golden)

needs_sclite = pytest.mark.skipif(
    not Path(golden.SCLITE).exists(), reason="sclite (Debian package sctk) is not installed"
)


def aligned(folder: Path, options: list[str]) -> tuple[list[Aligned], Unit, MatchConfig]:
    """The utterances of a folder under sclite's options."""
    match = ScoreConfig(
        case_sensitive="-s" in options,
        optional_words="-D" in options,
        fragments="-F" in options,
        delete_hyphens="DH" in options,
    )
    unit: Unit = "word" if "-c" not in options else "mixed" if "NOASCII" in options else "char"
    joined = read_joined(*files(folder), None, "spu_id", match.case_sensitive, None)
    split = splitter(unit, match, spaced=False)
    return align_set(joined, unit, match, split), unit, match


def files(folder: Path) -> tuple[Path, Path]:
    """Reference and hypothesis of a folder."""
    timed = (folder / "ref.stm").exists()
    return (folder / "ref.stm", folder / "hyp.ctm") if timed else (folder / "ref.trn", folder / "hyp.trn")


def reports(folder: Path, options: list[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each report."""
    alignments, unit, match = aligned(folder, options)
    ref, hyp = (path.name for path in files(folder))
    writer = Writer(alignments, match, unit != "word", hyp)
    sure = writer.entropies()
    groups = {name: [alignments[place] for place in places] for name, places in writer.speakers.items()}
    counts = {name: [count(each.edits) for each in members] for name, members in groups.items()}
    shown: Unit = "word" if unit == "word" else "char"
    yield "sys", table.summary(counts, shown, hyp, entropies=sure)
    yield "raw", table.summary(counts, shown, hyp, raw=True, entropies=sure)
    yield "pra", "".join(writer.pra())
    yield "prf", "".join(writer.prf(ref, hyp, "DATE"))
    yield "sgml", "".join(writer.sgml(ref, hyp, "DATE"))
    yield "dtl", overall(Tally().add(alignments), hyp)
    yield "spk", "".join(of_speaker(Tally().add(members), name, hyp) for name, members in groups.items())


@pytest.mark.parametrize("case", golden.CASES, ids=lambda case: case.name)
def test_reports_are_the_frozen_ones_of_sclite(case) -> None:
    folder = golden.FOLDER / case.name
    for name, text in reports(folder, list(case.options)):
        assert text == (folder / f"{name}.txt").read_text(encoding="utf-8"), name


@needs_sclite
@pytest.mark.parametrize("case", golden.CASES, ids=lambda case: case.name)
def test_reports_are_those_of_sclite_on_many_new_cases(case, tmp_path: Path) -> None:
    many = replace(case, pairs=300, seed=1000 + case.seed)
    golden.write_pairs(many, tmp_path)
    for name, text in reports(tmp_path, list(case.options)):
        assert text == golden.run_sclite(tmp_path, name, case.options), name


def test_reports_of_real_decoder_output_are_those_of_sclite() -> None:
    folder = golden.FOLDER / "decoded"
    for name, text in reports(folder, []):
        assert text == (folder / f"{name}.txt").read_text(), name


@pytest.mark.parametrize("case", golden.TIMED_CASES, ids=lambda case: case[0])
def test_timed_reports_are_the_frozen_ones_of_sclite(case) -> None:
    folder = golden.FOLDER / case[0]
    for name, text in reports(folder, case[1]):
        assert text == (folder / f"{name}.txt").read_text(), name


@needs_sclite
@pytest.mark.parametrize("seed", range(12))
def test_timed_reports_are_those_of_sclite_on_new_cases(seed: int, tmp_path: Path) -> None:
    options = [[], ["-D", "-F"], ["-s"], ["-c"]][seed % 4]
    golden.write_timed(tmp_path, 100 + seed, confident=seed % 3 == 0)
    for name, text in reports(tmp_path, options):
        theirs = golden.run_sclite(tmp_path, name, options)
        if "nan" not in theirs:  # sclite's entropy of a speaker who made no error
            assert text == theirs, name


@needs_sclite
@pytest.mark.parametrize("case", golden.CASES[:3], ids=lambda case: case.name)
def test_frozen_files_are_what_sclite_says_today(case, tmp_path: Path) -> None:
    golden.write_pairs(case, tmp_path)
    for name in ("ref.trn", "hyp.trn"):
        assert (tmp_path / name).read_bytes() == (golden.FOLDER / case.name / name).read_bytes()
    for name in golden.REPORTS:
        frozen = (golden.FOLDER / case.name / f"{name}.txt").read_text(encoding="utf-8")
        assert golden.run_sclite(tmp_path, name, case.options) == frozen


@needs_sclite
@pytest.mark.parametrize("timed", [True, False])
def test_two_ctm_files_have_the_counts_of_sclite(timed: bool, tmp_path: Path) -> None:
    """Channels shorter than the 50 words at which sclite looks for a pause to cut; a few words are moved in time."""
    generator = random.Random(3)
    for name in ("ref", "hyp"):
        lines = []
        for channel in range(30):
            now = 0.0
            for _ in range(generator.randint(3, 25)):
                seconds = generator.choice([0.2, 0.25, 0.31])
                lines.append(f"file{channel:02} A {now:.2f} {seconds} {generator.choice(golden.TIMED)}")
                now += seconds + generator.choice([0.0, 0.15])
        (tmp_path / f"{name}.ctm").write_text("\n".join(lines) + "\n")
    match = ScoreConfig(time_mediated=timed)
    joined = read_joined(tmp_path / "ref.ctm", tmp_path / "hyp.ctm", None, "spu_id", False, None)
    ours = [count(each.edits) for each in align_set(joined, "word", match, splitter("word", match, spaced=True))]
    files = "-r ref.ctm ctm -h hyp.ctm ctm -f 0 -o pralign stdout"
    command = [golden.SCLITE, *files.split(), *(["-T"] if timed else [])]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    theirs = [tuple(map(int, row)) for row in re.findall(r"#I\) (\d+) (\d+) (\d+) (\d+)", said)]
    assert [(each.correct, each.substitutions, each.deletions, each.insertions) for each in ours] == theirs
