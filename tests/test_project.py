"""The house rules that a machine can check: imports, import time, safe loading, file length, versions, pins."""

from __future__ import annotations

import ast
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import foretaste

PACKAGE = Path(foretaste.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300
"""Lines. A longer file is two things."""

EVERYONE = {"__init__", "errors", "config"}
MAY_IMPORT = {
    "errors": set[str](),
    "config": set[str](),
    "data": set[str](),
    "models": {"data", "spaces"},
    "retrieval": {"data", "models"},
    "serving": {"data", "models", "retrieval"},
    "evaluation": {"data", "models"},
    "training": {"data", "models", "evaluation"},
    "recommender": {"data", "models", "evaluation", "training", "retrieval"},
    "spaces": set[str](),
    "threads": set[str](),
    "memory": set[str](),
    "words": {"data", "evaluation"},
    "compare": {
        "data",
        "models",
        "evaluation",
        "training",
        "retrieval",
        "recommender",
        "spaces",
        "threads",
        "memory",
        "words",
        "pages",
        "inspection",
    },
}
"""Part of the package -> the parts that it may import. A part that is not listed (the command line, the public names in
`__init__`) may import all of them, and nobody may import it but others like it."""


def part_of(dotted: str) -> str:
    """'foretaste.data.events' -> 'data'; the package itself is '__init__'."""
    return dotted.split(".")[1] if "." in dotted else "__init__"


def dotted_name(path: Path) -> str:
    """src/foretaste/data/events.py -> 'foretaste.data.events'; a package is called like its folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, full name) of all that a file imports, anywhere in it; relative imports are spelled out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            # `from foretaste import data` names a part; `from foretaste.data import Sequences` names a thing in one
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "foretaste" else [base]
            yield from ((node.lineno, name) for name in names)


def wrong_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """One sentence for each import that goes against the direction."""
    part = part_of(module)
    parts = {entry.stem for entry in PACKAGE.iterdir() if entry.suffix in {"", ".py"}} | set(MAY_IMPORT)
    wrong = []
    for line, name in imported(ast.parse(source), module, is_package):
        top = name.split(".")[0]
        if part == "data" and top == "torch":
            wrong.append(f"{module}, line {line}: data may not import torch")
        if top != "foretaste":
            continue
        other = part_of(name)
        known = other in parts  # else `from foretaste import __version__`: a thing of the package itself
        allowed = EVERYONE | {part} | MAY_IMPORT.get(part, parts)
        if known and other not in allowed:
            wrong.append(f"{module}, line {line}: {part} may not import {other}")
    return wrong


def test_imports_go_one_way() -> None:
    wrong = []
    for path in SOURCES:
        wrong += wrong_imports(path.read_text("utf-8"), dotted_name(path), path.name == "__init__.py")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("foretaste.data.events", "import torch", "data may not import torch"),
        ("foretaste.data.events", "from torch.nn import Module", "data may not import torch"),
        ("foretaste.data.events", "def late():\n    from foretaste.models import narm", "data may not import models"),
        ("foretaste.data.events", "from ..models.narm import NARM", "data may not import models"),
        ("foretaste.models.narm", "from foretaste import training", "models may not import training"),
        ("foretaste.evaluation.ranking", "import foretaste.training.loop", "evaluation may not import training"),
        ("foretaste.serving.engine", "from foretaste.recommender import load", "serving may not import recommender"),
        ("foretaste.recommender", "import foretaste.compare.report", "recommender may not import compare"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, found: str) -> None:
    (sentence,) = wrong_imports(source, module)
    assert sentence.endswith(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("foretaste.models.narm", "import torch\nfrom foretaste import __version__\nfrom .contract import Events"),
        ("foretaste.training.loop", "from foretaste.evaluation.ranking import ranks\nfrom ..errors import DataError"),
        ("foretaste.cli", "from foretaste.compare import report\nfrom foretaste.recommender import Recommender"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    assert wrong_imports(source, module) == []


def loaded_after(statement: str) -> tuple[float, set[str]]:
    """Seconds that a statement took in a fresh interpreter, and the top-level modules that it loaded."""
    code = f"""
import json, sys, time
before, start = set(sys.modules), time.perf_counter()
{statement}
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted({{name.split(".")[0] for name in set(sys.modules) - before}})]))
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    seconds, names = json.loads(out.splitlines()[-1])
    return seconds, set(names)


def test_import_foretaste_is_light() -> None:
    runs = [loaded_after("import foretaste") for _ in range(3)]
    assert not runs[0][1] & {"torch", "numpy", "duckdb", "pydantic", "pandas", "polars", "pyarrow"}
    assert min(seconds for seconds, _ in runs) < 0.3


def test_data_never_loads_torch() -> None:
    import foretaste.data

    names = [module.name for module in pkgutil.walk_packages(foretaste.data.__path__, "foretaste.data.")]
    _, modules = loaded_after("\n".join(f"import {name}" for name in names))
    assert "numpy" in modules  # the modules were really loaded
    assert "torch" not in modules


def test_loading_a_file_runs_no_code() -> None:
    wrong = []
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        for line, name in imported(tree, dotted_name(path), path.name == "__init__.py"):
            if name.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}:
                wrong.append(f"{path.name}, line {line}: {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"eval", "exec", "torch.load"}:
                wrong.append(f"{path.name}, line {node.lineno}: {ast.unparse(node.func)}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                wrong.append(f"{path.name}, line {node.value.lineno}: allow_pickle")
    assert not wrong, "\n".join(wrong)


def test_files_are_short_and_say_what_they_are() -> None:
    wrong = []
    for path in SOURCES:
        text = path.read_text("utf-8")
        if (lines := text.count("\n")) > LONGEST:
            wrong.append(f"{dotted_name(path)}: {lines} lines, at most {LONGEST}")
        if text.strip() and not ast.get_docstring(ast.parse(text)):
            wrong.append(f"{dotted_name(path)}: no docstring at its head")
    assert not wrong, "\n".join(wrong)


def test_the_tree_names_no_path_of_a_machine(root: Path) -> None:
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        pytest.skip("not a git checkout")
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    machine = re.compile(rb"(?<![\w.:-])/(?:work|root|farm|home|tmp|Users)/\w+")
    found = []
    for name in filter(None, names):
        if (path := root / name).is_file():
            for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
                if b"\0" not in line and (match := machine.search(line)):
                    found.append(f"{name}, line {number}: {match[0].decode()}")
    assert not found, "\n".join(found)


def pyproject(root: Path) -> dict[str, object]:
    """The `project` table."""
    table = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert isinstance(table, dict)
    return table


def test_one_version_everywhere(root: Path) -> None:
    version = pyproject(root)["version"]
    assert foretaste.__version__ == version
    assert metadata.version("foretaste") == version
    assert root / "src" == PACKAGE.parent, "the tests run against another copy of the package"
    headings = re.findall(r"^## \[(.+?)\]", (root / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(heading == version for heading in headings[1:2]), "the newest release in the changelog is this one"


def test_every_dependency_is_pinned_within_its_range(root: Path) -> None:
    lines = (root / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    asked = [Requirement(text) for text in metadata.requires("foretaste") or []]
    asked = [requirement for requirement in asked if requirement.name != "foretaste"]
    assert {"torch", "numpy", "duckdb", "pytest", "sphinx"} <= {requirement.name for requirement in asked}
    for requirement in asked:
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement.name}: {pin} is outside {requirement.specifier}"
