"""`foretaste inspect`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from foretaste import options
from foretaste.errors import ConfigError
from foretaste.options import Columns, Json, Room, Steps


def inspect(
    source: str,
    /,
    *,
    columns: Columns = options.NO_COLUMNS,
    steps: Steps = options.NO_STEPS,
    room: Room = options.USUAL_ROOM,
    html: Path | None = None,
    json: Json = False,
) -> None:
    """What a log is like, which protocol fits it, and what each model could use of it.

    Example: `foretaste inspect clicks.csv --session session_id --item item_id --time timestamp --html clicks.html`

    Parameters
    ----------
    source
        A log, or a folder written by `foretaste prepare`, or a saved recommender.
    html
        File for the same as a page, with drawings; it needs nothing but itself.
    """
    from foretaste.cli import show
    from foretaste.data.files import write_text
    from foretaste.inspection import inspect_folder, is_ours, of_folder, of_log

    place, ours = Path(source), is_ours(source)
    if ours and (columns != options.NO_COLUMNS or steps != options.NO_STEPS):
        raise ConfigError(
            f"{source}: was read and cleaned when it was made; leave out what says how a log is read, or give the log"
        )
    if ours and (place / "recommender.json").exists():
        if html is not None:
            raise ConfigError(f"{source}: a saved recommender has no page; leave out --html, or give the log")
        show(*inspect_folder(place), json)
        return
    if html is not None:
        from foretaste.data.files import check_ending
        from foretaste.inspection.page import can_draw, page

        check_ending(html, ".html", ".htm")
        can_draw()
    found = of_folder(place) if ours else of_log(steps.read(columns, source, **asdict(room)), place.name)
    facts, text = found.as_dict(), found.text()
    if html is not None:
        write_text(html, page(found))
        facts, text = {**facts, "page": str(html)}, f"{text}\n\nwritten: {html}"
    show(facts, text, json)
