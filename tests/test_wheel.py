"""What a user installs: the wheel, in an empty environment, without the source tree anywhere near."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import foretaste

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, without the variables that could lead it to the source tree."""
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    said = f"$ {' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said
    assert "Traceback" not in said, said
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made by way of the source distribution, so that one is known to be complete too."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, root, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel and what it depends on, nothing else."""

    bin: Path
    home: Path


@pytest.fixture(scope="module")
def installed(wheel: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The wheel in an environment of its own."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", home, cwd=home)
    bin = home / ("Scripts" if os.name == "nt" else "bin")
    # torch by its pinned name first: by its range alone, an index may answer with a newer and much larger build
    pins = root / "constraints.txt"
    for what in ("torch", wheel):
        run(bin / "python", "-m", "pip", "install", "-q", "--no-cache-dir", "-c", pins, what, cwd=home)
    yield Installed(bin, home)
    shutil.rmtree(home)  # a gigabyte


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if name.startswith("foretaste/")}
    info = f"foretaste-{foretaste.__version__}.dist-info/"
    source = {path.relative_to(root / "src").as_posix() for path in (root / "src").rglob("*.py")}
    recipes = {f"foretaste/{path.relative_to(root).as_posix()}" for path in (root / "recipes").rglob("*.toml")}
    assert source | recipes | {"foretaste/py.typed"} <= inside
    assert all(name.startswith(info) for name in names - inside)
    assert {f"{info}licenses/LICENSE", f"{info}entry_points.txt"} <= names


def test_the_environment_is_whole_and_is_not_the_source_tree(installed: Installed, tmp_path: Path) -> None:
    run(installed.bin / "python", "-m", "pip", "check", cwd=tmp_path)
    where = run(installed.bin / "python", "-c", "import foretaste; print(foretaste.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.home)


def test_the_demo_runs_from_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    said = run(installed.bin / "foretaste", "demo", "--simulated", cwd=tmp_path)
    assert "recall@20" in said
