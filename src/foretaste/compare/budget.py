"""Where a row's budget may have been too small: its choice stands at the end of what could be chosen.

A row that took the last pass, or the largest rate, might have taken more of it; one that was at its best after a pass
or two may never have begun to learn. A reader who compares it with the others has to know, so the table says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foretaste.compare.summary import Summary

FEW = 2
"""At its best after so few passes, a row has hardly learned."""


def at_the_end(summary: Summary) -> Iterator[str]:
    """A sentence that names such rows, if there are any."""
    said: dict[str, list[str]] = {}
    for line in summary.lines:
        listed = bool(summary.grid.row(line.name).tries)
        for what in _ends(line.cells, listed) if line.cells else ():
            said.setdefault(what, []).append(line.name)
    if said:
        parts = "; ".join(f"{what}: {', '.join(names)}" for what, names in said.items())
        yield f"Chosen at an end of what was allowed, beyond which nothing was tried. {parts[0].upper()}{parts[1:]}."
    if early := [
        line.name for line in summary.lines if any(one <= FEW < allowed for one, allowed in _judged(line.cells))
    ]:
        yield f"At its best after {FEW} passes or fewer, so it has hardly learned: {', '.join(early)}."


def _judged(cells: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """The passes of each seed and those allowed, where the rate is constant: a falling one is best at its end."""
    made = [(one["passes"], one["training"]) for one in cells if one["passes"]]
    return [(passes, training["epochs"]) for passes, training in made if training["schedule"] == "constant"]


def _ends(cells: Sequence[Mapping[str, Any]], listed: bool) -> Iterator[str]:
    """Of one row: the passes of every seed; and what the first chose for all, where what to try was `listed` (a search
    draws from a space that is wide anyway, and the best of a few draws is often the largest)."""
    if any(passes >= allowed for passes, allowed in _judged(cells)):
        yield "the last pass (epochs)"
    cell = cells[0]
    alike = [trial for trial in cell["tried"] if listed and _words(trial["change"]) == _words(cell["chosen"])]
    for name, value in cell["chosen"].items():
        values = sorted({trial["change"].get(name) for trial in alike if _number(trial["change"].get(name))})
        if not _number(value) or len(values) < 2:
            continue
        if value == values[-1]:
            yield f"the largest {name}" if len(values) > 2 else f"the larger of two {name}"
        elif value == values[0] and value not in (0, 1):  # there is nothing below them
            yield f"the least {name}" if len(values) > 2 else f"the smaller of two {name}"


def _words(change: Mapping[str, Any]) -> dict[str, Any]:
    """What is no number: a rate of one optimiser says nothing of another's."""
    return {name: value for name, value in change.items() if not _number(value)}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
