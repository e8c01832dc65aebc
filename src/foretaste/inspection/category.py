"""The categories of a log's events, where it has a column of that name: the event's own, or else its item's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.data.prepared import Prepared

CATEGORY = "category"
"""The column."""


class Category:
    """The categories of events as numbers from 1; 0 where there is none."""

    def __init__(self, of_event: NDArray[Any] | None, of_item: NDArray[np.int64] | None, coded: bool) -> None:
        self.of_event, self.of_item, self.coded = of_event, of_item, coded

    @classmethod
    def of(cls, prepared: Prepared) -> Category | None:
        """The event's column "category", else the item's, else none."""
        if CATEGORY in prepared.sequences.columns:
            return cls(
                prepared.sequences.columns[CATEGORY], None, f"values.{CATEGORY}" in prepared.manifest["vocabularies"]
            )
        if CATEGORY not in prepared.items.columns:
            return None
        numbers: dict[str, int] = {}
        raw = prepared.items.columns[CATEGORY]
        found = [0 if one is None or one != one else numbers.setdefault(str(one), len(numbers) + 1) for one in raw]
        return cls(None, np.array([0, *found], np.int64), coded=True)

    def labels(self, events: slice, items: NDArray[np.integer]) -> NDArray[np.int64]:
        """[n]: of these events."""
        if self.of_item is not None:
            found: NDArray[np.int64] = self.of_item[items]
            return found
        assert self.of_event is not None
        column = np.asarray(self.of_event[events])
        if self.coded:
            return column.astype(np.int64)
        values, place = np.unique(column, return_inverse=True)  # a number of the log's own: any, also 0
        numbers = np.where(np.isnan(values.astype(np.float64)), 0, np.arange(1, len(values) + 1))
        return np.asarray(numbers[place])

    def count(self) -> int:
        """How many there are."""
        if self.of_item is not None:
            return int(self.of_item.max(initial=0))
        found = np.unique(np.asarray(self.of_event))
        return len(found) - int(self.coded and 0 in found) - int(np.isnan(found.astype(np.float64)).sum())
