"""What the caller of `EventLog.read` named, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretaste.data.cells import as_word
from foretaste.errors import DataError

CANONICAL = ("row", "user", "session", "item", "time", "position", "session_order", "part", "target")
"""The log's own columns, in their order."""


@dataclass(frozen=True)
class Asked:
    """Columns, actions, and what to leave out."""

    item: str
    user: str | None = None
    session: str | None = None
    time: str | None = None
    order: str | None = None
    session_order: str | None = None
    split: str | None = None
    action: str | None = None
    inputs: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    drop: Mapping[str, object] | None = None
    """Column: condition."""
    columns: Mapping[str, str] | None = None
    """Our name: the source's name."""
    item_columns: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.item is None:
            raise DataError("name the column of items (item=)")
        for role in ("user", "session", "time", "order"):
            if getattr(self, role) == self.item:
                raise DataError(f"column '{self.item}' is named as the item and as the {role}; name the column of each")
        if self.user is None and self.session is None:
            raise DataError("name the column of users (user=, --user) or of sessions (session=, --session), or both")
        if self.time is None and self.order is None:
            raise DataError("name the column of times (time=, --time) or of positions in the order (order=, --order)")
        if self.action is None and (self.inputs is not None or self.targets is not None):
            raise DataError("inputs= and targets= are values of the action: name its column (action=)")
        if self.action is not None and not (self.inputs or self.targets):
            raise DataError(f"action={self.action!r}: say which of its values are inputs= and which are targets=")
        for argument, own in (("columns", CANONICAL), ("item_columns", ("item",))):
            taken = set(own)
            for ours, column in (getattr(self, argument) or {}).items():
                if ours.lower() in taken:
                    whose = "one of the log's own columns" if ours.lower() in own else "another, but for its case"
                    raise DataError(
                        f"{argument}=: '{ours}' is the name of {whose}; give another, such as "
                        f"{argument}={{'raw_{ours}': '{column}'}}"
                    )
                taken.add(ours.lower())

    def named(self) -> list[tuple[str, str]]:
        """(argument, column) for every column that was named."""
        single = ("item", "user", "session", "time", "order", "session_order", "split", "action")
        pairs = [(argument, getattr(self, argument)) for argument in single]
        pairs += [("drop", column) for column in self.drop or {}]
        pairs += [("columns", column) for column in (self.columns or {}).values()]
        pairs += [("item_columns", column) for column in (self.item_columns or {}).values()]
        return [(argument, column) for argument, column in pairs if column is not None]

    def recorded(self) -> dict[str, object]:
        """What was asked for, for the manifest."""
        return {field: value for field, value in vars(self).items() if value}

    def has(self) -> frozenset[str]:
        """What the log then has, in the words of `EventLog.has`."""
        given = {
            "users": self.user,
            "sessions": self.session,
            "times": self.time,
            "order": self.order,
            "session_order": self.session_order,
            "split": self.split,
            "targets": self.targets,
        }
        return frozenset(word for word, argument in given.items() if argument is not None)


def texts(argument: str, values: Any) -> tuple[str, ...] | None:
    """Values of an action as texts; one value may be given without a list."""
    if values is None:
        return None
    several = [values] if isinstance(values, str | int | float | np.generic) else list(values)
    if not several:
        raise DataError(f"{argument}=: the list is empty; name at least one value of the action")
    return tuple(map(as_word, several))


def renamed(columns: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Columns as {our name: the source's name}; a list keeps the source's names, one text is one column."""
    if isinstance(columns, Mapping):
        return dict(columns)
    return {column: column for column in ([columns] if isinstance(columns, str) else columns)}
