"""Rows that cannot be used: lines that are no rows, and rows that lack something. Counted, kept, written aside.

DuckDB notes the lines of a CSV that it cannot cut into cells, and goes on. They leave holes in its numbering of the
other rows; here the holes are put back, so that `row` is the place in the file and `line` can be found with an editor
(which counts one thing otherwise: a quoted cell with line breaks is one line here). DuckDB counts blank lines where it
notes a line, and not where it numbers a row; they are looked for where something is rejected at all.

Two faults are worse. A quote that is opened and never closed swallows what follows, up to megabytes, as one cell; and
lines that end in different ways stop DuckDB altogether. Then `mend` copies the file, all lines ending alike and the
guilty ones made harmless, and the copy is read instead.
"""

from __future__ import annotations

import gzip
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np

from foretaste.data.cells import Cell
from foretaste.data.csvfile import CsvFile
from foretaste.data.sources import Part
from foretaste.data.workspace import Table, Workspace, reason, text
from foretaste.errors import DataError

COLUMNS = ("line, reason, row", "file, line, reason, row")
"""Of the rejected rows of one file, and of several."""
OPEN_QUOTE = "a quote that is not closed"
UNREADABLE = {
    "MISSING COLUMNS": "too few cells",
    "TOO MANY COLUMNS": "too many cells",
    "INVALID ENCODING": "not in the encoding of the file",
    "LINE SIZE OVER MAXIMUM": "a line of over two million bytes",
}
"""DuckDB's kinds of lines that are no rows, in our words. Any other kind means that the file must be mended first."""
LONGEST = 1 << 20
"""Bytes of one row, over all its lines; what is longer is no row."""
FEW_HOLES = 500
"""Up to so many places where lines are missing, rows are numbered without a join."""
MARK = "\x02"
"""Stands for a quote in a line that was made harmless."""


