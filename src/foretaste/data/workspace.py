"""The DuckDB database behind a log: a file in a temporary folder, under a memory limit, spilling to disk.

The database of a log of any size lies in a file, so that its tables are compressed and may leave memory: 33 million
events then cost some hundred megabytes of disk and whatever the limit allows. That of a small log lies in memory, which
opens faster. Insertion order is kept, because the log's own order is what breaks a tie. The folder goes when the last
log on it goes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import duckdb

from foretaste.errors import ConfigError, DataError


class Workspace:
    """One DuckDB connection and the folder that belongs to it."""

    def __init__(self, memory_limit: str = "4GB", threads: int | None = None, small: bool = False) -> None:
        folder = tempfile.mkdtemp(prefix="foretaste-")
        self.folder = Path(folder)
        self.temporary = f"temporary files in {folder} (free some space there, or set TMPDIR to another folder)"
        """What a statement that writes there is called in an error."""
        try:
            self.db = duckdb.connect(":memory:" if small else str(self.folder / "log.duckdb"))
        except duckdb.Error as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise DataError(f"{self.temporary}: {reason(error)}") from error
        weakref.finalize(self, _close, self.db, folder)
        try:
            self.db.execute(f"SET memory_limit = {text(memory_limit)}")
            if threads is not None:
                self.db.execute(f"SET threads = {int(threads)}")
        except (duckdb.Error, ValueError) as error:
            raise ConfigError(
                f"memory_limit={memory_limit!r}, threads={threads!r}: {reason(error)}; "
                "expected a size such as '4GB' and a number of at least 1"
            ) from None
        self.db.execute(f"SET temp_directory = {text(folder)}")
        self.db.execute("SET preserve_insertion_order = true")
        self.db.execute("SET TimeZone = 'UTC'")
        self.db.execute("SET enable_progress_bar = false")
        self.db.execute("SET pandas_analyze_sample = 0")  # object columns are text: tables.py has seen to it
        self.db.execute("SET autoinstall_known_extensions = false")
        self._numbers = itertools.count()

    def new_name(self, kind: str) -> str:
        """A name that no table of this database has."""
        return f"{kind}_{next(self._numbers)}"

    def run(self, sql: str, what: str) -> None:
        """Run a statement; where DuckDB cannot, the error begins with `what` and has one line."""
        try:
            self.db.execute(sql)
        except duckdb.OutOfMemoryException as error:
            raise DataError(f"{what}: {reason(error)}; allow more by memory_limit= (--memory-limit)") from error
        except duckdb.Error as error:
            raise DataError(f"{what}: {reason(error)}") from error

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to a small question."""
        return self.db.execute(sql).fetchall()

    def row(self, sql: str) -> tuple[Any, ...]:
        """The only row of an answer."""
        return self.rows(sql)[0]

    def new_table(self, kind: str) -> Table:
        """A name for a table that is dropped when nobody holds its name any more: steps do not fill the disk."""
        table = Table(self.new_name(kind))
        weakref.finalize(table, _drop, self.db, str(table)).atexit = False
        return table


class Table(str):
    """A table's name. Whoever needs the table holds the name."""


def name(column: str) -> str:
    """A column's name, quoted for SQL."""
    return '"' + column.replace('"', '""') + '"'


def text(value: object) -> str:
    """A text, quoted for SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def exactly(path: Path) -> str:
    """SQL: this file to read, also if its name has signs that stand for a pattern."""
    return text(re.sub(r"([\[*?])", r"[\1]", str(path)))


def reason(error: BaseException) -> str:
    """The first line of an error, without DuckDB's name for its kind and without JSON around it."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    inner = re.search(r'"exception_message":("(?:[^"\\]|\\.)*")', first)
    return str(json.loads(inner[1])) if inner else first.split("Error: ", 1)[-1]


def _drop(db: duckdb.DuckDBPyConnection, table: str) -> None:
    with contextlib.suppress(duckdb.Error):  # it may be closed, and its folder goes with everything in it
        db.cursor().execute(f"DROP TABLE IF EXISTS {table}")


def _close(db: duckdb.DuckDBPyConnection, folder: str) -> None:
    db.close()
    shutil.rmtree(folder, ignore_errors=True)
