"""Recipes: from a published data set, or any other log, to a prepared one; a TOML file says how, and what comes out.

    prepared = apply(recipe("yoochoose1_64"), "folder/with/the/files")
    print(comparison(prepared))

A recipe names the files and their columns, how sessions are cut, what is filtered, and the split. It also holds counts:
ours, which the tests assert, and those that a paper prints; `comparison` puts both beside what came out. The recipes
that come with Foretaste lie in recipes/data; a path of your own TOML file does as well. `extends = "other"` takes from
another recipe everything that is not said anew, but for its title, its counts and what was published about it.

The steps, in their order: read, attach the items, cut sessions, add columns, filter, leave out, keep the newest
segments; then, on the way to arrays, split, filter the training part, drop cold test events, keep the newest prefixes,
take out the validation part. A recipe uses those that it names.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretaste.config import read_toml
from foretaste.data import sessions
from foretaste.data.counted import Counts, compared, measured
from foretaste.data.events import EventLog
from foretaste.data.files import meant
from foretaste.data.gather import found, gathered
from foretaste.data.prepared import Prepared
from foretaste.data.recipes import DataRecipe, Items, LeaveOut, Read, Segments
from foretaste.data.sources import fingerprint
from foretaste.errors import ConfigError, nearest

OF_ITS_OWN = ("title", "about", "counts", "published")
"""What a recipe does not take from the one that it extends."""

logger = logging.getLogger("foretaste.data")


def recipes_folder(kind: str = "data") -> Path:
    """Where the recipes of a kind lie: inside the installed package, or at the root of the source tree."""
    package = Path(__file__).resolve().parents[1]
    places = [package / "recipes" / kind, package.parents[1] / "recipes" / kind]
    for place in places:
        if place.is_dir():
            return place
    raise ConfigError(f"no recipes at {' or '.join(map(str, places))}; install Foretaste again")


def find_recipe(name: str | Path, kind: str = "data") -> Path:
    """The file of a recipe: the path of a TOML file, or the name of a recipe that comes with Foretaste."""
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return path
    if path.suffix == ".toml":
        raise ConfigError(f"{path}: no such file{meant(path)}")
    known = {one.stem: one for one in sorted(recipes_folder(kind).glob("*.toml"))}
    if str(name) not in known:
        other, use = ("training", "train") if kind == "data" else ("data", "prepare")
        if (recipes_folder(other) / f"{name}.toml").exists():
            raise ConfigError(f"recipe {str(name)!r} is for `foretaste {use} --recipe`; here {nearest('', known)}")
        raise ConfigError(f"no recipe {str(name)!r}: {nearest(str(name), known)}; or give the path of a TOML file")
    return known[str(name)]


def recipes() -> dict[str, str]:
    """The recipes that come with Foretaste: {name: what it is, in one line}."""
    return {path.stem: recipe(path).title for path in sorted(recipes_folder().glob("*.toml"))}


def recipe(name: str | Path) -> DataRecipe:
    """A recipe by its name, or from a TOML file of your own."""
    path = find_recipe(name)
    values = _values(path)
    try:
        return DataRecipe.of({"name": path.stem, **values})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def log(recipe: DataRecipe, *sources: Any, **reading: Any) -> EventLog:
    """The log of a recipe, read, filtered and cut, before it is split.

    `sources`: the folder of its files, or their paths in its order, or one table in memory. `reading` goes to
    `EventLog.read`: strict, rejected, memory_limit, threads.
    """
    if not sources:
        raise ConfigError(f"recipe {recipe.name}: give the folder of {', '.join(f.file[0] for f in recipe.files)}")
    tables = [source for source in sources if not isinstance(source, str | Path)]
    if tables and (len(sources) > 1 or not recipe.layout.plain):
        raise ConfigError(f"recipe {recipe.name} puts files together; give their paths, not tables")
    paths = [] if tables else found(recipe.layout, sources)
    read = _read(recipe, tables, paths, reading)
    if recipe.items is not None and paths:
        read = _with_items(read, recipe.items, paths[0].parent)
    return _stepped(_clocked(read, recipe.read), recipe)


def apply(recipe: DataRecipe, *sources: Any, folder: str | Path | None = None, **reading: Any) -> Prepared:
    """The prepared log of a recipe; saved in `folder` and memory-mapped from it, if one is given.

    `sources` and `reading` as for `log`. What was counted stands in the manifest under "recipe": see `comparison`.
    """
    before = log(recipe, *sources, **reading)
    prepared = before.prepare(
        recipe.split,
        recipe.validation,
        filters=recipe.training_filter,
        recent=recipe.prefixes,
        candidates=recipe.candidates,
        cold=recipe.cold,
    )
    prepared.manifest["recipe"] = {**recipe.as_dict(), "found": measured(before, prepared).as_dict()}
    return prepared if folder is None else Prepared.open(prepared.save(folder))


def comparison(prepared: Prepared) -> str:
    """What came out of a recipe beside its own counts and the published ones, why where they differ; then the terms."""
    values = dict(prepared.manifest.get("recipe") or {})
    if not values:
        raise ConfigError("this log was prepared without a recipe, so there are no counts to compare with")
    counts = Counts.of(values.pop("found"))
    made = DataRecipe.of(values)
    terms = [f"Terms: {made.terms}"] if made.terms else []
    return "\n".join([f"{made.name}: {made.title}", *compared(counts, made.counts, made.published), *terms])


def movielens_log(folder: str | Path) -> EventLog:
    """MovieLens-100K with titles, from the folder that `movielens.movielens_100k` gives."""
    return log(recipe("ml-100k"), folder)


def _values(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a recipe, laid over those of the one that it extends."""
    values = read_toml(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    beside = path.with_name(f"{base}.toml")
    other = beside if beside.is_file() else find_recipe(base)
    if other in (path, *below):
        raise ConfigError(f"{path}: extends {base!r}, which in the end extends itself")
    inherited = {key: value for key, value in _values(other, (path, *below)).items() if key not in OF_ITS_OWN}
    return _laid_over(inherited, values)


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged; a split is one thing, and is replaced whole when its kind is named."""
    both = dict(under)
    for key, value in over.items():
        merge = isinstance(value, Mapping) and isinstance(both.get(key), Mapping) and "kind" not in value
        both[key] = _laid_over(both[key], value) if merge else value
    return both


def _read(recipe: DataRecipe, tables: list[Any], paths: list[Path], reading: dict[str, Any]) -> EventLog:
    arguments = {**recipe.read.arguments(), **reading}
    if recipe.layout.plain:
        return EventLog.read(tables[0] if tables else paths[0], **arguments)
    with tempfile.TemporaryDirectory(prefix="foretaste-") as made:
        room = {name: reading[name] for name in ("memory_limit", "threads") if name in reading}
        whole = gathered(recipe.layout, paths, Path(made), **room)
        for name in ("names", "delimiter", "encoding"):
            arguments.pop(name, None)
        read = EventLog.read(whole, **arguments)
    read.fingerprint |= fingerprint(paths)
    return read


def _with_items(read: EventLog, items: Items, folder: Path) -> EventLog:
    there = [folder / file for file in items.file if (folder / file).is_file()]
    if not there:
        logger.info("%s holds no %s: items have no %s", folder, items.file[0], ", ".join(items.columns))
        return read
    cut = {"names": items.names, "delimiter": items.delimiter, "encoding": items.encoding}
    return read.with_items(there[0], item=items.item, **cut, **items.columns)  # type: ignore[arg-type]


def _clocked(read: EventLog, columns: Read) -> EventLog:
    """The times as the recipe wants them."""
    if columns.time_plus_ms:
        read = read.derive(
            "SELECT * EXCLUDE (time_plus_ms) REPLACE (time + coalesce(time_plus_ms, 0)::BIGINT AS time) FROM {table}",
            "time",
            f"{columns.time_plus_ms} (milliseconds) added",
        )
        read.columns = tuple(name for name in read.columns if name != "time_plus_ms")
    if not columns.sorted:
        read = read.derive(
            'SELECT * REPLACE (max(time) OVER (PARTITION BY "user", "session") AS time) FROM {table}',
            "unsorted",
            "inside a session the order of the file; all its events have its last time",
        )
    return read


def _stepped(read: EventLog, recipe: DataRecipe) -> EventLog:
    """The steps between reading and splitting."""
    cut = recipe.sessions
    if cut.gap or cut.per or cut.events:
        read = read.sessions(gap=cut.gap, per=cut.per, events=cut.events)
    read = read.collapsed()
    for column in cut.add:
        read = sessions.with_gaps(read) if column == "gap" else sessions.with_dwell(read)
    if recipe.filter is not None:
        read = sessions.filtered(read, recipe.filter)
    if recipe.leave_out is not None:
        read = _left_out(read, recipe.leave_out)
    if recipe.segments is not None:
        read = _newest(read, recipe.segments)
    return read


def _left_out(read: EventLog, span: LeaveOut) -> EventLog:
    begin, before = span.span
    return read.derive(
        'SELECT * FROM {table} QUALIFY max(time) OVER (PARTITION BY "user", "session") NOT BETWEEN '
        f"{begin} AND {before - 1}",
        "leave out",
        f"sessions that end from {span.begin} until before {span.before} are in no part",
    )


def _newest(read: EventLog, segments: Segments) -> EventLog:
    keep = segments.length * segments.count + 1
    return read.derive(
        f"SELECT * FROM {{table}} QUALIFY row_number() OVER (PARTITION BY {sessions.OWNER} "
        f"ORDER BY time DESC, position DESC, row DESC) <= {keep}",
        "segments",
        f"the newest {segments.count} segments of {segments.length} events of each user, and the event after them",
    )
