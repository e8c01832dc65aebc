"""Sources that are no table of events yet: a log in several files, or one line a user with all of its items.

What is gathered is written once, to a temporary file of the same kind (CSV stays CSV, so that what an id is, is still
decided over the whole column), from which the log is then read like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from foretaste.config import Config, OneOrMore
from foretaste.data.files import meant
from foretaste.data.sources import Source, open_source
from foretaste.data.workspace import Workspace, name, text
from foretaste.errors import ConfigError, DataError

PART = "part"
"""The column that says from which of several files a row came."""


class File(Config):
    """One file of a source."""

    file: OneOrMore
    """Its usual name, or several of which the first that is there is taken."""
    part: str = ""
    """What `part`, a column that is added, says of its rows: train, test, ..."""


class Lines(Config):
    """Lines that hold a whole history: `7 <tab> 12,40,9 <tab> 31` is user 7, who had 12, 40, 9 and then 31."""

    keep: tuple[str, ...] = Field(min_length=1)
    """Columns that every event of the line gets, above all the user's; a line a user."""
    items: tuple[str, ...] = Field(min_length=1)
    """Columns of lists of items, in the order of time; together they become the columns `item` and `position`."""
    cut: Literal[",", ";", " ", "|"] = ","
    """What stands between the items of a list."""


class Layout(Config):
    """How the files of a source become one table."""

    files: tuple[File, ...] = Field(min_length=1)
    continued: tuple[str, ...] = ()
    """Columns of whole numbers that begin anew in each file: those of a later file go on where the earlier ones end."""
    lines: Lines | None = None
    names: tuple[str, ...] | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"

    @property
    def plain(self) -> bool:
        """Whether the one file is a table of events as it is."""
        return len(self.files) == 1 and not self.files[0].part and self.lines is None


def found(layout: Layout, sources: Sequence[str | Path]) -> list[Path]:
    """The files of a layout: in the one folder that is given, or the given ones in their order."""
    folder = Path(sources[0])
    if len(sources) == 1 and folder.is_dir():
        return [_in_folder(folder, file.file) for file in layout.files]
    if len(sources) == 1 and not folder.exists():
        raise DataError(f"{folder}: no such file or folder{meant(folder)}")
    if len(sources) != len(layout.files):
        wanted = ", ".join(file.file[0] for file in layout.files)
        raise DataError(
            f"{len(sources)} given, and the recipe needs {len(layout.files)}: {wanted}; "
            "name them in this order, or the folder that holds them under these names"
        )
    paths = [Path(path) for path in sources]
    for path in paths:
        if not (path.is_file() or layout.plain):
            raise DataError(f"{path}: no such file")
    return paths


def _in_folder(folder: Path, names: Sequence[str]) -> Path:
    for one in names:
        if (folder / one).is_file():
            return folder / one
    raise DataError(f"{folder}: holds no {' or '.join(names)}; give the path of the file itself if it has another name")


def gathered(layout: Layout, paths: Sequence[Path], into: Path, **room: Any) -> Path:
    """Write what the files hold as one table, into this folder; its path. `room` as for `Workspace`."""
    workspace = Workspace(**room)
    opened = [
        open_source(workspace, path, _columns(layout), layout.names, layout.delimiter, layout.encoding)
        for path in paths
    ]
    kinds = {source.parts[0].csv is None for source in opened}
    if len(kinds) > 1:
        raise DataError(f"{', '.join(path.name for path in paths)}: CSV and Parquet are mixed; save them as one kind")
    for source in opened:
        for column in _columns(layout):
            source.check("recipe", column)
        if source.types.keys() != opened[0].types.keys():
            mine, first = ", ".join(source.types), ", ".join(opened[0].types)
            raise DataError(f"{source.label} has the columns {mine}; {opened[0].label} has {first}: make them the same")
    tables: list[str] = []
    for source, file in zip(opened, layout.files, strict=True):
        tables.append(_stored(workspace, source, layout, file, tables))
    path = into / (paths[0].stem.split(".")[0] + (".parquet" if kinds.pop() else ".csv"))
    kind = "parquet" if path.suffix == ".parquet" else "csv, HEADER"
    whole = " UNION ALL BY NAME ".join(f"SELECT * FROM {table}" for table in tables)
    workspace.run(
        f"COPY ({whole}) TO {text(path)} (FORMAT {kind})", f"{path.stem}: the files could not be put together"
    )
    return path


def _columns(layout: Layout) -> list[str]:
    lists = [*layout.lines.keep, *layout.lines.items] if layout.lines else []
    return [*layout.continued, *lists]


def _stored(workspace: Workspace, source: Source, layout: Layout, file: File, before: Sequence[str]) -> str:
    """A table of the rows of one file, as they are to be."""
    if file.part and PART in source.types:
        raise ConfigError(f"{source.label} has a column '{PART}' already, and the recipe names parts of its own")
    table: str = workspace.new_table("file")
    workspace.run(f"CREATE TABLE {table} AS FROM {source.parts[0].relation}", f"{source.label}: cannot be read")
    _refuse_bad_lines(workspace, source)
    if layout.lines:
        table = _unrolled(workspace, source, table, layout.lines)
    numbers = ", ".join(_continued(workspace, source, table, column, before) for column in layout.continued)
    replaced = f" REPLACE ({numbers})" if numbers else ""
    part = f", {text(file.part)} AS {PART}" if file.part else ""
    made = workspace.new_table("file")
    workspace.run(f"CREATE TABLE {made} AS SELECT *{replaced}{part} FROM {table}", source.label)
    return made


def _continued(workspace: Workspace, source: Source, table: str, column: str, before: Sequence[str]) -> str:
    """SQL: the numbers of a column, begun after the last of the files before."""
    number = f"TRY_CAST({name(column)} AS BIGINT)"
    odd, first = workspace.row(
        f"SELECT any_value({name(column)}) FILTER ({number} IS NULL), min({number}) FROM {table}"
    )
    if odd is not None:
        raise DataError(f"{source.label}: '{column}' holds {odd!r}; a continued column needs whole numbers")
    last = workspace.row(f"SELECT max({name(column)}) FROM {before[-1]}")[0] if before else None
    moved = 0 if last is None or first is None else last + 1 - first
    return f"{number} + {moved} AS {name(column)}"


def _refuse_bad_lines(workspace: Workspace, source: Source) -> None:
    csv = source.parts[0].csv
    if csv is None:
        return
    bad, first = workspace.row(f"SELECT count(*), min(line) FROM {csv.rejects}")
    if bad:
        raise DataError(
            f"{csv.path}, line {first}: cannot be cut into {len(csv.columns)} cells at {csv.delimiter!r} "
            f"({bad:,} such lines); correct or remove them"
        )


def _unrolled(workspace: Workspace, source: Source, table: str, lines: Lines) -> str:
    """A table with a row an event, of one with a line a history."""
    keys = ", ".join(map(name, lines.keep))
    twice = workspace.rows(f"SELECT {keys} FROM {table} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1")
    if twice:
        raise DataError(
            f"{source.label}: {lines.keep[0]} {twice[0][0]} has several lines, and one line a history is expected; "
            "keep the longest"
        )
    joined = f"concat_ws({text(lines.cut)}, {', '.join(map(name, lines.items))})"
    events = workspace.new_table("events")
    workspace.run(
        f"CREATE TABLE {events} AS SELECT {keys}, unnest(items) AS item, generate_subscripts(items, 1) AS position "
        f"FROM (SELECT {keys}, string_split({joined}, {text(lines.cut)}) AS items FROM {table})",
        f"{source.label}: its lists cannot be read",
    )
    return events
