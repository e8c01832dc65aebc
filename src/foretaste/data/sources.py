"""What a log is read from: CSV files, Parquet files, tables in memory. Each becomes SQL that DuckDB can read once.

CSV: plain, gzip or zstd, by their first bytes; the delimiter is looked for (comma, semicolon, tab, bar, '::', blank) or
given; quotes are RFC 4180's; the first line names the columns unless `names` does. Every column is read as text, and
what it is is decided later from all of its rows (cells.py), never from a sample. Parquet: a file, a folder or a
pattern, in the order of the names. Tables: pandas, Polars, Arrow, or a dictionary of NumPy arrays.
"""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from foretaste.data.cells import UNTYPED
from foretaste.data.compressed import kind_of
from foretaste.data.tables import arrays_of, frame_of, is_table
from foretaste.data.workspace import Workspace, name, reason, text
from foretaste.errors import DataError, nearest

DELIMITERS = (",", ";", "\t", "|", "::", " ")
HEAD, HEAD_LINES = 1 << 20, 20
SMALL = 16 << 20
WHOLE = 64 << 20
"""Files up to this size are fingerprinted whole, larger ones by their first and last quarter of it."""


@dataclass(frozen=True)
class CsvFile:
    """One CSV file and how it is cut."""

    path: Path
    delimiter: str
    columns: tuple[str, ...]
    header: bool
    encoding: str
    compression: str
    rejects: str
    """The table in which DuckDB notes the lines that it cannot cut."""

    @property
    def relation(self) -> str:
        """SQL that reads it, every column as text."""
        shape = ", ".join(f"{text(column)}: 'VARCHAR'" for column in self.columns)
        return (
            f"read_csv({_exactly(self.path)}, auto_detect=false, encoding={text(self.encoding)}, "
            f"compression={text(self.compression)}, header={str(self.header).lower()}, delim={text(self.delimiter)}, "
            f"quote='\"', escape='\"', columns={{{shape}}}, store_rejects=true, rejects_limit=0, "
            f"rejects_table={text(self.rejects)}, rejects_scan={text(self.rejects + '_scan')})"
        )


@dataclass(frozen=True)
class Part:
    """One file of a CSV source, or the whole of any other."""

    label: str
    relation: str
    csv: CsvFile | None = None


@dataclass
class Source:
    """A source that is open: its columns and the SQL that reads it."""

    label: str
    types: dict[str, str]
    parts: list[Part]
    fingerprint: dict[str, Any]
    keep: list[Any] = field(default_factory=list)
    """Tables that DuckDB reads in place, which must live until they are read."""

    def check(self, argument: str, column: str) -> None:
        """One clear error if the source has no such column."""
        if not isinstance(column, str):
            raise DataError(f"{argument}={column!r}: expected the name of a column of {self.label}")
        if column in self.types:
            return
        same = [known for known in self.types if known.lower() == column.lower()]
        hint = f"did you mean '{same[0]}'? Known: {', '.join(self.types)}" if same else nearest(column, self.types)
        bare = not same and self.parts[0].csv is not None and self.parts[0].csv.header
        more = "; if its first line is a row already, name the columns by names=[...]" if bare else ""
        raise DataError(f"{self.label} has no column '{column}' ({argument}=): {hint}{more}")


def is_small(source: Any) -> bool:
    """Whether a log of it need not leave memory: a file of up to 16 MiB, a table of up to 100,000 rows."""
    if isinstance(source, str | Path):
        path = Path(source)
        return path.is_file() and path.stat().st_size <= SMALL
    columns = list(source.values()) if isinstance(source, Mapping) else [source]
    return all(hasattr(column, "__len__") and len(column) <= 100_000 for column in columns)


