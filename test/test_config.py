"""Strict YAML: what is wrong is named by key, all of it at once; what is right reads back equal."""

from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest

from asrllm import config as configs
from asrllm.config import Config
from asrllm.console import UserError
from asrllm.experiment import ExperimentConfig


class Conv(Config):
    """A choice."""

    type: Literal["conv"]
    kernel: int = 3


class Attention(Config):
    """Another."""

    type: Literal["attention"]
    heads: int = 4
    rate: float = 0.1


class Whole(Config):
    """A file."""

    layer: Annotated[Conv | Attention, pydantic.Field(discriminator="type")]
    learning_rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    cached: bool = False
    name: str = ""
    stack: tuple[Conv, ...] = pydantic.Field(default=(Conv(type="conv"),), min_length=1)


def load(folder: Path, text: str, *overrides: str) -> Whole:
    (folder / "a.yaml").write_text(text, encoding="utf-8")
    return configs.load(folder / "a.yaml", Whole, overrides)


def faults(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load(folder, text, *overrides)
    return str(error.value).replace(str(folder) + "/", "")


CONV = "layer: {type: conv}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONV + "learning_rat: 1.0\n", "  learning_rat: unknown key (did you mean 'learning_rate'?)"),
        ("layer: {type: conv, kernal: 5}\n", "  layer.conv.kernal: unknown key (did you mean 'kernel'?)"),
        (CONV + "zzz: 1\n", "  zzz: unknown key"),
        ("name: x\n", "  layer: required, but not given"),
        ("layer: {type: pool}\n", "  layer.type: expected one of 'conv', 'attention', found 'pool'"),
        ("layer: {kernel: 5}\n", "  layer: its type is required, but not given"),
        ("layer: {type: conv, kernel: '5'}\n", "  layer.conv.kernel: input should be a valid integer, found '5'"),
        ("layer: {type: conv, kernel: 5.5}\n", "  layer.conv.kernel: input should be a valid integer"),
        (CONV + "cached: 1\n", "  cached: input should be a valid boolean, found 1"),
        (CONV + "learning_rate: fast\n", "  learning_rate: input should be a valid number, found 'fast'"),
        (CONV + "name: 7\n", "  name: input should be a valid string, found 7"),
        (CONV + "betas: [0.9]\n", "  betas.1: required, but not given"),
        (CONV + "stack: [{type: conv, kernal: 5}]\n", "  stack.0.kernal: unknown key (did you mean 'kernel'?)"),
        (CONV + "stack: []\n", "  stack: "),
        (CONV + "cached:\n", "  cached: input should be a valid boolean, found None"),
    ],
)
def test_a_fault_is_named_by_its_key(tmp_path: Path, text: str, said: str) -> None:
    assert faults(tmp_path, text).startswith("a.yaml: 1 fault(s)\n" + said)


def test_a_key_in_the_wrong_place_is_no_hint_at_itself(tmp_path: Path) -> None:
    assert faults(tmp_path, CONV + "kernel: 5\n").endswith("  kernel: unknown key")


def test_all_faults_at_once(tmp_path: Path) -> None:
    said = faults(tmp_path, "layer: {type: conv, kernel: x}\ncached: maybe\nbeta: 1\n").splitlines()
    assert said[0] == "a.yaml: 3 fault(s)"
    assert [line.split(":")[0].strip() for line in said[1:]] == ["layer.conv.kernel", "cached", "beta"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONV + "name: a\nname: b\n", "line 3: key 'name' is given twice: keep one of them"),
        ("layer:\n  type: conv\n  kernel: 3\n  kernel: 5\n", "line 4: key 'kernel' is given twice: keep one of them"),
        ("? [1, 2]\n: x\n", "line 1: a key must be a word, found a list or a mapping"),
        ("layer: [\n", "a.yaml: not valid YAML: "),
        ("- 1\n- 2\n", "a.yaml: the top level must be a mapping of keys to values, found list"),
        ("base: b.yaml\n", "b.yaml: no such configuration file"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    assert said in faults(tmp_path, text)


def test_no_file_and_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing.yaml: no such configuration file"):
        configs.load(tmp_path / "nothing.yaml", Whole)
    with pytest.raises(UserError, match="no such configuration file"):
        configs.load(tmp_path, Whole)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(UserError, match="latin.yaml: not valid YAML: .*utf-8"):
        configs.load(tmp_path / "latin.yaml", Whole)


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "1E-4", "0.0001", ".0001", "1.e-4", "+1e-4"])
def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path, number: str) -> None:
    assert load(tmp_path, f"{CONV}learning_rate: {number}\n").learning_rate == 1e-4


