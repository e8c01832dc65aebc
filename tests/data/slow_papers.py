"""What the papers do to their raw logs, in plain loops over raw ids: slow versions that the recipes are held against.

Written anew from the papers and, for NARM, from the description of its published preprocessing.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from foretaste.data.prepared import Prepared

Click = tuple[int, int, int, int]
"""Session, item, moment in ms, place in its session's order."""
Rating = tuple[Any, Any, Any]
"""User, item, seconds."""
Lists = list[list[Any]]
Look = list[tuple[Any, int, float, float]]
"""Item, time, seconds since the event before and until the next: the events of a session."""
HOUR = 3600
DAY = 86_400_000


def millis(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def query(sql: str) -> list[tuple[Any, ...]]:
    return duckdb.connect().execute(sql).fetchall()


def lists(prepared: Prepared, *parts: int, by: str = "session") -> Lists:
    """The raw items of each session or user of these parts, in order; None for a cold item."""
    log = prepared.part(*parts)
    raw = [None, *prepared.items.ids]
    offsets = log.offsets(by)  # type: ignore[arg-type]
    return [[raw[n] for n in log.items[a:b].tolist()] for a, b in itertools.pairwise(offsets.tolist())]


def by_user(prepared: Prepared, *parts: int) -> dict[Any, list[Any]]:
    """The raw items of each user in these parts."""
    log = prepared.part(*parts)
    assert prepared.users is not None
    names = [prepared.users.ids[n - 1] for n in log.user_numbers.tolist()]
    return dict(zip(names, lists(prepared, *parts, by="user"), strict=True))


def written(path: Path, rows: Iterable[Sequence[Any]], cut: str = ",", head: str = "") -> Path:
    lines = [cut.join(map(str, row)) for row in rows]
    path.write_text("\n".join([*([head] if head else []), *lines, ""]), encoding="utf-8")
    return path


def narm(clicks: Sequence[Click], share: float, test_from: int, skip: range = range(0)) -> tuple[Lists, Lists]:
    """Training and test lists of items, sessions in the order of their end; None is an item that training lacks.

    `test_from`: a session that ends at this moment or later is test; one that ends in `skip` is in no part.
    """
    sessions: dict[int, list[Click]] = {}
    for click in clicks:
        sessions.setdefault(click[0], []).append(click)
    ends = {name: max(click[2] for click in found) for name, found in sessions.items()}
    items = {
        name: [click[1] for click in sorted(found, key=lambda click: click[3])]
        for name, found in sessions.items()
        if len(found) > 1
    }
    support = Counter(item for found in items.values() for item in found)
    items = {name: [item for item in found if support[item] >= 5] for name, found in items.items()}
    order = sorted((name for name in items if len(items[name]) > 1 and ends[name] not in skip), key=lambda n: ends[n])
    train = [items[name] for name in order if ends[name] < test_from]
    known = {item for found in train for item in found}
    test = [[item for item in items[name] if item in known] for name in order if ends[name] >= test_from]
    kept = cut(train, share)
    known = {item for found in kept for item in found}
    return kept, [[item if item in known else None for item in found] for found in test if len(found) > 1]


def cut(train: list[list[int]], share: float) -> Lists:
    """The newest prefixes: every prefix of every session is listed, a session's longest first, and the end is kept."""
    prefixes = [(k, length) for k, found in enumerate(train) for length in range(len(found), 1, -1)]
    longest: dict[int, int] = {}
    for k, length in prefixes[len(prefixes) - int(len(prefixes) * share) :]:
        longest[k] = max(longest.get(k, 0), length)
    return [list(train[k][:length]) for k, length in longest.items()]


def histories(rows: Sequence[Rating]) -> dict[Any, list[Rating]]:
    """Of each user, by time; ties in the order of the file."""
    found: dict[Any, list[Rating]] = {}
    for row in sorted(rows, key=lambda row: row[2]):
        found.setdefault(row[0], []).append(row)
    return found


def lsamn(rows: Sequence[Rating]) -> dict[Any, list[list[Any]]]:
    """The day sessions of each user that is left."""
    buyers = Counter(item for _, item in {row[:2] for row in rows})
    rows = [row for row in rows if buyers[row[1]] >= 10]
    kept = {}
    for user, found in histories(rows).items():
        days = [[item for _, item, _ in day] for _, day in itertools.groupby(found, key=lambda row: row[2] // 86400)]
        if len(found) >= 10 and len(days) >= 3:
            kept[user] = days
    return kept


def rum(rows: Sequence[Rating]) -> tuple[dict[Any, list[Any]], dict[Any, list[Any]]]:
    """Training and test items of users with ten ratings or more."""
    train, test = {}, {}
    for user, found in histories(rows).items():
        if len(found) >= 10:
            size = len(found) * 7 // 10 + 1
            train[user], test[user] = [row[1] for row in found[:size]], [row[1] for row in found[size:]]
    return train, {user: items for user, items in test.items() if items}


def asars(owners: dict[Any, list[Rating]], supports: tuple[int, int, int]) -> dict[Any, list[Look]]:
    """Sessions of each owner after the filters; the last event of each session goes, for it has no dwell."""
    least_session, least_item, least_user = supports
    found: dict[Any, list[Look]] = {}
    for owner, rows in owners.items():
        pieces: list[list[Rating]] = [[rows[0]]]
        for before, row in itertools.pairwise(rows):
            if least_user and row[2] - before[2] > HOUR:
                pieces.append([])
            pieces[-1].append(row)
        found[owner] = [
            [
                (row[1], row[2], row[2] - before[2], after[2] - row[2])
                for before, row, after in zip([piece[0], *piece], piece, piece[1:], strict=False)
            ]
            for piece in pieces
            if len(piece) > 1
        ]
    support = Counter(event[0] for looks in found.values() for look in looks for event in look)
    for owner, looks in found.items():
        kept = [[event for event in look if support[event[0]] >= least_item] for look in looks]
        found[owner] = [look for look in kept if len(look) >= least_session]
    return {owner: looks for owner, looks in found.items() if looks and len(looks) >= least_user}
