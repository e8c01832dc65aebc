"""`foretaste reproduce`: a paper's table made again from a log, and the ledger of all of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretaste.compare.grid import Place
from foretaste.compare.publish import fingerprint, publish
from foretaste.compare.run import alone, run
from foretaste.compare.summary import Line, Summary, summarise
from foretaste.compare.tables import Table, names, table
from foretaste.compare.tracked import TrackedCells
from foretaste.compare.trials import check
from foretaste.compare.written import markdown
from foretaste.data import datasets
from foretaste.data.files import check_ending, write_text
from foretaste.data.prepared import Prepared
from foretaste.data.recipes import DataRecipe
from foretaste.errors import ConfigError, DataError, SavedFileError
from foretaste.options import Device, Flag, Json, Threads, Track
from foretaste.training.tracking import tracker

TOLD = {"title", "about", "origin", "terms", "items", "counts", "published"}
"""What a data recipe says that makes no event another."""


def reproduce(
    name: str | None = None,
    /,
    *,
    data: tuple[str, ...] = (),
    out: Path = Path("reproductions"),
    rows: str = "",
    seeds: int | None = None,
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
        Trainings of each row with the chosen settings. Default: what the table says, 3 where a training is short.
    workers
        Cells made at a time.
    list
        Show every table, and how far its rows are in OUT; make nothing.
    ledger
        Also write the ledger of all tables in OUT to this file, as Markdown.
    """
    from foretaste.cli import show

    if ledger is not None:
        check_ending(ledger, ".md")
    if list or name is None:
        if name is not None:
            raise ConfigError("reproduce: give a table, or --list")
        made = summaries(out)
        facts, text = states(out, made)
        if ledger is not None:
            write_text(ledger, page(out, made))
        show(facts, text, json)
        return
    if seeds is not None and seeds < 1:
        raise ConfigError(f"seeds = {seeds}; give at least 1")
    wanted, place = table(name), Place(out / (name if name in names() else Path(name).stem))
    check(wanted.grid())
    cells = TrackedCells(tracker(track), place)
    folder = prepared_folder(wanted, data, out)
    log = Prepared.open(folder)
    grid = wanted.grid(tuple(range(seeds or wanted.seeds)), fingerprint(log))
    only = [grid.row(part.strip()).name for part in rows.split(",") if part.strip()] or [row.name for row in grid.rows]
    with alone(place.folder) as lock:
        if name not in names() and (place.folder / "grid.json").exists() and place.grid().title != grid.title:
            raise ConfigError(f"{place.folder}: holds '{place.grid().title}', another table; give it another --out")
        place.begin(grid)
        run(place, folder, only=only, workers=workers, threads=threads, device=device, finished=cells, lock=lock)
        summary = publish(place, folder)
    cells.close()
    if ledger is not None:
        write_text(ledger, page(out, summaries(out)))
    show({"folder": str(place.folder)}, markdown(summary), json)


def prepared_folder(wanted: Table, data: tuple[str, ...], out: Path) -> Path:
    """The log of a table, prepared once for all tables that want it."""
    folder = out / "data" / Path(wanted.data).stem
    if folder.exists():
        _check_prepared(folder, wanted)
        if data:
            print(f"{folder}: was prepared before and is used; delete it to read --data again", file=sys.stderr)
        return folder
    if not data:
        raise ConfigError(
            f"this table is made from {wanted.data}: {datasets.recipe(wanted.data).title}. Say with --data where its "
            f"files are; `foretaste recipes {wanted.data}` shows which they are, and where they come from"
        )
    datasets.apply(datasets.recipe(wanted.data), *data, folder=folder)
    return folder


