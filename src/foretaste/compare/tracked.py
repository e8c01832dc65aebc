"""Finished cells of a comparison as runs of a tracker: one a cell, and one for the comparison with its table and page.

A cell is tracked when it is finished and not before, whole: what was there when tracking began is tracked too, and
nothing twice.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from foretaste.compare.grid import Place
from foretaste.compare.sheets import SHEETS
from foretaste.errors import ForetasteError
from foretaste.training.tracking import Tracked, Tracker

FILES = ("table.md", *SHEETS, "report.html")


class TrackedCells:
    """Is told of finished cells, from any thread."""

    def __init__(self, tracker: Tracker, place: Place) -> None:
        self.tracker, self.place = tracker, place
        self.group = place.folder.resolve().name
        self.lock = threading.Lock()
        self.broken = False

    def __call__(self, cell: Mapping[str, Any]) -> None:
        """A cell is there."""
        name = f"{cell['row']}-seed{cell['seed']}"
        settings = {"row": cell["row"], "model": cell["model"], **cell["training"], **cell["config"]}
        which: dict[str, Any] = {"group": self.group, "of": [cell["test"], cell["seconds"]]}

        def keep() -> Tracked | None:
            if self.tracker.has(name, settings, **which):
                return None
            with self.tracker.begin(name, settings, **which) as run:
                _tell(run, cell)
            return run

        self._try(keep)

    def close(self) -> None:
        """The comparison as a whole, with what it left for people."""

        def keep() -> Tracked | None:
            where = {"folder": str(self.place.folder.resolve())}
            files = [path for name in FILES if (path := self.place.folder / name).exists()]
            which: dict[str, Any] = {"group": self.group, "of": [path.read_text("utf-8") for path in files[:1]]}
            if self.tracker.has(self.group, where, **which):
                return None
            with self.tracker.begin(self.group, where, **which) as run:
                for path in files:
                    run.keep(path)
            return run

        self._try(keep)

    def _try(self, keep: Callable[[], Tracked | None]) -> None:
        """The comparison goes on without a store that fails; one word of it is enough."""
        with self.lock:
            if self.broken:
                return
            try:
                run = keep()
                self.broken = run is not None and run.broken
            except ForetasteError as error:
                self.broken = True
                print(f"tracking stopped, the comparison goes on: {error}", file=sys.stderr, flush=True)


def _tell(run: Tracked, cell: Mapping[str, Any]) -> None:
    for entry in cell["history"]:
        run(entry)
    tests = {"test": cell["test"], **{f"test {name}": found for name, found in cell["also"].items()}}
    found = {f"{test}/{name}": one["value"] for test, asked in tests.items() for name, one in asked["metrics"].items()}
    cost = {f"seconds/{name}": value for name, value in cell["seconds"].items()}
    cost |= {f"milliseconds/{name}": value for name, value in (cell["milliseconds"] or {}).items()}
    cost |= {name: cell[name] for name in ("peak_mb", "weights", "passes") if cell[name] is not None}
    run.numbers({**found, **cost})
