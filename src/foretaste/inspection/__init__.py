"""What a log, a prepared folder, a saved recommender, the models or this machine are like.

facts, text = inspect_log(log)          # as `foretaste inspect` prints them, and as a page: inspection.page
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from foretaste.errors import DataError
from foretaste.inspection.about import Found, environment, inspect_models, trained_facts
from foretaste.inspection.settings import inspect_model

if TYPE_CHECKING:
    from foretaste.data.events import EventLog
    from foretaste.inspection.text import Inspected

__all__ = [
    "Found",
    "environment",
    "inspect_folder",
    "inspect_log",
    "inspect_model",
    "inspect_models",
    "is_ours",
    "of_folder",
    "of_log",
    "trained_facts",
]


def is_ours(source: str) -> bool:
    """Whether this is a folder without Parquet data files of its own: one that Foretaste wrote, or should have."""
    folder = Path(source)
    written = any((folder / name).exists() for name in ("manifest.json", "recommender.json"))
    return folder.is_dir() and (written or not any(folder.glob("**/*.parquet")))


def of_log(log: EventLog, title: str = "the log") -> Inspected:
    """A raw log, taken whole."""
    from foretaste.inspection.text import Inspected

    return Inspected.of(title, log.prepare(None), {"steps": [asdict(step) for step in log.steps]}, log.report())


def of_folder(folder: Path) -> Inspected:
    """A prepared folder."""
    from foretaste.data.prepared import Prepared
    from foretaste.inspection.text import Inspected

    if not (folder / "manifest.json").exists():
        raise DataError(
            f"{folder}: neither a prepared log (manifest.json) nor a saved recommender (recommender.json), nor has it "
            "Parquet files; for CSV files give one of them, or a pattern such as '*.csv'"
        )
    prepared = Prepared.open(folder)
    return Inspected.of(folder.resolve().name, prepared, prepared.manifest, prepared.report())


def inspect_log(log: EventLog) -> Found:
    """A raw log, taken whole: what there is to say of it, and as text."""
    found = of_log(log)
    return found.as_dict(), found.text()


def inspect_folder(folder: Path) -> Found:
    """A prepared folder or a saved recommender."""
    from foretaste.models.saved import Trained

    if (folder / "recommender.json").exists():
        return trained_facts(Trained.load(folder))
    found = of_folder(folder)
    return found.as_dict(), found.text()
