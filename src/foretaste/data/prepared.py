"""Prepared: a log that is split, numbered and laid out flat; a folder of arrays that are memory-mapped from it.

    prepared = log.prepare(GlobalTime(days=7), validation=GlobalTime(days=7), folder="shop")
    prepared = Prepared.open("shop")
    print(prepared.report())

What is counted (items, users, the values of text columns) is counted in the training and validation parts alone, unless
`candidates="all"` asks for the items of the whole log.

The folder: manifest.json, one .npy file an array of `Sequences` (items, times, users, sessions, part, user_numbers,
target, column.<name>), items.parquet, users.parquet, and values.<name>.parquet for each text column.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import numpy as np

from foretaste.data import folders, summary
from foretaste.data.preparing import FORMAT, VERSION, Candidates, Cold, lay_out
from foretaste.data.sequences import Sequences
from foretaste.data.sessions import Filters
from foretaste.data.splits import RecentPrefixes, Split
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import DataError, SavedFileError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog

MADE_BY = {
    "users": "name their column with --user (user=)",
    "times": "name their column with --time (time=)",
    "sessions": "it takes several of one user: --gap 30m or --per-day makes them (log.sessions)",
    "dwell": 'a data recipe makes it, with [sessions] add = ["dwell"]',
}
"""How a log comes to have what a model may need."""

ARRAYS = {"items": "int32", "users": "int64", "sessions": "int64", "part": "uint8", "user_numbers": "int32"}
OPTIONAL = {"times": "int64", "target": "bool"}


class Prepared:
    """A log ready for training and evaluation."""

    def __init__(
        self,
        sequences: Sequences,
        vocabularies: Mapping[str, Vocabulary],
        manifest: Mapping[str, Any],
        folder: Path | None = None,
    ) -> None:
        self.sequences = sequences
        """Every event, with its part."""
        self.manifest = dict(manifest)
        """Counts, steps, split, leaks, sources, versions: everything that the report says, as plain values."""
        self.folder = folder
        """Where it was opened from; the vocabularies are read from there when they are first asked for."""
        self._vocabularies = dict(vocabularies)

    @property
    def items(self) -> Vocabulary:
        """Item numbers and raw ids, with what the log knows of each item."""
        return self._vocabulary("items")

    @property
    def users(self) -> Vocabulary | None:
        """User numbers and raw ids of those who occur in training or validation; None if the log has no users."""
        return self._vocabulary("users") if "users" in self.manifest["vocabularies"] else None

    def values(self, column: str) -> Vocabulary:
        """What the numbers in a text column stand for."""
        if f"values.{column}" not in self.manifest["vocabularies"]:
            raise DataError(f"column '{column}' has no list of values; it is not a text column of this log")
        return self._vocabulary(f"values.{column}")

    def _vocabulary(self, name: str) -> Vocabulary:
        if name not in self._vocabularies:
            assert self.folder is not None
            found = Vocabulary.read(self.folder / _parquet(name))
            if len(found) != self.manifest["vocabularies"][name]:
                raise SavedFileError(f"{self.folder / _parquet(name)}: has {len(found)} ids; prepare the log again")
            self._vocabularies[name] = found
        return self._vocabularies[name]

    @property
    def offers(self) -> frozenset[str]:
        """What a model may need and this log has: any of "users", "times", "sessions", "dwell"."""
        log, users = self.sequences, "users" in self.manifest["vocabularies"]
        has = {
            "users": users,
            "times": log.times is not None,
            "sessions": log.n_sessions > log.n_users or not users,
            "dwell": "dwell" in log.columns,
        }
        return frozenset(name for name, there in has.items() if there)

    def part(self, *parts: int) -> Sequences:
        """Only the events of these parts: `prepared.part(TRAIN, VALIDATION)`."""
        return self.sequences.of_part(*parts)

    def report(self) -> str:
        """What each step removed, what each part holds, what the split leaks, what is cold: a text."""
        return summary.report(self.manifest)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {of['events']:,}" for name, of in self.manifest["counts"].items())
        return f"Prepared({counts} events; {self.manifest['items']:,} items)"

    def save(self, folder: str | Path) -> Path:
        """Write the folder: whole, or not at all. An earlier prepared log in this place is replaced."""
        folder = Path(folder)
        with folders.written_whole(folder) as made:
            for name in (*ARRAYS, *OPTIONAL):
                if (array := getattr(self.sequences, name)) is not None:
                    folders.write_array(made, name, array)
            for name, array in self.sequences.columns.items():
                folders.write_array(made, _column(name), array)
            for name in self.manifest["vocabularies"]:
                self._vocabulary(name).write(made / _parquet(name))
            folders.write_manifest(made, self.manifest)
        return folder

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> Self:
        """A folder that was saved, memory-mapped. `verify` compares the checksums of large files too."""
        folder = Path(folder)
        if folder.is_file():
            raise SavedFileError(
                f"{folder}: a file, and no prepared log; make one of it with `foretaste prepare {folder} --out FOLDER` "
                "and its columns, and give that folder"
            )
        manifest = folders.read_manifest(folder, FORMAT, VERSION, verify=verify)
        manifest.pop("files")
        n = manifest["counts"]["all"]["events"]
        lengths = {"items": n, "part": n, "times": n, "target": n}
        arrays = {
            name: folders.read_array(folder, name, kind, lengths.get(name))
            for name, kind in (ARRAYS | OPTIONAL).items()
            if name in ARRAYS or name in manifest["arrays"]
        }
        columns = {name: folders.read_array(folder, _column(name), None, n) for name in manifest["columns"]}
        sequences = Sequences(**arrays, columns=columns)
        _check_offsets(folder, sequences)
        return cls(sequences, {}, manifest, folder)


def prepare(
    log: EventLog,
    split: Split | None = None,
    validation: Split | None = None,
    *,
    filters: Filters | None = None,
    recent: RecentPrefixes | None = None,
    candidates: Candidates = "train",
    cold: Cold = "miss",
    folder: str | Path | None = None,
) -> Prepared:
    """Split a log, number its items, and lay it out flat.

    `split`: which events are test; None keeps no test part (training for production).
    `validation`: which of the rest are for choosing; a split of any kind, applied to the training part alone.
    `filters`: what is too rare *in the training part* goes from it; the test part stays as it is. (`log.filter` counts
    over the whole log.)
    `recent`: keep only the newest training prefixes; after `cold="drop"`, as NARM's authors do.
    `candidates`: items are numbered by falling count in training and validation, ties by first occurrence in the log;
    "all" numbers what else the log has after them, by first occurrence.
    `cold`: test events whose item is in no training or validation event stay as item 0 ("miss"), or go ("drop"), and
    with them what is left of a user, or of a session without a user, that has fewer than 2 events then.
    `folder`: save there, and return the memory-mapped folder.
    """
    prepared = Prepared(*lay_out(log, split, validation, filters, recent, candidates, cold))
    return prepared if folder is None else Prepared.open(prepared.save(folder))


def _column(name: str) -> str:
    return f"column.{quote(name, safe='')}"


def _parquet(vocabulary: str) -> str:
    return f"{quote(vocabulary, safe='')}.parquet"


def _check_offsets(folder: Path, sequences: Sequences) -> None:
    for name in ("users", "sessions"):
        offsets = getattr(sequences, name)
        sane = len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(sequences) and (np.diff(offsets) > 0).all()
        if not sane:
            raise SavedFileError(f"{folder / name}.npy: its offsets do not cover the {len(sequences)} events in order")
    place = np.searchsorted(sequences.sessions, sequences.users)
    if not np.array_equal(sequences.sessions[place], sequences.users):
        raise SavedFileError(f"{folder / 'users'}.npy: a user begins inside a session; prepare the log again")
    if len(sequences.user_numbers) != sequences.n_users:
        found, expected = len(sequences.user_numbers), sequences.n_users
        raise SavedFileError(f"{folder / 'user_numbers'}.npy: has {found} users, expected {expected}")
