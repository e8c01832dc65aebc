"""`foretaste merge`."""

from __future__ import annotations

from pathlib import Path

from foretaste.options import Json


def merge(*folders: Path, out: Path, data: Path | None = None, json: Json = False) -> None:
    """One comparison that was made in several folders, such as on several machines: all that is finished, in one.

    Example: `foretaste merge machine-a machine-b --out clicks-compared --data clicks`

    Takes finished cells that OUT lacks, and replaces none; then writes the table, the CSV files and the report anew.
    The log and what was asked of it must be the same, and a row's settings and budget.

    Parameters
    ----------
    folders
        Folders of `foretaste compare`, or of one table of `foretaste reproduce`.
    out
        Folder of the whole; it may hold a part already, or not be there yet.
    data
        The folder of the log, whose histories the report shows.
    """
    from foretaste.cli import show
    from foretaste.compare import merging
    from foretaste.compare.grid import Place
    from foretaste.compare.publish import publish
    from foretaste.compare.run import alone
    from foretaste.compare.written import markdown
    from foretaste.errors import ConfigError

    if not folders:
        raise ConfigError("merge: name at least one folder to take cells from")
    others, place = [Place(folder) for folder in folders], Place(out)
    for other in others:
        other.grid()  # refuses what is none, before anything is made
    with alone(out):
        found = merging.merge(place, others)
        summary = publish(place, data)
    said = f"{found.taken} cells taken" + (f", {found.there} were there already" if found.there else "")
    show(
        {"folder": str(out), "taken": found.taken, "there": found.there}, f"{said}: {out}\n\n{markdown(summary)}", json
    )