def test_a_whole_number_is_a_number_too(tmp_path: Path) -> None:
    assert load(tmp_path, CONV + "learning_rate: 2\n").learning_rate == 2.0


def test_base_merges_maps_and_another_type_replaces(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("layer: {type: attention, heads: 8, rate: 0.5}\nname: parent\n")
    same = load(tmp_path, "base: parent.yaml\nlayer: {rate: 0.2}\n")
    assert same.layer == Attention(type="attention", heads=8, rate=0.2) and same.name == "parent"
    named = load(tmp_path, "base: parent.yaml\nlayer: {type: attention, rate: 0.2}\n")
    assert named == same
    other = load(tmp_path, "base: parent.yaml\nlayer: {type: conv}\nname: child\n")
    assert other.layer == Conv(type="conv") and other.name == "child"
    (tmp_path / "middle.yaml").write_text("base: parent.yaml\nname: middle\n")
    assert load(tmp_path, "base: middle.yaml\n").name == "middle"


def test_a_file_that_is_its_own_base(tmp_path: Path) -> None:
    said = "a.yaml: base: the file leads back to itself"
    assert said in faults(tmp_path, "base: a.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    assert said in faults(tmp_path, "base: b.yaml\n")


def test_set_overrides_one_key(tmp_path: Path) -> None:
    found = load(tmp_path, CONV, "layer.kernel=7", "learning_rate=1e-3", "name=a=b", "betas=[0.5, 0.6]", "cached=true")
    assert found == Whole(
        layer=Conv(type="conv", kernel=7), learning_rate=1e-3, name="a=b", betas=(0.5, 0.6), cached=True
    )
    assert "layer.conv.size: unknown key" in faults(tmp_path, CONV, "layer.size=1")
    assert "--set name: expected key.sub=value" in faults(tmp_path, CONV, "name")
    assert "--set name.sub=1: name holds a value, not a mapping" in faults(tmp_path, CONV + "name: x\n", "name.sub=1")
    assert "--set name=[: not valid YAML" in faults(tmp_path, CONV, "name=[")


def test_set_finds_entries_of_a_list_by_number(tmp_path: Path) -> None:
    listed = CONV + "betas: [0.5, 0.6]\n"
    assert load(tmp_path, listed, "betas.1=0.9").betas == (0.5, 0.9)
    for number in ("2", "x", "-1"):
        said = f"--set betas.{number}=1: {number}: expected a number from 0 to 1"
        assert said in faults(tmp_path, listed, f"betas.{number}=1")
    assert "--set betas.0.a=1: 0 holds a value" in faults(tmp_path, listed, "betas.0.a=1")


@pytest.mark.parametrize("name", ["train_encoder", "train_align"])
def test_the_resolved_file_reads_back_equal(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(root / "egs" / "mini" / "asr1")
    first = configs.load(Path(f"conf/{name}.yaml"), ExperimentConfig)
    configs.dump(first, tmp_path / "config.yaml")
    assert configs.load(tmp_path / "config.yaml", ExperimentConfig) == first
    assert "base:" not in (tmp_path / "config.yaml").read_text()


def test_text_of_any_script_reads_back_equal(tmp_path: Path) -> None:
    first = load(tmp_path, CONV + 'name: "caf\u00e9 \u732b: yes\\n1e-4"\nlearning_rate: 1e-5\n')
    configs.dump(first, tmp_path / "b.yaml")
    assert configs.load(tmp_path / "b.yaml", Whole) == first
