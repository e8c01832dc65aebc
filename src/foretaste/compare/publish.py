"""What a comparison leaves for people and machines: table.md, numbers.csv, report.html with its figures."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from foretaste.compare.grid import Place
from foretaste.compare.report import write_report
from foretaste.compare.summary import Summary, markdown, numbers, summarise
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.pages.drawings import NoMatplotlib


def publish(place: Place, data: Path) -> Summary:
    """Write what is finished; `data` is the prepared folder."""
    summary = summarise(place)
    write_text(place.folder / "table.md", markdown(summary))
    write_text(place.folder / "numbers.csv", numbers(summary))
    try:
        write_report(place, summary, data)
    except NoMatplotlib as error:
        print(f"no report.html: {error}", file=sys.stderr)
    return summary


def fingerprint(log: Prepared) -> str:
    """Of the events and their parts: two logs with the same one give the same cases."""
    found = hashlib.sha256()
    for column in (log.sequences.items, log.sequences.part):
        found.update(np.ascontiguousarray(column).data)
    return found.hexdigest()[:16]
