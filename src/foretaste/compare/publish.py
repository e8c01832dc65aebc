"""What a comparison leaves for people and machines: table.md, pairs.json, CSV files, report.html and figures."""

from __future__ import annotations

import sys
from pathlib import Path

from foretaste.compare.grid import Place
from foretaste.compare.pairs import keep
from foretaste.compare.report import write_report
from foretaste.compare.sheets import SHEETS
from foretaste.compare.summary import Summary, summarise
from foretaste.compare.written import markdown
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import digest
from foretaste.pages.drawings import NoMatplotlib


def publish(place: Place, data: Path | None) -> Summary:
    """Write what is finished; `data` is the prepared folder, whose histories the report shows."""
    summary = summarise(place)
    cells = {line.name: line.cells for line in summary.lines}
    found = {line.name: line.against for line in summary.lines if line.against is not None}
    ends = {
        line.name: {
            name: (figure.low, figure.high) for name, figure in line.figures.items() if name in summary.grid.show
        }
        for line in summary.lines
    }
    named = summary.reference == summary.grid.reference
    keep(place, summary.grid.show[0], summary.reference, cells, found, ends, named=named)
    for name, write in {"table.md": markdown, **SHEETS}.items():
        write_text(place.folder / name, write(summary))
    try:
        write_report(place, summary, data)
    except NoMatplotlib as error:
        print(f"no report.html: {error}", file=sys.stderr)
    return summary


def fingerprint(log: Prepared) -> str:
    """Two logs with the same one give the same cases and trainings: ITEMS-REST.

    ITEMS is of the items and their parts, and all that grids of earlier versions say; REST is of everything else.
    """
    of = log.sequences
    columns = [of.columns[name] for name in sorted(of.columns)]
    rest = digest(of.users, of.sessions, of.user_numbers, of.times, of.target, *columns)
    return f"{digest(of.items, of.part)}-{rest}"