def _check_prepared(folder: Path, wanted: Table) -> None:
    """Refuse a log that another recipe made, of the same name or changed since; one without a recipe is trusted."""
    made = dict(Prepared.open(folder).manifest.get("recipe") or {})
    if not made:
        return
    made.pop("found", None)
    one, other = (recipe.model_dump(exclude=TOLD) for recipe in (DataRecipe.of(made), datasets.recipe(wanted.data)))
    changed = next((name for name, value in one.items() if value != other[name]), None)
    if changed is not None:
        raise ConfigError(
            f"{folder}: was prepared by another recipe than {wanted.data} is now ({changed} differs); delete it and "
            "say with --data where the files are, or choose another --out"
        )


def summaries(out: Path) -> dict[str, Summary | None]:
    """What was made of every table in `out`."""
    return {name: _summary(out / name, table(name)) for name in names()}


def states(out: Path, made: Mapping[str, Summary | None]) -> tuple[dict[str, Any], str]:
    """How far every table is."""
    facts: dict[str, Any] = {}
    for name, summary in made.items():
        wanted = table(name)
        waiting = _waiting(wanted, out)
        rows = {row.name: _state(summary, row.name, waiting, wanted.seeds) for row in wanted.grid().rows}
        done = sum(state == "done" for state in rows.values())
        state = "done" if done == len(rows) else "begun" if set(rows.values()) != {waiting} else waiting
        facts[name] = {"paper": wanted.paper, "data": wanted.data, "state": state, "done": done, "rows": rows}
    wide, lines = max(map(len, facts), default=0), []
    for name, one in facts.items():
        count = f"{one['done']:3}/{len(one['rows']):<3} rows"
        lines.append(f"{name:{wide}}  {count}  {one['state']:10}  {one['paper']}, on {one['data']}")
        if one["state"] == "begun":
            groups: dict[str, list[str]] = {}
            for row, state in one["rows"].items():
                groups.setdefault(state, []).append(row)
            lines += [f"{'':{wide}}  {state}: {', '.join(found)}" for state, found in groups.items()]
    return facts, "\n".join(lines)


def page(out: Path, made: Mapping[str, Summary | None]) -> str:
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
    for name, summary in made.items():
        wanted, command = table(name), f"`foretaste reproduce {name} --out {out.as_posix()}`"
        if summary is None or not any(line.cells or line.failures for line in summary.lines):
            log = f"its log: {wanted.data}, {datasets.recipe(wanted.data).title}"
            lines += [f"## {wanted.paper}, on {wanted.data}", "", f"{command}: not made yet; {log}.", ""]
            continue
        body = markdown(summary).splitlines()
        lines += [f"#{body[0]}", "", command, *body[1:], ""]
        missing = [line.name for line in summary.lines if not line.cells and not line.failures]
        lines += [f"Not made yet: {', '.join(missing)}.", ""] if missing else []
    return "\n".join(lines).rstrip() + "\n"


def _summary(folder: Path, wanted: Table) -> Summary | None:
    """What was made of a table, with the words and the paper's figures as the table has them today."""
    if not (folder / "grid.json").exists():
        return None
    try:
        made, grid = summarise(Place(folder)), wanted.grid()
        lines = {line.name: line for line in made.lines}
        today = [
            replace(lines.get(row.name, Line(row.name, row.model, "")), published=row.published) for row in grid.rows
        ]
        return Summary(grid.with_(seeds=made.grid.seeds), tuple(today), made.reference)
    except (DataError, SavedFileError) as error:
        raise type(error)(f"{folder}: {error}") from None


def _state(summary: Summary | None, name: str, waiting: str, seeds: int) -> str:
    """Of a row: done, so many of its seeds, failed (and why), ready, needs data."""
    line = None if summary is None else summary.line(name)
    if line is None or not (line.cells or line.failures):
        return waiting
    why = f"failed ({next(iter(line.failures.values()))})" if line.failures else ""
    if not line.cells:
        return why
    made, all_of = len(line.cells), max(seeds, len(line.cells) + len(line.failures))
    if made == all_of:
        return "done"
    return f"{made} of {all_of} seeds" + (f", the others {why}" if why else "")


def _waiting(wanted: Table, out: Path) -> str:
    return "ready" if (out / "data" / Path(wanted.data).stem).exists() else "needs data"
