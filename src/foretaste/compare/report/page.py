"""The page: all sections in the order in which a decision needs them, in one file that loads nothing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from foretaste.compare.grid import Place
from foretaste.compare.report.asked import answer, asked, cautions
from foretaste.compare.report.sections import Section, Sections
from foretaste.compare.summary import Summary, facts_of
from foretaste.compare.written import machines
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.inspection import environment
from foretaste.pages.document import document, shared
from foretaste.pages.drawings import Gallery, drawing, looks
from foretaste.pages.html import data, join, tag


def write_report(place: Place, summary: Summary, data: Path | None = None) -> Path:
    """Write report.html and figures/ into the folder of the comparison; gives the path of the page.

    `data`: the prepared folder; with it, histories of the test part are shown as the saved models see them.
    Needs matplotlib (`foretaste[viz]`), and says so where it is missing.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    log = None if data is None else Prepared.open(data)
    made = Path(tempfile.mkdtemp(prefix=".figures.", dir=place.folder))
    try:
        with drawing():
            gallery = Gallery(made)
            text = page(place, summary, log, gallery)
        _replace(made, place.folder / "figures")
    finally:
        shutil.rmtree(made, ignore_errors=True)
    out = place.folder / "report.html"
    write_text(out, text)
    return out


def page(place: Place, summary: Summary, log: Prepared | None, gallery: Gallery) -> str:
    """The whole page as text."""
    names = looks([line.name for line in summary.lines])
    show = Sections(summary, names, gallery)
    notes = cautions(summary)
    first = [
        Section("answer", "The answer", answer(summary, names)),
        Section("asked", "What was asked of whom", join(
            asked(summary, None if log is None else log.manifest),
            *([tag("h3", "To keep in mind"), tag("ul", *(tag("li", note) for note in notes))] if notes else []),
        )),
    ]  # fmt: skip
    drawn = [show.table(), show.cost(), show.learning(), show.kinds(place), show.besides(), show.log(log), show.tried(),
             show.sweeps(), show.attention(place, log)]  # fmt: skip
    sections = [*first, *(section for section in drawn if section is not None), _numbers(summary, gallery)]
    grid = summary.grid
    head = tag(
        "header",
        tag("h1", grid.title or "Comparison"),
        tag("p", grid.about.strip()) if grid.about.strip() else None,
        tag(
            "nav",
            tag("ul", *(tag("li", tag("a", one.title, href=f"#{one.name}")) for one in sections)),
            aria_label="Sections",
        ),
    )
    body = tag("main", *(tag("section", tag("h2", one.title), one.body, id=one.name) for one in sections))
    return document(grid.title or "Comparison", head, body, script=shared("script.js"))


def _numbers(summary: Summary, gallery: Gallery) -> Section:
    """Where every number is, for people and for machines, and what made them."""
    facts, _ = environment()
    threads = {str(cell["threads"]) for line in summary.lines for cell in line.cells if "threads" in cell}
    shown: dict[str, Any] = {
        name: ", ".join(value) if isinstance(value, list) else value
        for name, value in facts.items()
        if name != "extras"
    }
    shown |= {"gpu": shown.get("gpu") or "none", "threads of a cell": ", ".join(sorted(threads))}
    csv, kinds, figures = (
        tag("a", tag("code", name), href=name) for name in ("numbers.csv", "breakdowns.csv", "figures/")
    )
    sheets = [tag("a", tag("code", name), href=name) for name in ("rows.csv", "passes.csv", "trials.csv")]
    where = tag(
        "p", "Every number of every cell: ", csv, "; by kind of case: ", kinds,
        "; means and differences, passes, trials: ", join(*sheets, by=", "), ". Cells, ranks and saved models lie "
        f"beside it; the {len(gallery.names)} drawings in ", figures, " as SVG and PNG. The grid and the results stand "
        "in this file too, as JSON (", tag("code", "#comparison"), ").",
    )  # fmt: skip
    machine = tag(
        "dl", *(join(tag("dt", name), tag("dd", value)) for name, value in shown.items() if value not in ("", None))
    )
    note = tag("p", "This report was written with the following.", tag("br"), *machines(summary))
    return Section("numbers", "Every number", join(where, note, machine, data(facts_of(summary), "comparison")))


def _replace(made: Path, folder: Path) -> None:
    """The new figures take the place of the old ones."""
    made.chmod(0o755)
    before = folder.with_name(".figures.before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.replace(before)
    made.replace(folder)
    shutil.rmtree(before, ignore_errors=True)
