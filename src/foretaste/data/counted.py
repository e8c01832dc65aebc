"""Counts of a prepared data set: what came out, what its recipe expects, and what a paper prints."""

from __future__ import annotations

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
    rows = [[_words(name), *(_number(of.get(name)) for of in (counted, expected, printed))] for name in names]
    rows.insert(0, ["", "here", "recipe", "published"])
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(row[k].rjust(widths[k]) for k in (1, 2, 3))]) for row in rows]
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


def _words(name: str) -> str:
    stage, kind = name.split(".")
    return f"{stage} {kind}"


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
