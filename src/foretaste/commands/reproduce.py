"""`foretaste reproduce`: a paper's table made again from a log, and the ledger of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foretaste.compare.grid import Place
from foretaste.compare.publish import fingerprint, publish
from foretaste.compare.run import run
from foretaste.compare.summary import Summary, markdown, summarise
from foretaste.compare.tables import Table, names, table
from foretaste.compare.tracked import TrackedCells
from foretaste.data import datasets
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.errors import ConfigError, DataError, SavedFileError
from foretaste.options import Device, Flag, Json, Threads, Track
from foretaste.training.tracking import tracker


def reproduce(
    name: str | None = None,
    /,
    *,
    data: tuple[str, ...] = (),
    out: Path = Path("reproductions"),
    rows: str = "",
    seeds: int = 1,
    workers: int = 1,
    threads: Threads = 1,
    device: Device = "cpu",
    track: Track = None,
    list: Flag = False,
    ledger: Path | None = None,
    json: Json = False,
) -> None:
    """Make a table of one of the five papers again, with the paper's number beside ours.

    Example: `foretaste reproduce rum/instant-video --data folder/with/the/files --seeds 3`

    Killed, it goes on when started again; with more rows or seeds it makes what is missing.

    Parameters
    ----------
    name
        PAPER/TABLE, as `--list` shows them, or a TOML file.
    data
        The log's files, or the folder that holds them, as for `foretaste prepare --recipe`.
    out
        Folder of all reproductions; this table's is OUT/PAPER/TABLE.
    rows
        Only these rows, with commas. Default: all.
    seeds
        Trainings of each row with the chosen settings.
    workers
        Cells made at a time.
    list
        Show every table and how far it is in OUT; make nothing.
    ledger
        Also write the ledger of all tables in OUT to this file, as Markdown.
    """
    from foretaste.cli import show

    if list or name is None:
        if name is not None:
            raise ConfigError("reproduce: give a table, or --list")
        facts, text = states(out)
        if ledger is not None:
            write_text(ledger, page(out))
        show(facts, text, json)
        return
    if seeds < 1:
        raise ConfigError(f"seeds = {seeds}; give at least 1")
    wanted, place = table(name), Place(out / (name if name in names() else Path(name).stem))
    cells = TrackedCells(tracker(track), place)
    folder = prepared_folder(wanted, data, out)
    log = Prepared.open(folder)
    grid = wanted.grid(tuple(range(seeds)), fingerprint(log))
    only = [grid.row(part.strip()).name for part in rows.split(",") if part.strip()]
    place.begin(grid)
    run(place, folder, only=only, workers=workers, threads=threads, device=device, finished=cells)
    summary = publish(place, folder)
    cells.close()
    if ledger is not None:
        write_text(ledger, page(out))
    show({"folder": str(place.folder)}, markdown(summary), json)


def prepared_folder(wanted: Table, data: tuple[str, ...], out: Path) -> Path:
    """The log of a table, prepared once for all tables that want it."""
    folder = out / "data" / Path(wanted.data).stem
    if folder.exists():
        return folder
    if not data:
        raise ConfigError(
            f"this table is made from {wanted.data}: {datasets.recipe(wanted.data).title}. Say with --data where its "
            f"files are (`foretaste reproduce --list` shows what each table needs)"
        )
    datasets.apply(datasets.recipe(wanted.data), *data, folder=folder)
    return folder


def states(out: Path) -> tuple[dict[str, Any], str]:
    """How far every table is."""
    facts: dict[str, Any] = {}
    for name in names():
        wanted, summary = table(name), _summary(out / name)
        grid = wanted.grid()
        done = 0 if summary is None else sum(_finished(summary, row.name) for row in grid.rows)
        facts[name] = {
            "paper": wanted.paper,
            "data": wanted.data,
            "rows": len(grid.rows),
            "done": done,
            "state": "done" if done == len(grid.rows) else "begun" if done else _waiting(wanted, out),
        }
    wide = max(map(len, facts), default=0)
    lines = [
        f"{name:{wide}}  {one['done']:3}/{one['rows']:<3} rows  {one['state']:10}  {one['paper']}, on {one['data']}"
        for name, one in facts.items()
    ]
    return facts, "\n".join(lines)


def page(out: Path) -> str:
    """The ledger: every table with our numbers beside the paper's, or what it waits for."""
    lines = [
        "# Reproductions",
        "",
        "Written by `foretaste reproduce --list --ledger docs/reproductions.md`, never by hand. What was tried of a "
        "row was compared on the validation part alone; then it was trained afresh, and asked the test part once. All "
        "items are candidates, and ties count against the model. Where the order of two rows is not the paper's, "
        "that is a result.",
        "",
    ]
    for name in names():
        wanted, summary = table(name), _summary(out / name)
        if summary is None or not any(line.cells for line in summary.lines):
            lines += [f"## {wanted.paper}, on {wanted.data}", "", f"Needs data: {wanted.data}.", ""]
            continue
        body = markdown(summary).splitlines()
        lines += [f"#{body[0]}", "", f"`foretaste reproduce {name}`", *body[1:], ""]
        missing = [row.name for row in wanted.grid().rows if not _finished(summary, row.name)]
        lines += [f"Not made yet: {', '.join(missing)}.", ""] if missing else []
    return "\n".join(lines).rstrip() + "\n"


def _summary(folder: Path) -> Summary | None:
    if not (folder / "grid.json").exists():
        return None
    try:
        return summarise(Place(folder))
    except (DataError, SavedFileError) as error:
        raise type(error)(f"{folder}: {error}") from None


def _finished(summary: Summary, name: str) -> bool:
    return any(line.name == name and bool(line.cells) for line in summary.lines)


def _waiting(wanted: Table, out: Path) -> str:
    return "ready" if (out / "data" / Path(wanted.data).stem).exists() else "needs data"
