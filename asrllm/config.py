"""One YAML file in, one frozen pydantic model out; every fault of the file reported at once, by its key path.

The schema is the models themselves: each stands beside the class that it configures. A choice between components is a
union told apart by `type`. Nothing here builds an object or reads the environment.
"""

import difflib
import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from asrllm.console import UserError, write_atomically


class Config(pydantic.BaseModel):
    """Base of every configuration: frozen, strict in its types, closed to unknown keys."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


Schema = TypeVar("Schema", bound=pydantic.BaseModel)


def load(path: Path, schema: type[Schema], overrides: Sequence[str] = ()) -> Schema:
    """Read `path`, merge its `base`, apply `key.sub=value` overrides, check against `schema`.

    Raises:
        UserError: lists every fault, one a line.
    """
    tree = _read(path, ())
    for item in overrides:
        _override(tree, item)
    return parse(tree, schema, source=str(path))


def parse(tree: dict[str, Any], schema: type[Schema], source: str) -> Schema:
    """Check a tree of plain values; `source` names it in the error."""
    try:
        return schema.model_validate_json(json.dumps(tree, default=str))  # JSON mode: strict, yet lists may be tuples
    except pydantic.ValidationError as error:
        names = _field_names(schema, set())
        found = error.errors()
        faults = [_sentence(fault, names) for fault in found if not _follows(fault, found)]
        raise UserError(f"{source}: {len(faults)} fault(s)\n" + "\n".join(f"  {fault}" for fault in faults)) from None


def dump(config: pydantic.BaseModel, path: Path) -> None:
    """Write the resolved configuration; `load` reads it back to an equal object."""
    with write_atomically(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and reads `1e-4` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            mark = key_node.start_mark
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{mark.name}: line {mark.line + 1}: a key must be a word, found a list or a mapping")
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise UserError(f"{mark.name}: line {mark.line + 1}: key {key!r} is given twice: keep one of them")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _read(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """The mapping of a file with its base merged; `children` are the files that led to it."""
    if path.resolve() in children:
        raise UserError(f"{path}: base: the file leads back to itself: give another file or none")
    try:
        with path.open(encoding="utf-8") as stream:
            tree = yaml.load(stream, _Loader) or {}
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: the top level must be a mapping of keys to values, found {type(tree).__name__}")
    base = tree.pop("base", None)
    return tree if base is None else _merge(_read(path.parent / str(base), (*children, path.resolve())), tree)


def _merge(old: Any, new: Any) -> Any:
    """Maps merge; anything else, and a map that picks another `type`, replaces."""
    if not (isinstance(old, dict) and isinstance(new, dict)) or ("type" in new and new["type"] != old.get("type")):
        return new
    return {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}


def _override(tree: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals:
        raise UserError(f"--set {item}: expected key.sub=value")
    place: Any = tree
    *parents, last = key.split(".")
    for name in parents:
        if isinstance(place, list):
            place = place[_entry(place, name, item)]
        else:
            place = place.setdefault(name, {})
        if not isinstance(place, (dict, list)):
            raise UserError(f"--set {item}: {name} holds a value, not a mapping")
    try:
        place[_entry(place, last, item) if isinstance(place, list) else last] = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"--set {item}: not valid YAML: {' '.join(str(error).split())}") from None


def _entry(entries: list[Any], name: str, item: str) -> int:
    """The entry of a list that a number in a key names, counted from 0 as in the faults that are reported."""
    if not (name.isdigit() and int(name) < len(entries)):
        raise UserError(f"--set {item}: {name}: expected a number from 0 to {len(entries) - 1}, that of an entry")
    return int(name)


def _follows(fault: Any, found: Sequence[Any]) -> bool:
    """Whether a list lacks entries only because of faults in those that it has."""
    where = fault["loc"]
    return fault["type"] == "too_short" and any(
        each["loc"][: len(where)] == where and each is not fault for each in found
    )


def _sentence(fault: Any, names: set[str]) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "file"
    if fault["type"] == "extra_forbidden":
        key = str(fault["loc"][-1])
        close = difflib.get_close_matches(key, sorted(names - {key}), n=1)
        return f"{where}: unknown key" + (f" (did you mean {close[0]!r}?)" if close else "")
    if fault["type"] == "union_tag_not_found":
        return f"{where}: its type is required, but not given"
    if fault["type"] == "union_tag_invalid":
        return f"{where}.type: expected one of {fault['ctx']['expected_tags']}, found {fault['ctx']['tag']!r}"
    if fault["type"] == "missing":
        return f"{where}: required, but not given"
    expected = fault["msg"].removeprefix("Value error, ")
    found = "" if fault["type"] == "value_error" else f", found {fault['input']!r}"
    return f"{where}: {expected[0].lower()}{expected[1:]}{found}"


def _field_names(hint: Any, seen: set[Any]) -> set[str]:
    """Names of all fields reachable from a schema, for the spelling hint."""
    if isinstance(hint, type) and issubclass(hint, pydantic.BaseModel):
        if hint in seen:
            return set()
        seen.add(hint)
        inner = [_field_names(field.annotation, seen) for field in hint.model_fields.values()]
        return set(hint.model_fields).union(*inner)
    return set().union(*(_field_names(part, seen) for part in typing.get_args(hint)))
