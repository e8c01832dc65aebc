"""Small logs whose best possible recall is known: what must a model know to reach it?

Each log is drawn from a process with one secret (processes.py), so the law of the next item is known exactly at every
step. The best recall at k that anybody can expect (the *ceiling*) is the mean, over the test cases, of the mass of the
k likeliest items; the best of those who lack the secret (*without*) is the same mean under what they can know. No model
beats its bound by more than noise; one that learns comes near it. So a log tells what a model can learn, and what not.

    popularity   items differ in popularity, and there is nothing else to know
    last_item    each item has its own followers
    order        the last two items say what follows, but only in their order
    set          a session has a hidden topic; each item belongs to several, many items together tell it
    distant      the first event of a user decides a later one, after 30 events of noise
    returning    an interest shown long ago comes back, ten times in the thousand events of a user
    user_taste   each user has own favourites; sessions are too short to tell them
    dwell        the next item follows the latest one that was looked at long; ids do not say which that is

Recall is measured event by event over the asked events of the test part, all items ranked, none left out because it
was seen. A bigger log, with the look of a shop but no known ceiling, is `shop` (shop.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretaste.data import processes
from foretaste.data.processes import Drawn, Floats, Ints
from foretaste.data.returning import returning
from foretaste.data.sequences import PARTS, TEST, TRAIN, VALIDATION, Sequences
from foretaste.data.shop import Simulated, shop
from foretaste.errors import ConfigError, nearest

if TYPE_CHECKING:
    from foretaste.data.events import EventLog

__all__ = ["KINDS", "Kind", "KnownLog", "Simulated", "known", "shop", "top_mass"]

START = 1_704_067_200
"""2024-01-01, in seconds: the first event."""
VALIDATION_FROM = 0.6


@dataclass(frozen=True)
class Kind:
    """One kind of knowledge: the process that needs it, and sizes that a small model learns in seconds."""

    summary: str
    draw: Callable[[np.random.Generator, int, int, int, int], Drawn]
    """(rng, n_rows, length, n_items, k)"""
    n_rows: int
    length: int
    n_items: int
    k: int
    shortest: int = 2
    """The least length that leaves something to ask."""
    users: bool = False
    """Rows are users with several sessions; else each row is one anonymous session."""


KINDS: dict[str, Kind] = {
    "popularity": Kind("which items are popular", processes.popularity, 3000, 10, 100, k=10),
    "last_item": Kind("what follows the last item", processes.last_item, 4000, 10, 100, k=5),
    "order": Kind("what follows the last two items, in their order", processes.order, 6000, 10, 49, k=7, shortest=3),
    "set": Kind("what the items of the session have in common", processes.session_set, 6000, 10, 60, k=10),
    "distant": Kind("an event longer ago than a window", processes.distant, 8000, 40, 60, k=5, users=True),
    "returning": Kind("an interest of long ago", returning, 400, 1040, 80, k=5, shortest=104, users=True),
    "user_taste": Kind("what this user likes", processes.user_taste, 1000, 60, 40, k=4, users=True),
    "dwell": Kind("which item was looked at long", processes.dwell, 8000, 12, 40, k=4, shortest=4),
}
"""What there is to know, one log each: rows, events a row, items, and k."""


@dataclass(frozen=True)
class KnownLog:
    """A simulated log, what is asked of it, and the best that can be answered."""

    kind: str
    """Which knowledge it takes; a key of `KINDS`."""
    sequences: Sequences
    """All events. `part` says train or test; `target` marks the events that are asked for, in both."""
    k: int
    """Recall is measured at k."""
    ceiling: float
    """The best recall at k that a model can expect on the test cases."""
    without: Mapping[str, float]
    """The best for a model that knows no more than the key says."""
    law: Floats
    """[cases, I]: the true law of each asked test event; column c belongs to item c + 1."""
    ids: Ints
    """[I]: the raw id of item c + 1 in `log()`."""

    @property
    def asked(self) -> Ints:
        """[cases]: flat index of each asked test event, in the order of `law`."""
        return np.flatnonzero((self.sequences.part == TEST) & self.sequences.may_be_target())

    @property
    def n_items(self) -> int:
        """I."""
        return len(self.ids)

    @property
    def noise(self) -> float:
        """Standard error of a recall near the ceiling, measured on these test cases."""
        return float(np.sqrt(self.ceiling * (1 - self.ceiling) / len(self.law)))

    def log(self) -> EventLog:
        """The same events as a raw log, to be prepared like any other; its own split is train, validation, test."""
        from foretaste.data.events import EventLog

        s, n = self.sequences, np.arange(len(self.sequences))
        source: dict[str, Any] = {
            "session": np.searchsorted(s.sessions, n, side="right"),
            "item": self.ids[s.items - 1],
            "time": s.times,
            "split": np.array(PARTS)[s.part],
            "action": np.where(s.may_be_target(), "asked", "shown"),
            **s.columns,
        }
        user = "user" if KINDS[self.kind].users else None
        if user:
            source[user] = np.searchsorted(s.users, n, side="right")
        return EventLog.read(
            source, user=user, session="session", item="item", time="time", split="split", columns=tuple(s.columns),
            action="action", inputs=["shown", "asked"], targets=["asked"],
        )  # fmt: skip


def top_mass(law: Floats, k: int) -> float:
    """The best recall at k under these laws [cases, I]: the mean mass of the k likeliest items."""
    return float(np.partition(law, -k, axis=1)[:, -k:].sum(1).mean())


def known(
    kind: str,
    *,
    n_rows: int | None = None,
    length: int | None = None,
    n_items: int | None = None,
    seed: int = 0,
    validation: bool = False,
) -> KnownLog:
    """A log of this kind (a key of `KINDS`) with its ceiling; sizes left out are the kind's own.

    The last quarter of the rows is the test part (in "user_taste": the last quarter of every user's sessions). With
    `validation`, the 15 % before it are the validation part. Items are numbered by count in all before the test part.
    """
    if kind not in KINDS:
        raise ConfigError(f"simulated log '{kind}': no such kind; {nearest(kind, KINDS)}")
    of = KINDS[kind]
    n_rows = of.n_rows if n_rows is None else n_rows
    length = of.length if length is None else length
    n_items = of.n_items if n_items is None else n_items
    if n_rows < 10 or length < of.shortest or n_items <= of.k:
        raise ConfigError(
            f"simulated log '{kind}': {n_rows} rows of {length} events over {n_items} items; "
            f"it takes at least 10 rows, {of.shortest} events a row and {of.k + 1} items"
        )
    rng = np.random.default_rng([seed, *kind.encode()])
    drawn = of.draw(rng, n_rows, length, n_items, of.k)

    late = np.broadcast_to(drawn.late, (n_rows, length))
    test = late >= processes.TEST_FROM  # [R, T]
    part = np.where(test, TEST, np.where(validation & (late >= VALIDATION_FROM), VALIDATION, TRAIN))
    counts = np.bincount(drawn.items[~test], minlength=n_items)  # [I] of labels
    if not counts.all():
        raise ConfigError(
            f"simulated log '{kind}': {(counts == 0).sum()} of {n_items} items are missing in its training part; "
            f"take more than {n_rows} rows, or fewer items"
        )
    first = np.unique(drawn.items, return_index=True)[1]  # [I]
    order = np.lexsort((first, -counts))  # [I] label of item c + 1
    number = np.empty(n_items, dtype=np.int32)  # [I] of labels
    number[order] = np.arange(1, n_items + 1)
    users = np.where(test.all(1), 0, np.arange(1, n_rows + 1)) if of.users else np.zeros(n_rows)
    sequences = Sequences(
        items=number[drawn.items].ravel(),
        users=np.arange(0, n_rows * length + 1, length, dtype=np.int64),
        sessions=np.arange(0, n_rows * length + 1, drawn.session, dtype=np.int64),
        part=part.astype(np.uint8).ravel(),
        user_numbers=users.astype(np.int32),
        times=_clock(drawn),
        target=drawn.asked.ravel(),
        columns={} if drawn.dwell is None else {"dwell": drawn.dwell.ravel()},
    )
    return KnownLog(
        kind=kind,
        sequences=sequences,
        k=of.k,
        ceiling=top_mass(drawn.law, of.k),
        without={name: top_mass(law, of.k) for name, law in drawn.known.items()},
        law=drawn.law[:, order],
        ids=(rng.permutation(n_items) + 1)[order],
    )


def _clock(drawn: Drawn) -> Ints:
    """[R * T] seconds: a minute from row to row, a day from session to session, the dwell (or 30 s) inside."""
    rows, length = drawn.items.shape
    dwell = np.full((rows, length), 30, dtype=np.int64) if drawn.dwell is None else drawn.dwell
    since = np.cumsum(dwell, axis=1) - dwell  # [R, T]
    days = np.arange(length) // drawn.session  # [T]
    return (START + 60 * np.arange(rows)[:, None] + 86_400 * days + since).ravel()