def open_source(
    workspace: Workspace,
    source: Any,
    wanted: Iterable[str],
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> Source:
    """Find out what `source` is and which columns it has; nothing but its first lines is read."""
    if isinstance(source, str | Path):
        paths = _paths(str(source))
        heads = [path.open("rb").read(6) for path in paths]
        parquet = [head.startswith(b"PAR1") for head in heads]
        if any(parquet) != all(parquet):
            raise DataError(f"{source}: Parquet files and others are mixed; give a pattern that matches one kind")
        if all(parquet) and names is None and delimiter is None:
            return _parquet(workspace, str(source), paths)
        if not any(parquet):
            return _csv(workspace, str(source), paths, heads, CsvOptions(set(wanted), names, delimiter, encoding))
    if names is not None or delimiter is not None:
        raise DataError("names= and delimiter= are for CSV files; Parquet and tables have their own column names")
    if isinstance(source, Mapping):
        return _in_place(workspace, arrays_of(source))
    if not is_table(source):
        raise DataError(
            f"cannot read a log from {type(source).__name__}: expected the path of a CSV or Parquet file, a pandas, "
            "Polars or Arrow table, or a dictionary of NumPy arrays"
        )
    frame, written = frame_of(source, set(wanted), workspace)
    if written is not None:
        return replace(_parquet(workspace, "the table", [written]), fingerprint={"kind": "table"})
    return _in_place(workspace, frame)


def _paths(source: str) -> list[Path]:
    """The files that a path, a folder or a pattern stands for, in the order of their names."""
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*.parquet") if not p.name.startswith((".", "_")))
        if not found:
            raise DataError(f"{source}: no .parquet file in this folder; for CSV files give a pattern such as '*.csv'")
    elif path.exists():
        found = [path]
    else:
        found = sorted(Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file())  # noqa: PTH207
        if not found:
            near = path.parent.iterdir() if path.parent.is_dir() else []
            close = difflib.get_close_matches(path.name, [p.name for p in near], n=1)
            raise DataError(f"{source}: no such file" + (f"; did you mean '{close[0]}'?" if close else ""))
    for file in found:
        if file.stat().st_size == 0:
            raise DataError(f"{file}: the file is empty; expected a header and rows")
    return found


def _parquet(workspace: Workspace, label: str, paths: list[Path]) -> Source:
    files = ", ".join(map(_exactly, paths))
    union = ", union_by_name=true" if len(paths) > 1 else ""
    relation = f"read_parquet([{files}]{union})"
    return Source(_short(label), _types(workspace, relation, label), [Part(label, relation)], fingerprint(paths))


def _in_place(workspace: Workspace, table: Any) -> Source:
    label, relation = "the table", workspace.new_name("source")
    shown = relation
    if isinstance(table, dict):
        masks = {f"{column} is missing": v.mask for column, v in table.items() if isinstance(v, np.ma.MaskedArray)}
        table = {column: np.ma.getdata(values) for column, values in table.items()} | masks
        masked = [mask.removesuffix(" is missing") for mask in masks]
        gaps = [
            f"CASE WHEN NOT {name(f'{column} is missing')} THEN {name(column)} END AS {name(column)}"
            for column in masked
        ]
        if gaps:
            shown = f"(SELECT * EXCLUDE ({', '.join(map(name, masks))}) REPLACE ({', '.join(gaps)}) FROM {relation})"
    try:
        workspace.db.register(relation, table)
    except duckdb.Error as error:
        raise DataError(f"{label} cannot be read: {reason(error)}") from error
    return Source(label, _types(workspace, shown, label), [Part(label, shown)], {"kind": "table"}, [table])


def _types(workspace: Workspace, relation: str, label: str) -> dict[str, str]:
    try:
        return {row[0]: row[1] for row in workspace.rows(f"DESCRIBE SELECT * FROM {relation}")}
    except duckdb.Error as error:
        raise DataError(f"{label} cannot be read: {reason(error)}") from error


@dataclass(frozen=True)
class CsvOptions:
    """What the caller said about a CSV, and the columns that are looked for."""

    wanted: set[str]
    names: Sequence[str] | None
    delimiter: str | None
    encoding: str


def _csv(workspace: Workspace, label: str, paths: list[Path], heads: list[bytes], options: CsvOptions) -> Source:
    types: dict[str, str] = {}
    parts = []
    for path, head in zip(paths, heads, strict=True):
        compression = kind_of(path, head)
        lines = _first_lines(workspace, path, options.encoding, compression)
        cut = options.delimiter or _delimiter(lines, options)
        columns, header = _columns(lines[0], cut, options, path)
        types.update(dict.fromkeys(columns, UNTYPED))
        rejects = workspace.new_name("lines")
        file = CsvFile(path, cut, tuple(columns), header, options.encoding, compression, rejects)
        parts.append(Part(path.name, file.relation, file))
    return Source(_short(label), types, parts, fingerprint(paths))


def _first_lines(workspace: Workspace, path: Path, encoding: str, compression: str) -> list[str]:
    try:
        if compression == "zstd":
            rows = workspace.rows(
                f"SELECT line FROM read_csv({_exactly(path)}, auto_detect=false, header=false, encoding={text(encoding)}, "
                "compression='zstd', delim='\x01', quote='', escape='', columns={'line': 'VARCHAR'}, "
                f"ignore_errors=true, null_padding=true) LIMIT {HEAD_LINES}"
            )
            lines = [line or "" for (line,) in rows]
        else:
            with (gzip.open if compression == "gzip" else open)(path, "rb") as file:
                head = file.read(HEAD)
            lines = head.decode(encoding, "replace").splitlines()
            lines = lines[:-1] if len(head) == HEAD and len(lines) > 1 else lines  # the last one may be cut
    except (duckdb.Error, OSError, LookupError) as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error
    found = [line.removeprefix("\ufeff") for line in lines if line][:HEAD_LINES]
    if not found:
        raise DataError(f"{path}: no line of text in it; expected a header and rows")
    if "\x00" in found[0]:
        raise DataError(f"{path}: neither CSV nor Parquet (its first line holds zero bytes)")
    return found


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
    if options.names is None:
        seen: set[str] = set()
        columns = []
        for place, column in enumerate(first):
            free = column if column and column.lower() not in seen else f"{column or 'column'}_{place + 1}"
            seen.add(free.lower())
            columns.append(free)
        return columns, True
    if len(first) != len(options.names):
        raise DataError(
            f"{path}: names= has {len(options.names)} names, but the first line has {len(first)} cells "
            f"when cut at {cut!r}: {line[:80]!r}"
        )
    return list(options.names), first == list(options.names)


def fingerprint(paths: list[Path]) -> dict[str, Any]:
    """Names, sizes and SHA-256 of files, so that a prepared folder can say what it was made from."""
    files = []
    for path in paths:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode() if size > WHOLE else b"")
        with path.open("rb") as file:
            digest.update(file.read(WHOLE if size <= WHOLE else WHOLE // 4))
            if size > WHOLE:
                file.seek(-(WHOLE // 4), 2)
                digest.update(file.read())
        of = "the file" if size <= WHOLE else "its size, first 16 MiB and last 16 MiB"
        files.append({"name": path.name, "bytes": size, "sha256": digest.hexdigest(), "of": of})
    if len(files) <= 16:
        return {"kind": "files", "files": files}
    every = hashlib.sha256("".join(f"{f['name']} {f['sha256']}\n" for f in files).encode())
    return {
        "kind": "files",
        "number": len(files),
        "bytes": sum(path.stat().st_size for path in paths),
        "sha256": every.hexdigest(),
        "of": "names and SHA-256 of all files",
    }


def _exactly(path: Path) -> str:
    """SQL: this file, also if its name has signs that stand for a pattern."""
    return text(re.sub(r"([\[*?])", r"[\1]", str(path)))


def _short(label: str) -> str:
    return Path(label).name if "*" not in label else label
