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
    from foretaste.compare.grid import Place, same_log
    from foretaste.compare.publish import fingerprint, publish
    from foretaste.compare.run import alone, refuse_taken
    from foretaste.compare.summary import facts_of
    from foretaste.compare.written import markdown
    from foretaste.data.prepared import Prepared
    from foretaste.errors import ConfigError

    if not folders:
        raise ConfigError("merge: name at least one folder to take cells from")
    refuse_taken(out)
    others, place = [Place(folder) for folder in folders], Place(out)
    asked = [other.grid().data for other in others]  # refuses what is no comparison, before anything is made
    if data is not None and not same_log(asked[0], fingerprint(Prepared.open(data))):
        raise ConfigError(f"{data}: is not the log that {folders[0]} was made on; give that one, or leave --data out")
    with alone(out):
        taken, twice = merging.merge(place, others)
        summary = publish(place, data)
    said = f"{taken} {'cell' if taken == 1 else 'cells'} taken" + (
        f", {twice} in more than one folder" if twice else ""
    )
    facts = {"folder": str(out), "taken": taken, "twice": twice, **facts_of(summary)}
    show(facts, f"{said}: {out}\n\n{markdown(summary)}", json)
