"""Every recipe's commands, dry: the program exists, takes these flags, and accepts that YAML file."""

import argparse
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from asrllm.config import load

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(ROOT.glob("egs/*/asr1"))
STAGES = ["prepare.py", "check_data", "train_tokenizer", "train", "decode", "score", "report"]


def commands(recipe: Path, *options: str) -> list[list[str]]:
    """What run.sh would run, a command as its words from the program on."""
    line = ["bash", str(recipe / "run.sh"), "--dry_run", "true", *options]
    result = subprocess.run(line, capture_output=True, text=True, cwd="/", stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stderr
    return [shlex.split(text) for text in result.stdout.splitlines()]


def program(words: list[str]) -> tuple[str, list[str]]:
    """The program that a command runs, as a module's name or a script's path, and its arguments."""
    if "-m" in words:
        start = words.index("-m") + 1
    else:
        start = words.index("python") + 1
    return words[start], words[start + 1 :]


def parser_of(module: object) -> argparse.ArgumentParser:
    parser = module.parser()  # type: ignore[attr-defined]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def accepts(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The parsed arguments; an option that is only an abbreviation counts as wrong."""
    parser.allow_abbrev = False
    try:
        return parser.parse_args(arguments)
    except SystemExit:
        pytest.fail(f"the parser refuses {shlex.join(arguments)}\n{parser.format_usage()}")


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.parent.name)
def recipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder, which is the current one."""
    monkeypatch.chdir(request.param)
    return request.param


def test_there_are_recipes() -> None:
    names = "TEMPLATE aishell an4 commonvoice fsdd librispeech loquacious mini speechocean762 yesno"
    assert [recipe.parent.name for recipe in RECIPES] == names.split()


@pytest.mark.parametrize(
    "arguments", [["--exp", "x"], ["--ex", "x", "--out", "y"], ["--exp=x", "--out", "y", "--more"]]
)
def test_the_check_of_flags_finds_what_is_wrong(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--exp")
    parser.add_argument("--out", required=True)
    assert accepts(parser, ["--exp", "x", "--out", "y"]).out == "y"
    with pytest.raises(pytest.fail.Exception, match="the parser refuses"):
        accepts(parser, arguments)


def test_all_stages_come_in_order(recipe: Path) -> None:
    names = [Path(program(words)[0]).name.removeprefix("asrllm.bin.") for words in commands(recipe)]
    assert list(dict.fromkeys(names)) == STAGES


def test_the_report_tells_what_was_typed(recipe: Path) -> None:
    [words] = commands(recipe, "--stage", "10", "--test_sets", "one two")
    assert value_of(words, "--command") == "./run.sh --dry_run true --stage 10 --test_sets 'one two'"


def test_a_dry_run_writes_nothing(recipe: Path) -> None:
    before = sorted(recipe.iterdir())
    commands(recipe)
    assert sorted(recipe.iterdir()) == before


def test_a_quick_run_keeps_to_its_own_folders(recipe: Path) -> None:
    for words in commands(recipe, "--quick", "true"):
        assert not [word for word in words if word.split("/")[0] in ("data", "dump", "exp")]


@pytest.mark.parametrize("options", [(), ("--nj", "3"), ("--ngpu", "2")], ids=["plain", "jobs", "gpus"])
def test_programs_take_the_flags(recipe: Path, options: tuple[str, ...]) -> None:
    for words in commands(recipe, *options):
        name, arguments = program(words)
        if name.endswith(".py"):
            continue
        module = importlib.import_module(name)
        # The runner puts the job's number in place of its name.
        accepts(parser_of(module), [re.sub(r"\bJOB\b", "1", argument) for argument in arguments])


def test_preparation_takes_the_flags(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, arguments = next(program(words) for words in commands(recipe, "--stop_stage", "1"))
    monkeypatch.syspath_prepend(str(recipe / "local"))
    spec = importlib.util.spec_from_file_location(f"prepare_{recipe.parent.name}", recipe / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    accepts(parser_of(module), arguments)


def test_configurations_fit_their_programs(recipe: Path) -> None:
    seen = set()
    for words in commands(recipe):
        name, arguments = program(words)
        if "--config" in arguments:
            file = arguments[arguments.index("--config") + 1]
            seen.add(file)
            load(Path(file), importlib.import_module(name).SCHEMA)
    assert seen, "no command reads a configuration"


def test_every_configuration_of_a_recipe_is_valid(recipe: Path) -> None:
    """Also those that run.sh does not name, which its user may put in their place; bases through their users."""
    kinds = {
        "train": "train",
        "decode": "decode",
        "score": "score",
        "tokenizer": "train_tokenizer",
        "zero": "decode",
        "rescore": "rescore",
        "tune": "tune",
        "ladder": "ladder",
        "segment": "segment",
    }
    files = sorted(recipe.glob("conf/**/*.yaml"))
    bases = {Path(name).name for file in files for name in re.findall(r"(?m)^base: *(\S+)", file.read_text())}
    for file in files:
        if file.name in bases and not file.name.startswith(tuple(kinds)):
            continue
        first = re.split(r"[_.]", file.name)[0]
        assert first in kinds, f"{file}: a file of conf/ begins with what it configures: {', '.join(kinds)}"
        kind = kinds[first]
        load(file, importlib.import_module(f"asrllm.bin.{kind}").SCHEMA)


@pytest.mark.parametrize(
    ("name", "script", "scored_set", "fewest"),
    [
        ("mini", "../../compare_decoding.sh", "test", 21),
        ("speechocean762", "../../compare_decoding.sh", "test", 21),
        ("mini", "local/compare_alignments.sh", "dev", 16),
    ],
)
def test_a_comparison_fits_its_programs(
    name: str, script: str, scored_set: str, fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags, files and overrides; what is decoded, tuned and rescored is there by then."""
    monkeypatch.chdir(ROOT / "egs" / name / "asr1")
    line = [script, "--dry_run", "--expdir", "exp of it"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made: set[str] = set()
    scored = []
    for words in map(shlex.split, done.stdout.splitlines()):
        module = importlib.import_module(program(words)[0])
        found = vars(accepts(parser_of(module), program(words)[1]))
        config = found.get("config") or Path("conf/score.yaml")
        if "decoding" in found:
            assert str(found["decoding"]) in made
        if config.exists():
            if hasattr(module, "SCHEMA"):
                load(config, module.SCHEMA, found.get("set", []))
        else:
            assert str(config) in made
        made |= {str(found["out"])} if found.get("out") else set()
        scored += [found["hyp"]] if "hyp" in found else []
        assert shlex.split(found.get("command", "")) in ([], line)
    assert {str(each) for each in scored} <= made and len(scored) == len(set(scored)) >= fewest
    assert {each.name for each in scored} == {scored_set}


def test_schedules_are_chains_of_stages(recipe: Path) -> None:
    """Each stage starts from experiments that were made before it; the last one is decoded."""
    for schedule in sorted(recipe.glob("conf/schedules/*.sh")):
        lines = commands(recipe, "--schedule", f"conf/schedules/{schedule.name}", "--stage", "4")
        trained: list[str] = []
        for words in lines:
            if program(words)[0] == "asrllm.bin.train":
                config = load(Path(value_of(words, "--config")), importlib.import_module("asrllm.bin.train").SCHEMA)
                swaps = [phase.encoder_swaps for phase in config.stage.phases if phase.encoder_swaps]
                sources = {*config.stage.init.values(), *(each.pretraining for each in swaps)}
                assert sources <= {*trained}, f"{schedule}: {value_of(words, '--config')}"
                trained.append(value_of(words, "--exp"))
        assert trained[-1] in {value_of(words, "--exp") for words in lines if "asrllm.bin.decode" in words}


def value_of(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]
