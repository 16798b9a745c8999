"""The house's plan, held: floors and wings, empty __init__ files, names, sizes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "asrllm"
FLOORS = [  # from the ground up; the names in one row are wings, independent of each other
    ["console"],
    ["config", "dist", "batch", "flops", "hypothesis"],
    ["text"],
    ["data", "models", "train", "decode", "score"],
    ["experiment"],
    ["analysis", "api"],
    ["bin"],
]
FLOOR_OF = {name: floor for floor, row in enumerate(FLOORS) for name in row}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80


def sources() -> list[Path]:
    """Every Python file of the project."""
    made = {"venv", "exp", "data", "dump", "downloads"}  # outside the package these names are not ours
    own = [path for folder in (PACKAGE, ROOT / "test") for path in folder.rglob("*.py")]
    others = [path for name in ("tools", "egs", "benchmark") for path in (ROOT / name).rglob("*.py")]
    others = [path for path in others if not made & set(path.relative_to(ROOT).parts)]
    return sorted([*own, *others, ROOT / "setup.py"])


def imported(tree: ast.AST) -> Iterator[str]:
    """Rooms of the package that a module imports, wherever in the file the import stands."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: name the module in full"
            names = [f"asrllm.{alias.name}" for alias in node.names] if node.module == "asrllm" else [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("asrllm."))


def wrong_imports(room: str, tree: ast.AST) -> list[str]:
    """Rooms that `room` imports though they do not lie on a floor below it."""
    return [other for other in imported(tree) if other != room and FLOOR_OF[other] >= FLOOR_OF[room]]


def test_every_import_points_down() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        assert room in FLOOR_OF, f"{path.relative_to(ROOT)} stands on no floor: give it one in FLOORS"
        others = wrong_imports(room, ast.parse(path.read_text(encoding="utf-8")))
        wrong += [f"{path.relative_to(ROOT)} -> {other}" for other in others]
    assert not wrong, "imports that do not point down:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("room", "line", "wrong"),
    [
        ("models", "from asrllm.text.tokenizer import Tokenizer", []),
        ("models", "from asrllm.models.ctc import CTC", []),
        ("models", "from asrllm.train.stage import Stage", ["train"]),
        ("text", "def f():\n    import asrllm.data.kaldi", ["data"]),
        ("data", "from asrllm import experiment, console", ["experiment"]),
        ("experiment", "import torch\nfrom asrllm.score import align", []),
    ],
)
def test_the_rule_finds_what_it_forbids(room: str, line: str, wrong: list[str]) -> None:
    assert wrong_imports(room, ast.parse(line)) == wrong


def test_init_files_are_empty() -> None:
    packages = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in packages if not (folder / "__init__.py").is_file()] == []
    assert [str(path) for path in PACKAGE.rglob("__init__.py") if path.read_text()] == []


def test_names_say_what_a_file_holds() -> None:
    assert [str(path) for path in sources() if path.stem in FORBIDDEN_NAMES] == []


def test_base_names_of_tests_are_unique() -> None:
    names = [path.name for path in (ROOT / "test").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_files_and_functions_are_short() -> None:
    long = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(ROOT)
        lines = len(text.splitlines())
        if lines > MAX_FILE_LINES:
            long.append(f"{where}: {lines} lines, at most {MAX_FILE_LINES}: look for the second noun in it")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{where}:{node.lineno}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}")
    assert not long, "\n".join(long)


def test_every_public_thing_of_the_package_is_described() -> None:
    bare = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name != "__init__.py" and not ast.get_docstring(tree):
            bare.append(f"{path.relative_to(ROOT)}: the module")
        for node in tree.body:
            is_definition = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            if is_definition and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert not bare, "no docstring:\n" + "\n".join(bare)


def test_nothing_asks_by_hasattr() -> None:
    asks = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
                asks.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert asks == []
