"""Finding items by a piece of their id or title: one long text, searched at the speed of memory."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from foretaste.data.vocabulary import Vocabulary


class Search:
    """All ids and titles of a vocabulary, as one text with a line an item."""

    def __init__(self, items: Vocabulary) -> None:
        titles = items.columns.get("title", [None] * len(items))
        self.ids = items.ids
        self.starts: list[int] = []
        lines, place = [], 0
        for raw, title in zip(items.ids, titles, strict=True):
            line = f"{_plain(raw)}\t{'' if title is None else _plain(title)}\n"
            lines.append(line)
            self.starts.append(place)
            place += len(line)
        self.text = "".join(lines)

    def find(self, query: str, k: int) -> list[Any]:
        """The first `k` items that hold the query, upper and lower case alike; first those whose id it is."""
        wanted = _plain(query)
        if not wanted:
            return self.ids[:k]
        exact = self._lines(f"\n{wanted}\t", k, before=1)
        if self.text.startswith(f"{wanted}\t"):
            exact.insert(0, 0)
        others = [line for line in self._lines(wanted, k + len(exact)) if line not in exact]
        return [self.ids[line] for line in [*exact, *others][:k]]

    def _lines(self, wanted: str, count: int, before: int = 0) -> list[int]:
        """The first lines with this text in them, which begins `before` characters before its line."""
        found: list[int] = []
        place = self.text.find(wanted)
        while place >= 0 and len(found) < count:
            line = bisect_right(self.starts, place + before) - 1
            found.append(line)
            end = self.starts[line + 1] if line + 1 < len(self.starts) else len(self.text)
            place = self.text.find(wanted, end - before)
        return found


def _plain(value: Any) -> str:
    """On one line, without tabs, in one case."""
    return " ".join(str(value).casefold().split())
