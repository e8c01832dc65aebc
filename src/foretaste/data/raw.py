"""A source, read once: the table of what its cells keep, and what the cells then decided."""

from __future__ import annotations

from collections.abc import Sequence

from foretaste.data import rejected
from foretaste.data.cells import Cell
from foretaste.data.sources import Part, Source
from foretaste.data.workspace import Workspace
from foretaste.errors import DataError


class Raw:
    """`table` holds a row for every row of the source, in its order; `lines` knows where each stood."""

    def __init__(self, workspace: Workspace, source: Source, cells: Sequence[Cell]) -> None:
        self.workspace = workspace
        self.table = workspace.new_name("raw")
        self.lines = self._store(source, cells)
        self._learn(cells)

    @property
    def rows(self) -> str:
        """SQL: the table with `row`, the place of each row in the source, counted from 1."""
        return self.lines.numbered(self.table)

    def drop(self) -> None:
        """Free the space."""
        self.workspace.db.execute(f"DROP TABLE {self.table}")
        self.lines.drop()

    def _store(self, source: Source, cells: Sequence[Cell]) -> rejected.Lines:
        """The one reading. If the lines of a file cannot be told apart, it is mended and the reading begins again."""
        stored = ", ".join(cell.stored() for cell in cells)
        computed = ", ".join(["*", *(sql for cell in cells for sql in cell.computed())])
        parts = list(source.parts)
        mended: set[Part] = set()
        while True:
            lines = rejected.Lines(self.workspace)
            self.workspace.db.execute(f"DROP TABLE IF EXISTS {self.table}")
            for place, part in enumerate(parts):
                into = f"INSERT INTO {self.table}" if place else f"CREATE TABLE {self.table} AS"
                read = f"SELECT {stored} FROM (SELECT {computed} FROM {part.relation})"
                if part.csv is None or part in mended:
                    self.workspace.run(f"{into} {read}", f"{part.label}: cannot be read")
                elif not rejected.readable(self.workspace, part.csv, f"{into} {read}"):
                    file = rejected.mend(self.workspace, part.csv)
                    parts[place] = Part(part.label, file.relation, file)
                    mended.add(parts[place])
                    lines.drop()
                    break
                lines.add(part, self.workspace.row(f"SELECT count(*) FROM {self.table}")[0] - lines.good)
            else:
                source.release()
                if mended:
                    lines.see_blanks()  # while the copies are there
                for part in mended:
                    assert part.csv is not None
                    part.csv.path.unlink()
                if not lines.rows:
                    raise DataError(f"{source.label} has no rows; expected at least one below the names of the columns")
                return lines

    def _learn(self, cells: Sequence[Cell]) -> None:
        """Put the questions of all cells in one pass; each then decides what its column is."""
        questions = [(cell, cell.questions()) for cell in cells]
        every = [question for _, several in questions for question in several]
        answers = iter(self.workspace.row(f"SELECT {', '.join(['count(*)', *every])} FROM {self.table}")[1:])
        for cell, several in questions:
            cell.learn([next(answers) for _ in several])
