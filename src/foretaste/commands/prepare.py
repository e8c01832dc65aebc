"""`foretaste prepare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from foretaste import options, words
from foretaste.errors import ConfigError
from foretaste.options import Columns, Flag, Json, Room, Steps


def prepare(
    *source: str,
    out: Path,
    recipe: str | None = None,
    columns: Columns = options.NO_COLUMNS,
    steps: Steps = options.NO_STEPS,
    split: str | None = None,
    validation: str | None = None,
    filter_all: Flag = False,
    rejected: Path | None = None,
    strict: Flag = False,
    replace: Flag = False,
    room: Room = options.USUAL_ROOM,
    json: Json = False,
) -> None:
    """Read a log (CSV or Parquet), check it, cut sessions, filter, split, number the items; write a folder.

    Example: `foretaste prepare clicks.csv --out clicks --session session_id --item item_id --time timestamp
    --item-support 5 --session-length 2 --split global-time:days=1`

    What repeats, and what these options do not say, is better kept in a recipe, a TOML file:
    `foretaste prepare folder/with/the/files --recipe ml-100k --out movies`

    Parameters
    ----------
    source
        The log: a file, a folder of Parquet files or a quoted pattern. For a recipe the folder of its files, or the
        files in its order.
    out
        Folder to write.
    recipe
        Name (see `foretaste recipes`) or TOML file of a data recipe, instead of the options from --item to
        --validation.
    split
        Test part, as kind:setting=value: global-time:days=7, session-order:fraction=0.1, whole-users, last-item,
        last-two, last-session, ratio:train=0.7, given, none. Default: the newest tenth.
    validation
        Validation part of the training part, in the same words. Default: the newest tenth.
    filter_all
        Let --item-support, --session-length and --user-events count, and drop, in the test part too, as the papers do;
        by default they do in the training part alone.
    rejected
        File for the rows that cannot be used, each with its line and the reason.
    strict
        Refuse a log with such rows.
    replace
        Put the new folder in the place of a prepared log that stands at --out. Recommenders trained on that one cannot
        be evaluated on this one, if its items have other numbers.
    """
    from foretaste.cli import show
    from foretaste.data import datasets
    from foretaste.data.folders import check_free
    from foretaste.data.sessions import Filters

    out = out if out.name else out.resolve()  # `.` has no name
    check_free(out, "a prepared log", replace=replace)
    if rejected is not None and out.resolve() in rejected.resolve().parents:
        raise ConfigError(f"--rejected {rejected}: lies in --out, which is written as a whole; give it another place")
    if recipe is not None:
        if columns != options.NO_COLUMNS or steps != options.NO_STEPS or split or validation or filter_all:
            raise ConfigError("prepare: columns, sessions, filters and split stand in the recipe; change them there")
        chosen = datasets.recipe(recipe)
        prepared = datasets.apply(chosen, *source, folder=out, rejected=rejected, strict=strict, **asdict(room))
        show(prepared.manifest, f"{prepared.report()}\n\n{datasets.comparison(prepared)}", json)
        return
    if len(source) != 1:
        raise ConfigError(f"prepare: give one log, not {len(source)}; for several files a pattern, or a recipe")
    log = steps.read(columns, source[0], filtered=filter_all, rejected=rejected, strict=strict, **asdict(room))
    least = None if filter_all or not steps.least else Filters(**steps.least)
    prepared = log.prepare(*words.parts_of(split, validation, log.has), filters=least, folder=out)
    show(prepared.manifest, prepared.report(), json)
