"""A CSV file: how it is packed, cut and named.

Plain, gzip or zstd, by its first bytes. The delimiter is given, or looked for: comma, semicolon, tab, bar, '::', blank.
Quotes are RFC 4180's. The first line names the columns, unless `names` does. Every column is read as text; what it is
is decided later from all of its rows (cells.py), never from a sample.
"""

from __future__ import annotations

import codecs
import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from foretaste.data.compressed import kind_of
from foretaste.data.workspace import Workspace, exactly, reason, text
from foretaste.errors import DataError

DELIMITERS = (",", ";", "\t", "|", "::", " ")
HEAD, HEAD_LINES = 1 << 20, 20
ENCODINGS = {"utf-8": "utf-8", "utf-8-sig": "utf-8", "utf-16": "utf-16", "iso8859-1": "latin-1"}
"""Those that DuckDB reads, in its words, by Python's name for them."""


@dataclass(frozen=True)
class CsvOptions:
    """What the caller said about a CSV, and the columns that are looked for."""

    wanted: set[str]
    names: Sequence[str] | None
    delimiter: str | None
    encoding: str


@dataclass(frozen=True)
class CsvFile:
    """One CSV file and how it is cut."""

    path: Path
    delimiter: str
    columns: tuple[str, ...]
    header: bool
    blank: int
    """Empty lines before the first."""
    encoding: str
    compression: str
    rejects: str
    """The table in which DuckDB notes the lines that it cannot cut."""

    @property
    def relation(self) -> str:
        """SQL that reads it, every column as text."""
        shape = ", ".join(f"{text(column)}: 'VARCHAR'" for column in self.columns)
        return (
            f"read_csv({exactly(self.path)}, auto_detect=false, encoding={text(self.encoding)}, "
            f"compression={text(self.compression)}, header={str(self.header).lower()}, delim={text(self.delimiter)}, "
            f"skip={self.blank}, quote='\"', escape='\"', columns={{{shape}}}, store_rejects=true, rejects_limit=0, "
            f"rejects_table={text(self.rejects)}, rejects_scan={text(self.rejects + '_scan')})"
        )


def open_csv(workspace: Workspace, path: Path, head: bytes, options: CsvOptions) -> CsvFile:
    """Find out how a file is cut, from its first bytes `head` and its first lines."""
    compression, encoding = kind_of(path, head), _encoding(path, options.encoding)
    lines, blank = _first_lines(workspace, path, encoding, compression)
    cut = options.delimiter or _delimiter(lines, options)
    columns, header = _columns(lines[0], cut, options, path)
    return CsvFile(path, cut, tuple(columns), header, blank, encoding, compression, workspace.new_name("lines"))


def _encoding(path: Path, asked: str) -> str:
    try:
        return ENCODINGS[codecs.lookup(asked).name]
    except LookupError:
        raise DataError(
            f"{path}: encoding={asked!r} (--encoding): expected utf-8, utf-16 or latin-1; save the file as UTF-8"
        ) from None


def _first_lines(workspace: Workspace, path: Path, encoding: str, compression: str) -> tuple[list[str], int]:
    """The first lines that are not empty, and how many empty ones come before, as far as they can be skipped: DuckDB
    counts them wrongly where lines end in several ways."""
    try:
        if compression == "zstd":
            rows = workspace.rows(
                f"SELECT line FROM read_csv({exactly(path)}, auto_detect=false, header=false, "
                f"encoding={text(encoding)}, compression='zstd', delim='\x01', quote='', escape='', "
                f"columns={{'line': 'VARCHAR'}}, ignore_errors=true, null_padding=true) LIMIT {HEAD_LINES}"
            )
            lines, even = [line or "" for (line,) in rows], False
        else:
            with (gzip.open if compression == "gzip" else open)(path, "rb") as file:
                head = file.read(HEAD)
            whole = head.decode(encoding, "replace")
            lines, even = whole.splitlines(), whole.count("\r\n") in (0, whole.count("\n"))
            lines = lines[:-1] if len(head) == HEAD and len(lines) > 1 else lines  # the last one may be cut
    except (duckdb.Error, OSError) as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error
    lines = [line.removeprefix("\ufeff") for line in lines]
    found = [line for line in lines if line][:HEAD_LINES]
    if not found:
        raise DataError(f"{path}: no line of text in it; expected a header and rows")
    if "\x00" in found[0]:
        more = "; text in UTF-16 is read with encoding='utf-16' (--encoding)" if encoding == "utf-8" else ""
        raise DataError(f"{path}: neither CSV nor Parquet (its first line holds zero bytes){more}")
    return found, next(place for place, line in enumerate(lines) if line) if even else 0


def _delimiter(lines: list[str], options: CsvOptions) -> str:
    """The delimiter that finds most of the wanted columns and cuts the first lines into equally many cells."""

    def fit(cut: str) -> tuple[int, bool, int]:
        first = _cells(lines[0], cut)
        found = len(options.wanted & set(first)) if options.names is None else int(len(first) == len(options.names))
        return found, len(first) > 1 and all(len(_cells(line, cut)) == len(first) for line in lines), len(first)

    return max(DELIMITERS, key=fit)


def _cells(line: str, cut: str) -> list[str]:
    cells = next(csv.reader([line], delimiter=cut), []) if len(cut) == 1 else line.split(cut)
    return [cell.strip() for cell in cells]


def _columns(line: str, cut: str, options: CsvOptions, path: Path) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first line is a header."""
    first = _cells(line, cut)
    named = first if options.names is None else list(options.names)
    for column in options.wanted.intersection(named):
        if named.count(column) > 1:
            raise DataError(f"{path}: the column '{column}' is there twice; rename one of them")
    if options.names is None:
        seen = {column.lower() for column in options.wanted.intersection(first)}  # these keep their names
        columns = []
        for place, column in enumerate(first):
            kept = column in options.wanted or (column and column.lower() not in seen)
            free = column if kept else f"{column or 'column'}_{place + 1}"
            seen.add(free.lower())
            columns.append(free)
        return columns, True
    if len(first) != len(options.names):
        raise DataError(
            f"{path}: names= (--names) has {len(options.names)} names, but the first line has {len(first)} cells "
            f"when cut at {cut!r}: {line[:80]!r}"
        )
    return list(options.names), first == list(options.names)
