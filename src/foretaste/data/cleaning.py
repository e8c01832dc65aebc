"""Two steps on a log that touch single events: exact copies, and immediate repeats."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from foretaste.data.workspace import name

if TYPE_CHECKING:
    from foretaste.data.events import EventLog

BLOCK = 1 << 25
"""Events whose hashes are sorted at once: 256 MiB."""


def of_duplicates(log: EventLog, drop: bool) -> EventLog:
    """Count the exact copies of earlier events, and leave them out if asked; a log without any gets no step."""
    columns = ", ".join(name(row[0]) for row in log.workspace.rows(f"DESCRIBE {log.table}") if row[0] != "row")
    copies = _copies(log, columns)
    if not copies:
        return log
    if drop:
        first = f"SELECT min(row) FROM {{table}} GROUP BY {columns}"
        return log.derive(f"SELECT * FROM {{table}} WHERE row IN ({first})", "duplicates", "exact copies dropped")
    log.steps.append(replace(log.steps[-1], name="duplicates", detail=f"{copies:,} exact copies of earlier rows, kept"))
    return log


def _copies(log: EventLog, columns: str) -> int:
    """Rows that equal an earlier one, by 64-bit hashes: at a hundred million events, one may err once in 3,000 logs."""
    blocks = len(log) // BLOCK + 1
    copies = 0
    for block in range(blocks):
        some = f" WHERE hash({columns}) % {blocks} = {block}" if blocks > 1 else ""
        hashes = log.db.execute(f"SELECT hash({columns}) AS h FROM {log.table}{some}").fetchnumpy()["h"]
        hashes.sort()
        copies += int((hashes[1:] == hashes[:-1]).sum())
    return copies


def without_repeats(log: EventLog) -> EventLog:
    """Of immediate repeats of an item inside a session (or a user's history, where there are no sessions), the first.

    An event that may be asked for and one that may not are no repeats of each other: a click and then a purchase of the
    same item are two events.
    """
    return log.derive(
        """
        SELECT * FROM {table}
        WINDOW history AS (PARTITION BY "user", "session" ORDER BY time, position, row)
        QUALIFY coalesce(item <> lag(item) OVER history OR target <> lag(target) OVER history, true)
        """,
        "repeats",
        f"immediate repeats of an item inside a {'session' if 'sessions' in log.has else 'history'} collapsed",
    )