class Lines:
    """The lines of a source: where each of its files begins, and which lines are no rows."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.files, self.bad, self.blank = (workspace.new_name(name) for name in ("files", "bad", "blank"))
        self.good, self.unread = 0, 0
        self._unseen: list[tuple[int, CsvFile]] = []
        workspace.db.execute(f"CREATE TABLE {self.files} (before BIGINT, file VARCHAR, header BIGINT)")
        workspace.db.execute(
            f"CREATE TABLE {self.bad} (row BIGINT, good BIGINT, reason VARCHAR, raw VARCHAR)"
        )  # good: how many good rows stand before it
        workspace.db.execute(f"CREATE TABLE {self.blank} (before BIGINT, line BIGINT, above BIGINT, n BIGINT)")

    @property
    def rows(self) -> int:
        """All rows so far, those included that are no rows."""
        return self.good + self.unread

    def add(self, part: Part, good: int) -> None:
        """Take in a file of which `good` rows have been read."""
        db = self.workspace.db
        header = int(part.csv is not None and part.csv.header)
        db.execute(f"INSERT INTO {self.files} VALUES (?, ?, ?)", [self.rows, part.label, header])
        unread = 0
        if part.csv is not None:
            self._unseen.append((self.rows, part.csv))
            if self.workspace.row(f"SELECT count(*) FROM {part.csv.rejects}")[0]:
                self.see_blanks()
            tail = text(_tail(part.csv))
            kinds = " ".join(f"WHEN {text(kind)} THEN {text(ours)}" for kind, ours in UNREADABLE.items())
            answer = db.execute(f"""
                INSERT INTO {self.bad}
                SELECT {self.rows - header} + line, {self.good - header} + line - row_number() OVER (ORDER BY line),
                       CASE WHEN harmless THEN {text(OPEN_QUOTE)} ELSE CASE kind {kinds} ELSE lower(kind) END END,
                       CASE WHEN harmless THEN replace(left(raw, -length({tail})), {text(MARK)}, '"') ELSE raw END
                FROM (SELECT l.line - coalesce(b.n, 0) AS line, kind, raw, ends_with(raw, {tail}) AS harmless FROM (
                    SELECT line, arg_min(error_type, coalesce(column_idx, 0)) AS kind,
                           trim(coalesce(any_value(csv_line), ''), chr(10) || chr(13)) AS raw
                    FROM {part.csv.rejects} GROUP BY line) AS l
                    ASOF LEFT JOIN (FROM {self.blank} WHERE before = {self.rows}) AS b ON l.line > b.line)
                """).fetchone()
            unread = int(answer[0]) if answer else 0
        self.good += good
        self.unread += unread

    def see_blanks(self) -> None:
        """Note the blank lines of the files that came in since: which they are, and how many others come before."""
        for before, file in self._unseen:
            opened = gzip.open if file.compression == "gzip" else open
            if file.compression == "zstd" or file.encoding not in ("utf-8", "latin-1"):
                continue
            with opened(file.path, "rb") as lines:
                blank = np.array([place for place, line in enumerate(lines, 1) if line in (b"\n", b"\r\n")], np.int64)
            if len(blank):
                n = np.arange(1, len(blank) + 1)
                found = {"before": np.full(len(blank), before), "line": blank, "above": blank - n + 1, "n": n}
                self.workspace.db.register("blank_lines", found)
                self.workspace.db.execute(f"INSERT INTO {self.blank} FROM blank_lines")
                self.workspace.db.unregister("blank_lines")
        self._unseen.clear()

    def drop(self) -> None:
        """Free the space."""
        for table in (self.files, self.bad, self.blank):
            self.workspace.db.execute(f"DROP TABLE {table}")

    def numbered(self, raw: str) -> str:
        """SQL: the rows that were read, with their place `row` among all rows."""
        if not self.unread:
            return f"(SELECT *, rowid + 1 AS row FROM {raw})"
        nth = f"SELECT good, row_number() OVER (ORDER BY row) AS n FROM {self.bad}"
        before = f"SELECT good, max(n) AS before FROM ({nth}) GROUP BY good"
        holes = self.workspace.rows(f"{before} ORDER BY good LIMIT {FEW_HOLES + 1}")
        if len(holes) <= FEW_HOLES:
            return f"(SELECT *, rowid + 1 + {_shift(holes)} AS row FROM {raw})"
        return f"""(SELECT r.*, r.place + coalesce(b.before, 0) AS row
            FROM (SELECT *, rowid + 1 AS place FROM {raw}) AS r ASOF LEFT JOIN ({before}) AS b ON r.place > b.good)"""


def _shift(holes: list[tuple[int, int]], before: int = 0) -> str:
    """SQL: how many lines that are no rows stand before a row; a tree of comparisons, faster than any join."""
    if not holes:
        return str(before)
    good, upto = holes[len(holes) // 2]
    left, right = _shift(holes[: len(holes) // 2], before), _shift(holes[len(holes) // 2 + 1 :], upto)
    return f"CASE WHEN rowid + 1 > {good} THEN {right} ELSE {left} END"


def collect(workspace: Workspace, lines: Lines, view: str, cells: Iterable[Cell]) -> Table:
    """A table of all rejected rows (file, line, reason, row), in the order of the source.

    `view` gives row, fault and what was read. `row` is a line as it stands where it could not be cut, otherwise the
    cells that were read, by column, as JSON.
    """
    lines.see_blanks()
    table = workspace.new_table("rejected")
    seen: dict[str, str] = {}
    for cell in cells:
        seen.setdefault(cell.column.lower(), f"{text(cell.column)}: {cell.original}")
    workspace.run(
        f"""
        CREATE TABLE {table} AS
        SELECT file, compact + coalesce(n, 0) AS line, reason, raw AS row
        FROM (SELECT file, before, r.row - before + header AS compact, r.row, reason, raw
        FROM (SELECT row, fault AS reason, to_json({{{", ".join(seen.values())}}})::VARCHAR AS raw
              FROM {view} WHERE fault IS NOT NULL
              UNION ALL SELECT row, reason, raw FROM {lines.bad}) AS r
        ASOF JOIN {lines.files} AS f ON r.row > f.before) AS c
        ASOF LEFT JOIN (SELECT before, above, max(n) AS n FROM {lines.blank} GROUP BY ALL) AS b
            ON c.before = b.before AND c.compact >= b.above
        ORDER BY c.row
        """,
        "rejected rows",
    )
    return table


def check(path: str | Path) -> None:
    """Refuse a file that holds something else than rejected rows: it may be the log itself. Ask before reading."""
    path = Path(path)
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            first = file.readline(100).strip().decode(errors="replace")
    except OSError as error:
        raise DataError(f"{path}: the rejected rows cannot be written there: {reason(error)}") from None
    if first not in {columns.replace(" ", "") for columns in COLUMNS}:
        raise DataError(f"{path}: holds something else than rejected rows, and would be lost; give another file")


def write(workspace: Workspace, table: str, path: str | Path) -> None:
    """The rejected rows as a CSV, replaced in one move."""
    check(path)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    one_file = workspace.row(f"SELECT count(DISTINCT file) FROM {table}")[0] < 2
    columns = COLUMNS[0] if one_file else COLUMNS[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workspace.db.execute(f"COPY (SELECT {columns} FROM {table}) TO {text(temporary)} (FORMAT csv, HEADER)")
        temporary.replace(path)
    except (OSError, duckdb.Error) as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{path}: the rejected rows could not be written: {reason(error)}") from error


def said(counts: Mapping[str, int]) -> str:
    """Reasons and their counts as a phrase, the commonest first."""
    return ", ".join(f"{why}: {count:,}" for why, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def readable(workspace: Workspace, file: CsvFile, sql: str) -> bool:
    """Read a file by `sql`; False if DuckDB could not, or if lines of it were swallowed by another."""
    try:
        workspace.db.execute(sql)
    except duckdb.InvalidInputException:
        return False
    except duckdb.Error as error:
        raise DataError(f"{file.path}: cannot be read: {reason(error)}") from error
    known = ", ".join(text(kind) for kind in UNREADABLE)
    guilty = f"error_type NOT IN ({known}) OR (error_type LIKE 'LINE SIZE%' AND contains(csv_line, '\"'))"
    return not workspace.row(f"SELECT count(*) FROM {file.rejects} WHERE {guilty}")[0]


def mend(workspace: Workspace, file: CsvFile) -> CsvFile:
    """A copy of a file in which a line with an unclosed quote is one that DuckDB rejects alone."""
    if file.compression == "zstd" or file.encoding not in ("utf-8", "latin-1"):
        raise DataError(
            f"{file.path}: its lines cannot be told apart: a quote is never closed, or lines end in different ways; "
            "mend that, or save the file as UTF-8, plain or gzip, and only the guilty lines will be rejected"
        )
    copy = workspace.folder / f"{workspace.new_name('mended')}.csv"
    try:
        opened = gzip.open if file.compression == "gzip" else open
        with opened(file.path, "rb") as source, copy.open("wb") as target:
            target.writelines(_harmless(source, file))
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read again: {error.strerror or error}") from error
    return replace(file, path=copy, compression="none", rejects=workspace.new_name("lines"))


def _harmless(source: Iterable[bytes], file: CsvFile) -> Iterator[bytes]:
    """The lines of a file; those that open a quote and begin no row have no quotes any more, and too many cells."""
    cut = re.escape(file.delimiter.encode(file.encoding))
    quoted, plain = rb'"(?>[^"]|"")*"', rb'(?!")(?:(?!%s)[^\r\n])*' % cut
    cell = b"(?>%s|%s)" % (quoted, plain)
    one_line = re.compile(rb"(?>%s(?:%s%s)*)\s*" % (cell, cut, cell))
    several_lines = re.compile(rb"%s(?:%s%s){%d}\s*" % (cell, cut, cell, len(file.columns) - 1))
    still_open = re.compile(rb'(?:%s%s)*"(?>[^"]|"")*' % (cell, cut))
    tail, mark = _tail(file).encode(file.encoding), MARK.encode()
    ahead: deque[bytes] = deque()  # lines that were looked at, but do not belong to the row before them
    lines = iter(source)

    def following() -> bytes:
        return ahead.popleft() if ahead else next(lines, b"")

    while line := following():
        if b'"' not in line:
            yield line.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            continue
        row = [line]
        while still_open.fullmatch(b"".join(row)) and (more := _up_to_quote(following, sum(map(len, row)))):
            row += more
        if (one_line if len(row) == 1 else several_lines).fullmatch(b"".join(row)):
            yield b"".join(row).rstrip(b"\r\n") + b"\n"
        else:
            yield line.rstrip(b"\r\n").replace(b'"', mark) + tail + b"\n"
            ahead.extendleft(reversed(row[1:]))


def _up_to_quote(following: Callable[[], bytes], size: int) -> list[bytes]:
    """The next lines up to one with a quote, or none if the row grows too long or the file ends before."""
    lines: list[bytes] = []
    while size < LONGEST and (line := following()):
        lines.append(line)
        size += len(line)
        if b'"' in line:
            return lines
    return lines


def _tail(file: CsvFile) -> str:
    return (file.delimiter + MARK) * len(file.columns)
