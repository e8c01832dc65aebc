"""What is known of the items besides the log: titles, categories, prices from a table of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from foretaste.data.cells import Id, Value
from foretaste.data.raw import Raw
from foretaste.data.sources import Source
from foretaste.data.workspace import Table, name
from foretaste.errors import DataError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog


def attached(log: EventLog, source: Source, item: str, columns: Mapping[str, str]) -> tuple[Table, str]:
    """The table (item, columns...) of those items that the log has, and a sentence on how many that are.

    Ids are compared by their text, so that a CSV's 7 finds a table's '7'.
    """
    source.check("item", item)
    for ours, column in columns.items():
        source.check(ours, column)
    taken = dict(columns) or {column: column for column in source.types if column != item}
    if "item" in (ours.lower() for ours in taken):
        raise DataError(f"{source.label}: a column of its own is called 'item'; give the columns to take, renamed")
    workspace = log.workspace
    key = Id("raw_item", item, source.types[item])
    values = {ours: Value(f"raw_{k}", column, source.types[column]) for k, (ours, column) in enumerate(taken.items())}
    raw = Raw(workspace, source, [key, *values.values()])
    table = workspace.new_table("items")
    first = "".join(f", arg_min_null({cell.value}, row) AS {name(ours)}" for ours, cell in values.items())
    workspace.run(
        f"""
        CREATE TABLE {table} AS
        SELECT l.item, d.* EXCLUDE (item)
        FROM (SELECT DISTINCT item FROM {log.table}) AS l
        JOIN (SELECT ({key.value})::VARCHAR AS item{first} FROM {raw.rows} GROUP BY 1) AS d ON l.item::VARCHAR = d.item
        """,
        source.label,
    )
    found = workspace.row(f"SELECT count(*) FROM {table}")[0]
    unusable = raw.lines.unread + workspace.row(f"SELECT count(*) FROM {raw.table} WHERE {key.value} IS NULL")[0]
    said = f"row({', '.join(cell.value for cell in values.values())})"
    twice = f"SELECT 1 FROM {raw.rows} WHERE {key.value} IS NOT NULL GROUP BY ({key.value})::VARCHAR"
    differ = workspace.row(f"SELECT count(*) FROM ({twice} HAVING count(DISTINCT {said}) > 1)")[0]
    raw.drop()
    detail = f"{source.label}: {found:,} of {log.steps[-1].items:,} items described by {', '.join(taken)}"
    detail += f"; {unusable:,} rows of it could not be used" if unusable else ""
    return table, detail + (f"; {differ:,} of its items have rows that differ: the first counts" if differ else "")
