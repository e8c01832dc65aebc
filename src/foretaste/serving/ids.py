"""Ids as they travel: text or whole numbers outside, whatever the log had inside.

JSON and a URL know text and numbers, and a log may have had integers, text, dates or UUIDs. What is sent means the id
that is written the same way: "7" is the item 7 of a log whose ids are integers, and 7 is "7" where they are text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from math import isfinite
from typing import Any

from pydantic_core import to_json

from foretaste.data.vocabulary import Vocabulary
from foretaste.serving.asks import Id

LONGEST = 256
"""Characters of an id."""
WHOLE = 2**63
"""Whole numbers lie in -WHOLE .. WHOLE - 1; a longer one is an id as text."""


def checked(value: Any) -> Id:
    """The value, if it can be an id."""
    kind = type(value)
    if kind is str:
        if 0 < len(value) <= LONGEST:
            return value  # type: ignore[no-any-return]
        raise ValueError(f"an id of {len(value):,} characters; expected 1 to {LONGEST}")
    if kind is int:
        if -WHOLE <= value < WHOLE:
            return value  # type: ignore[no-any-return]
        raise ValueError("a number outside 64 bits; write such an id as text")
    raise ValueError("expected an id: text or a whole number")


def sent(raw: Any) -> Id:
    """A raw id as JSON can carry it."""
    return raw if type(raw) in (str, int) else str(raw)


class Names:
    """The ids of a vocabulary under every name they may be sent by, and their titles."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self.vocabulary = Vocabulary([]) if vocabulary is None else vocabulary
        self.titles = self.vocabulary.columns.get("title")
        kinds = {type(raw) for raw in self.vocabulary.ids}
        self.whole = kinds == {int}
        self.text = kinds <= {str}
        self._texts: dict[Any, str] = {}

    def meant(self, given: Id) -> Any:
        """The raw id of the vocabulary that is meant, or what was given where it means none."""
        if self.text:
            return str(given)
        if self.whole:
            number = type(given) is str and len(given) <= LONGEST and given.removeprefix("-").isdecimal()
            if number and str(int(given)) == given:
                return int(given)
            return given
        return self._written.get(str(given), given)

    def all_meant(self, given: Iterable[Id]) -> list[Any]:
        """`meant` for each."""
        return [self.meant(one) for one in given]

    def knows(self, given: Id) -> bool:
        """Whether it means an id of the vocabulary."""
        return self.meant(given) in self.vocabulary

    def shown(self, raw: Any, **more: Any) -> dict[str, Any]:
        """An item as the answers show it: its id, `more`, and its title where the log had one."""
        out = {"item": sent(raw), **more}
        if self.titles is not None and (number := self.vocabulary.number(raw)):
            title = self.titles[number - 1]
            if title is not None:
                out["title"] = str(title)
        return out

    def listed(self, found: Iterable[tuple[Any, float]]) -> bytes:
        """Items with their scores, the best first, as a JSON list of what `shown` gives.

        Each item's text is made once: a list is written a thousand times a second.
        """
        texts = self._texts
        lines = []
        for raw, score in found:
            text = texts.get(raw)
            if text is None:
                text = texts[raw] = to_json(self.shown(raw)).decode()[:-1]
            lines.append(f'{text},"score":{score!r}}}' if isfinite(score) else f'{text},"score":null}}')
        return f"[{','.join(lines)}]".encode()

    @cached_property
    def _written(self) -> Mapping[str, Any]:
        return {str(raw): raw for raw in self.vocabulary.ids}
