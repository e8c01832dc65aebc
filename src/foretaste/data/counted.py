"""Counts of a prepared data set: what came out, what its recipe expects, and what a paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from foretaste.config import Config
from foretaste.data.events import EventLog
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TRAIN, VALIDATION


class Size(Config):
    """How large something is; what is not said is not compared."""

    events: int | None = None
    users: int | None = None
    sessions: int | None = None
    items: int | None = None
    prefixes: int | None = None
    """Events that have another before them in their session."""


class Counts(Config):
    """Sizes along the way of the data."""

    read: Size = Size()
    """The source, before any row is left out."""
    log: Size = Size()
    """After the steps on the whole log, before the split."""
    training: Size = Size()
    """Training and validation together, which is what a paper calls its training set."""
    validation: Size = Size()
    test: Size = Size()
    all: Size = Size()
    """Training, validation and test together."""

    def flat(self) -> dict[str, int]:
        """{"training.events": 12, ...}, what is said alone."""
        stages = {stage: getattr(self, stage) for stage in Counts.model_fields}
        return {f"{stage}.{kind}": n for stage, size in stages.items() for kind, n in size if n is not None}


class Published(Counts):
    """What a paper prints."""

    source: str
    """Which paper, which table."""
    why: dict[str, str] = Field(default_factory=dict)
    """{"all.items": a sentence}: why our count is another."""


def measured(log: EventLog, prepared: Prepared) -> Counts:
    """The sizes of a log before and after it was prepared."""
    parts: dict[str, dict[str, int]] = prepared.manifest["counts"]
    known = prepared.part(TRAIN, VALIDATION)
    training = {
        "events": len(known),
        "users": int((known.user_numbers > 0).sum()),
        "sessions": known.n_sessions if "sessions" in prepared.manifest["has"] else 0,
        "items": int((np.bincount(known.items)[1:] > 0).sum()),
        "prefixes": parts["train"]["prefixes"] + parts["validation"]["prefixes"],
    }
    return Counts(
        read=_size(log.steps[0]),
        log=_size(log.steps[-1]),
        training=Size(**training),
        validation=Size(**parts["validation"]),
        test=Size(**parts["test"]),
        all=Size(**parts["all"]),
    )


def _size(step: Any) -> Size:
    return Size(events=step.events, users=step.users, sessions=step.sessions, items=step.items)


def compared(here: Counts, ours: Counts, published: Published | None) -> list[str]:
    """Lines of a table of all that is expected or published, and a sentence for each count that is another."""
    counted, expected = here.flat(), ours.flat()
    printed = published.flat() if published else {}
    names = [name for name in counted if name in expected or name in printed]
    lines = _table(("here", "recipe", "published"), names, (counted, expected, printed)) if names else []
    if published:
        lines.append(f"Published: {published.source}.")
    for name in names:
        if name in expected and counted[name] != expected[name]:
            lines.append(
                f"{_words(name)}: {counted[name]:,} here, {expected[name]:,} in the recipe: these are not the files "
                "that it was written for."
            )
        if name in printed and counted[name] != printed[name]:
            why = published.why.get(name) if published else None
            why = why or "no reason is known, unless these files are only a part of that data set."
            lines.append(f"{_words(name)}: {counted[name]:,} here, {printed[name]:,} published: {why}")
    return lines


def promised(ours: Counts, published: Published | None) -> list[str]:
    """Lines of a table of what a recipe expects and a paper prints, and why they differ, before a file is read."""
    expected, printed = ours.flat(), published.flat() if published else {}
    every = (f"{stage}.{kind}" for stage in Counts.model_fields for kind in Size.model_fields)
    names = [name for name in every if name in expected or name in printed]
    lines = _table(("recipe", "published"), names, (expected, printed)) if names else []
    if published:
        lines.append(f"Published: {published.source}.")
        lines += [f"{_words(name)}: {why}" for name, why in published.why.items()]
    return lines


def _table(heads: Sequence[str], names: Sequence[str], columns: Sequence[Mapping[str, int]]) -> list[str]:
    """A line a count; a dash where a column does not have it."""
    rows = [["", *heads], *([_words(name), *(_number(of.get(name)) for of in columns)] for name in names)]
    wide = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(wide[0]), *(row[k].rjust(wide[k]) for k in range(1, len(wide)))]) for row in rows]


def _words(name: str) -> str:
    stage, kind = name.split(".")
    return f"{stage} {kind}"


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
