"""What a log is read from: CSV files, Parquet files, tables in memory. Each becomes SQL that DuckDB can read once.

CSV: a file or a pattern (csvfile.py). Parquet: a file, a folder or a pattern, in the order of the names. Tables in
memory: pandas, Polars, Arrow, or a dictionary of NumPy arrays (tables.py).
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from foretaste.data.cells import UNTYPED
from foretaste.data.csvfile import CsvFile, CsvOptions, open_csv
from foretaste.data.files import meant
from foretaste.data.tables import arrays_of, frame_of, is_table
from foretaste.data.workspace import Workspace, exactly, name, reason
from foretaste.errors import DataError, nearest

SMALL = 16 << 20
WHOLE = 64 << 20
"""Files up to this size are fingerprinted whole, larger ones by their first and last quarter of it."""


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
    release: Callable[[], object] = lambda: None
    """To call when it has been read: lets go of a table in memory."""

    def check(self, argument: str, column: str) -> None:
        """One clear error if the source has no such column."""
        if not isinstance(column, str):
            raise DataError(f"{argument}={column!r}: expected the name of a column of {self.label}")
        if column in self.types:
            for part in self.parts:
                if part.csv is not None and column not in part.csv.columns:
                    raise DataError(
                        f"{part.label} has no column '{column}' ({argument}=), which another file of {self.label} has; "
                        f"its columns: {', '.join(part.csv.columns)}"
                    )
            return
        same = [known for known in self.types if known.lower() == column.lower()]
        hint = f"did you mean '{same[0]}'? Known: {', '.join(self.types)}" if same else nearest(column, self.types)
        bare = not same and self.parts[0].csv is not None and self.parts[0].csv.header
        title = ", --title" if argument == "item_columns" else ""
        more = "; if its first line is a row already, name the columns by names=[...] (--names)" if bare else ""
        raise DataError(f"{self.label} has no column '{column}' ({argument}={title}): {hint}{more}")


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
    *,
    every: bool = False,
) -> Source:
    """Find out what `source` is and which columns it has; nothing but its first lines is read.

    Of a table in memory only the wanted columns are looked at, or `every` one.
    """
    if isinstance(source, str | Path):
        paths = _paths(str(source))
        heads = [_first_bytes(path) for path in paths]
        parquet = [head.startswith(b"PAR1") for head in heads]
        if any(parquet) != all(parquet):
            raise DataError(f"{source}: Parquet files and others are mixed; give a pattern that matches one kind")
        if all(parquet) and names is None and delimiter is None:
            return _parquet(workspace, str(source), paths)
        if not any(parquet):
            called = [path for path in paths if path.suffix.lower() == ".parquet"]
            for path, head in zip(paths, heads, strict=True):
                if names is None and head.lstrip(b"\xef\xbb\xbf \r\n").startswith((b'{"', b"[{", b"[[")):
                    raise DataError(f"{path}: looks like JSON, which is not read; save it as CSV or Parquet")
            if called and names is None:
                raise DataError(f"{called[0]}: is no Parquet file, which begins with PAR1; if it is a CSV, name it so")
            return _csv(workspace, str(source), paths, heads, CsvOptions(set(wanted), names, delimiter, encoding))
    if names is not None or delimiter is not None:
        raise DataError(
            "names= and delimiter= are for CSV files (--names, --delimiter); Parquet and tables name their own columns"
        )
    if isinstance(source, Mapping):
        return _in_place(workspace, arrays_of(source))
    if not is_table(source):
        raise DataError(
            f"cannot read a log from {type(source).__name__}: expected the path of a CSV or Parquet file, a pandas, "
            "Polars or Arrow table, or a dictionary of NumPy arrays"
        )
    frame, written = frame_of(source, None if every else set(wanted), workspace)
    if written is not None:
        whole = _parquet(workspace, "the table", [written])
        return replace(whole, fingerprint={"kind": "table"}, release=written.unlink)
    return _in_place(workspace, frame)


def _paths(source: str) -> list[Path]:
    """The files that a path, a folder or a pattern stands for, in the order of their names."""
    if not source.strip():
        raise DataError(
            "the path of the log is empty; give a CSV or Parquet file, a folder of Parquet files or a pattern"
        )
    path = Path(source)
    if path.is_dir():
        every = (p for p in path.rglob("*") if p.suffix.lower() == ".parquet" and p.is_file())
        found = sorted(p for p in every if not any(part[0] in "._" for part in p.relative_to(path).parts))
        if not found:
            raise DataError(f"{source}: no .parquet file in this folder; for CSV files give a pattern such as '*.csv'")
    elif path.exists():
        found = [path]
    else:
        found = sorted(Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file())  # noqa: PTH207
        if not found:
            raise DataError(f"{source}: no such file{meant(path)}")
    return found


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(6)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror or error}") from error
    if not head:
        raise DataError(f"{path}: the file is empty; expected a header and rows")
    return head


def _parquet(workspace: Workspace, label: str, paths: list[Path]) -> Source:
    files = ", ".join(map(exactly, paths))
    union = ", union_by_name=true" if len(paths) > 1 else ""
    plain = f"read_parquet([{files}]{union}, hive_partitioning=false)"
    own = _types(workspace, plain, label)
    keys = {part.partition("=")[0].lower() for path in paths for part in path.absolute().parts if "=" in part}
    if len(paths) > 1:
        _check_numbers(workspace, files, plain, own)
    relation, types = plain, own
    if keys and not keys & {column.lower() for column in own}:
        relation = f"read_parquet([{files}]{union})"
        types = _types(workspace, relation, label)
    return Source(_short(label), types, [Part(label, relation)], fingerprint(paths))


def _check_numbers(workspace: Workspace, files: str, relation: str, own: dict[str, str]) -> None:
    """Refuse whole numbers that would be rounded because another file has the column as floats."""
    mixed = workspace.rows(f"""SELECT name FROM parquet_schema([{files}]) WHERE type IS NOT NULL
        GROUP BY name HAVING bool_or(type = 'INT64') AND bool_or(type IN ('FLOAT', 'DOUBLE'))""")
    for (column,) in mixed:
        if own.get(column) not in ("FLOAT", "DOUBLE"):
            continue
        (most,) = workspace.row(f"SELECT max(abs({name(column)})) FROM {relation} WHERE isfinite({name(column)})")
        if most is not None and most >= 2**53:
            raise DataError(
                f"column '{column}' has whole numbers in one file and floats in another, which would round {most:.0f}; "
                "write it as whole numbers, or as text, in all of them"
            )


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
    return Source(
        label,
        _types(workspace, shown, label),
        [Part(label, shown)],
        {"kind": "table"},
        partial(workspace.db.unregister, relation),
    )


def _types(workspace: Workspace, relation: str, label: str) -> dict[str, str]:
    try:
        return {row[0]: row[1] for row in workspace.rows(f"DESCRIBE SELECT * FROM {relation}")}
    except duckdb.Error as error:
        raise DataError(f"{label} cannot be read: {reason(error)}") from error


def _csv(workspace: Workspace, label: str, paths: list[Path], heads: list[bytes], options: CsvOptions) -> Source:
    files = [open_csv(workspace, path, head, options) for path, head in zip(paths, heads, strict=True)]
    types = dict.fromkeys((column for file in files for column in file.columns), UNTYPED)
    return Source(_short(label), types, [Part(f.path.name, f.relation, f) for f in files], fingerprint(paths))


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


def _short(label: str) -> str:
    return Path(label).name if "*" not in label else label
