"""Where the records of users are kept: one small interface, three homes (memory, an embedded folder, a Redis server).

A record is bytes that the store does not look into. Whoever changes one says which version it was made from, and loses
(`write` gives False) if somebody else was faster: two replicas never lose an update. A version is 8 random bytes, new
at every write, so a user who was forgotten and came back is never mistaken for the one before.

Beside its record a user may have a `base`: a second value, large and rarely written (the state before the oldest event
that the record keeps), replaced in the same step or left as it is.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = b""
"""The version of a user who has no record."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was read."""

    version: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A record to write, if the user's version is still the one it was made from."""

    user: str
    version: bytes
    """The version that was read, `ABSENT` for a new user."""
    record: bytes
    base: bytes | None = None
    """A new base; None leaves it as it is, b"" removes it."""


@dataclass(frozen=True, slots=True)
class Whole:
    """All that the store has of one user, for export and import."""

    user: str
    record: bytes
    base: bytes
    touched: int
    """When it was last written, seconds since 1970."""


class Store(ABC):
    """Records by user. Every method may be called from any thread, and from several processes where the home allows."""

    @abstractmethod
    def claim(self, facts: dict[str, Any], *, replace: bool = False) -> dict[str, Any]:
        """What the store says of itself: `facts` if it is new (they are written then), else what was written before.

        `replace` writes `facts` anyway, and gives what was there before (or `facts`).
        """

    @abstractmethod
    def read(self, users: Sequence[str]) -> list[Stored | None]:
        """The records of some users, None for one who has none; `DamagedRecordError` names one that is damaged."""

    @abstractmethod
    def read_base(self, user: str) -> bytes:
        """The user's base, b"" for none."""

    @abstractmethod
    def write(self, changes: Sequence[Change]) -> list[bool]:
        """Write each record whose version still holds, all in one step; False for the others.

        When it returns, what was written survives as the store promises (see its `durability`). No user twice. After a
        `StoreError` nothing is promised: a server that broke off may have written all the same, so read again.
        """

    @abstractmethod
    def delete(self, user: str) -> bool:
        """Forget a user; False if there was nothing to forget."""

    @abstractmethod
    def everyone(self) -> Iterator[Whole]:
        """All users, in no order; what is written meanwhile may or may not be seen."""

    @abstractmethod
    def put(self, whole: Whole) -> None:
        """Write a user as exported, whatever was there."""

    def put_all(self, wholes: Iterable[Whole]) -> None:
        """Write some users as exported; a home that can do it in fewer steps does."""
        for whole in wholes:
            self.put(whole)

    @abstractmethod
    def sweep(self, older_than: float) -> int:
        """Forget users whose record was last written before this time; gives how many."""

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """Users, bytes, and what else the home can say of its size."""

    def ping(self) -> None:
        """Raises `StoreError` if the store cannot be used now."""
        self.read(["-"])

    @abstractmethod
    def close(self) -> None:
        """Make what was written durable, and let go."""


class MemoryStore(Store):
    """In this process only, gone with it: for tests and for trying out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {}
        self._users: dict[str, tuple[bytes, bytes, bytes, int]] = {}

    def claim(self, facts: dict[str, Any], *, replace: bool = False) -> dict[str, Any]:
        """See `Store`."""
        before = self._facts or facts
        if replace or not self._facts:
            self._facts = dict(facts)
        return before

    def read(self, users: Sequence[str]) -> list[Stored | None]:
        """See `Store`."""
        found = [self._users.get(user) for user in users]
        return [None if one is None else Stored(one[0], one[1]) for one in found]

    def read_base(self, user: str) -> bytes:
        """See `Store`."""
        found = self._users.get(user)  # once: a sweep in another thread may come between two looks
        return b"" if found is None else found[2]

    def write(self, changes: Sequence[Change]) -> list[bool]:
        """See `Store`."""
        done, now = [], int(time.time())
        with self._lock:
            for change in changes:
                before = self._users.get(change.user, (ABSENT, b"", b"", 0))
                done.append(before[0] == change.version)
                if done[-1]:
                    base = before[2] if change.base is None else change.base
                    self._users[change.user] = (os.urandom(8), change.record, base, now)
        return done

    def delete(self, user: str) -> bool:
        """See `Store`."""
        with self._lock:
            return self._users.pop(user, None) is not None

    def everyone(self) -> Iterator[Whole]:
        """See `Store`."""
        for user, (_, record, base, touched) in list(self._users.items()):
            yield Whole(user, record, base, touched)

    def put(self, whole: Whole) -> None:
        """See `Store`."""
        with self._lock:
            self._users[whole.user] = (os.urandom(8), whole.record, whole.base, whole.touched)

    def sweep(self, older_than: float) -> int:
        """See `Store`."""
        with self._lock:
            old = [user for user, one in self._users.items() if one[3] < older_than]
            for user in old:
                del self._users[user]
        return len(old)

    def close(self) -> None:
        """Nothing is kept."""

    def report(self) -> dict[str, Any]:
        """See `Store`."""
        every = list(self._users.values())
        return {"home": "memory", "users": len(every), "bytes": sum(len(one[1]) + len(one[2]) for one in every)}
