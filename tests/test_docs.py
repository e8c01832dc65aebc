"""The code in README.md and docs/*.md runs.

A page is one story: its blocks run in order, in one namespace and one empty folder. ```python blocks are executed;
in ```console blocks, the lines that begin with `$ foretaste` are. A block that cannot run here says why, above it:

    <!-- not run: needs the full YOOCHOOSE log -->

Python in such a block must still be correct Python.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]*\S) -->\n\s*)?"
    r"^(?P<indent> *)```(?P<language>python|console)\n(?P<code>.*?)^(?P=indent)```$",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    code: str
    line: int
    """The line of the page on which the code begins."""
    reason: str | None
    """Why it is not run, or None."""


def blocks(page: str) -> list[Block]:
    """The Python and console blocks of a page, in order."""
    return [
        Block(found["language"], textwrap.dedent(found["code"]), page.count("\n", 0, found.start("code")) + 1, reason)
        for found in FENCE.finditer(page)
        for reason in [found["reason"]]
    ]


def compiled(block: Block, path: Path) -> object:
    """The block as code whose line numbers are those of the page."""
    return compile("\n" * (block.line - 1) + block.code, path, "exec")


def commands(block: Block) -> list[list[str]]:
    """The `foretaste` commands of a console block, without the word `foretaste`; a backslash continues a line."""
    lines = block.code.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[2:] for line in lines if line.startswith("$ foretaste ")]


def run(block: Block, path: Path, names: dict[str, object]) -> None:
    """Run one block in the present folder."""
    if block.language == "python":
        code = compiled(block, path)
        if block.reason is None:
            exec(code, names)
    elif block.reason is None:
        for command in commands(block):
            done = subprocess.run(
                [Path(sys.executable).with_name("foretaste"), *command], capture_output=True, text=True
            )
            where = f"{path.name}, block at line {block.line}: foretaste {shlex.join(command)}"
            assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"


def pages_with_code() -> list[Path]:
    return [path for path in PAGES if blocks(path.read_text("utf-8"))]


@pytest.mark.parametrize("path", pages_with_code(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(path.read_text("utf-8")):
        run(block, path, names)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_python_hides_from_these_tests(path: Path) -> None:
    page = path.read_text("utf-8")
    fences = re.findall(r"^ *(?:`{3,}|~{3,}|:{3,}).*\bpy(?:thon3?|con)?\b.*$", page, flags=re.MULTILINE)
    found = [block for block in blocks(page) if block.language == "python"]
    assert len(fences) == len(found), f"write each of them as ```python: {fences}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", path.read_text("utf-8"))
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing


def test_readme_goes_from_a_file_to_recommendations_in_under_12_lines() -> None:
    python = [block.code for block in blocks((ROOT / "README.md").read_text("utf-8")) if block.language == "python"]
    (code,) = (code for code in python if 'EventLog.read("' in code)
    lines = [line for line in code.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) < 12
    for step in ("import", ".prepare(", ".fit(", ".evaluate(", ".recommend(", ".explain(", ".save("):
        assert step in code


def test_every_benchmark_is_listed_and_its_result_is_there_or_said_to_be_missing() -> None:
    folder = ROOT / "benchmarks"
    page = (folder / "README.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    missing = [script.name for script in folder.glob("*.py") if f"`python benchmarks/{script.name}" not in page]
    assert not missing
    named = [(result, row[-1]) for row in rows for result in re.findall(r"`(results/[^`]+)`", row[-1])]
    assert len(named) > 20
    for result, cell in named:
        place = folder / result
        made = place.is_file() or any(place.rglob("*.md"))
        assert made != ("not made yet" in cell), f"{result}: {cell}"


def test_blocks_are_found_in_order_with_their_lines_and_reasons() -> None:
    page = textwrap.dedent("""\
        # Title

        ```python
        x = 1
        ```
        <!-- not run: takes an hour -->
        ```python
        wait()
        ```
        1. In a list:

           ```console
           $ foretaste train \\
               log.csv   # a remark
           $ ls
           ```
        ```text
        no code
        ```
        """)
    first, second, third = blocks(page)
    assert first == Block("python", "x = 1\n", 4, None)
    assert second == Block("python", "wait()\n", 8, "takes an hour")
    assert (third.language, third.line, third.reason) == ("console", 13, None)
    assert commands(third) == [["train", "log.csv"]]


def test_blocks_share_names_and_a_failure_shows_the_line_of_the_page(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    names: dict[str, object] = {}
    first, second = blocks("```python\nx = 1\n```\n\n```python\nx += 1\nassert x == 3\n```\n")
    run(first, path, names)
    with pytest.raises(AssertionError) as failure:
        run(second, path, names)
    assert names["x"] == 2
    assert (str(failure.traceback[-1].path), failure.traceback[-1].lineno + 1) == (str(path), 7)


def test_a_block_that_is_not_run_must_still_be_python(tmp_path: Path) -> None:
    (good,) = blocks("<!-- not run: no log here -->\n```python\nmissing()\n```\n")
    (bad,) = blocks("<!-- not run: no log here -->\n```python\nx = = 1\n```\n")
    run(good, tmp_path / "page.md", {})
    with pytest.raises(SyntaxError):
        run(bad, tmp_path / "page.md", {})
