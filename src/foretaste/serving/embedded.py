"""Records in one folder of this machine, without a server: LMDB, opened by several worker processes at once.

Each process opens the folder itself, after a fork if there is one. The disk must be local: LMDB does not work over NFS.
Readers never wait; writers of all processes take turns, and a batch of changes is one transaction, all or nothing.

Durability, to be chosen by whoever runs it:

- "process" (default): a write is with the operating system when it returns, and on the disk within a second. A killed
  process loses nothing that was acknowledged. A power cut loses up to the last second, and on a file system that puts
  writes on the disk in another order it may leave the file unreadable: keep exports.
- "power": a write is on the disk when it returns, in an order that a power cut cannot break. Each batch costs two waits
  for the disk.

The bytes of a forgotten user are free, not wiped: they go when their page is written again, or with `compact`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from foretaste.errors import StoreError
from foretaste.serving import folder as place
from foretaste.serving.store import ABSENT, Change, Store, Stored, Whole
from foretaste.serving.values import (
    VERSION,
    Bytes,
    damaged,
    key_of,
    name_of,
    pack,
    pack_base,
    payload_of,
    record_of,
    touched_at,
    unpack,
    unpack_base,
)

Durability = Literal["process", "power"]
MAP_SIZE = 2**40 if sys.maxsize > 2**32 else 2**30
"""Bytes that the file may grow to; they are addresses, not memory, and no disk is taken before it is written."""
SLICE = 500
"""Users of one transaction of a sweep or an export, so that nobody waits for the whole."""


class EmbeddedStore(Store):
    """A folder of records. `create=False` refuses a folder that has none yet."""

    def __init__(
        self,
        folder: str | Path,
        durability: Durability = "process",
        *,
        map_size: int = MAP_SIZE,
        create: bool = True,
        sync_every: float = 1.0,
    ) -> None:
        self.folder, self.durability, self.map_size = Path(folder), durability, map_size
        self._process, self._calls, self._open = os.getpid(), threading.Condition(), True
        self._at_work, self._failed, self._refused = 0, "", 0
        self._dirty, self._stop = threading.Event(), threading.Event()
        self._lock = place.occupy(self.folder, create)
        try:
            self._env, self._tables = place.open_tables(self.folder, map_size, durable=durability == "power")
        except BaseException:
            place.leave(self._lock)
            raise
        self._syncing = threading.Thread(target=self._sync, args=(sync_every,), name="store-sync", daemon=True)
        if durability == "process":
            self._syncing.start()

    def claim(self, facts: dict[str, Any], *, replace: bool = False) -> dict[str, Any]:
        """See `Store`."""
        with self._transaction(facts != {}) as step:
            said = step.get(place.FACTS, db=self._tables.about)
            before: dict[str, Any] = json.loads(bytes(said)) if said else {}
            if facts and (replace or not before):
                step.put(place.FACTS, json.dumps(facts).encode(), db=self._tables.about)
        return before or facts

    def read(self, users: Sequence[str]) -> list[Stored | None]:
        """See `Store`."""
        found: list[Stored | None] = []
        with self._transaction() as step:
            for user in users:
                key = key_of(user)
                value = step.get(key, db=self._tables.records)
                if value is None:
                    found.append(None)
                    continue
                version, _, record = self._unpack(key, user, value)
                found.append(Stored(version, record))
        return found

    def read_base(self, user: str) -> bytes:
        """See `Store`."""
        with self._transaction() as step:
            return self._base(step, key_of(user), user)

    def write(self, changes: Sequence[Change]) -> list[bool]:
        """See `Store`."""
        if not changes:
            return []
        ready = [self._ready(change.user, time.time(), change.record, change.base) for change in changes]
        done = []
        with self._transaction(True, ready) as step:
            for change, (key, value, base) in zip(changes, ready, strict=True):
                before = step.get(key, db=self._tables.records)
                done.append((ABSENT if before is None else bytes(before[:VERSION])) == change.version)
                if done[-1]:
                    self._put(step, key, value, base)
        return done

    def delete(self, user: str) -> bool:
        """See `Store`."""
        with self._transaction(True) as step:
            return self._delete(step, key_of(user))

    def everyone(self) -> Iterator[Whole]:
        """See `Store`."""
        for keys in self._slices():
            found = []
            with self._transaction() as step:
                for key in keys:
                    value = step.get(key, db=self._tables.records)
                    if value is not None:
                        user = name_of(key, value)
                        _, touched, record = self._unpack(key, user, value)
                        found.append(Whole(user, record, self._base(step, key, user), touched))
            yield from found

    def put(self, whole: Whole) -> None:
        """See `Store`."""
        self.put_all([whole])

    def put_all(self, wholes: Iterable[Whole]) -> None:
        """See `Store`."""
        ready = [self._ready(whole.user, whole.touched, whole.record, whole.base) for whole in wholes]
        with self._transaction(True, ready) as step:
            for key, value, base in ready:
                self._put(step, key, value, base)

    def sweep(self, older_than: float) -> int:
        """See `Store`. Writers get their turn between slices of some hundred users."""
        gone = 0
        for old in self._slices(older_than):
            if old:
                with self._transaction(True) as step:
                    for key in old:
                        value = step.get(key, db=self._tables.records)  # again: it may have been written since
                        if value is not None and touched_at(value) < older_than:
                            gone += self._delete(step, key)
        return gone

    def report(self) -> dict[str, Any]:
        """See `Store`: `bytes` are the pages in use, `free_bytes` what `compact` would give back."""
        with self._transaction() as step:
            tables = [step.stat(table) for table in self._tables]
            page = self._env.stat()["psize"]
            pages = sum(one[f"{kind}_pages"] for one in tables for kind in ("branch", "leaf", "overflow"))
            size = (self.folder / place.DATA).stat().st_size
        return {
            "home": "embedded",
            "folder": str(self.folder),
            "users": tables[0]["entries"],
            "bases": tables[1]["entries"],
            "bytes": pages * page,
            "file_bytes": size,
            "free_bytes": max(size - pages * page, 0),
            "map_size": self.map_size,
        }

    def ping(self) -> None:
        """See `Store`. Raised too once the disk has failed, and after a failed write until as much can be written."""
        super().ping()
        if self._failed:
            raise StoreError(self._failed)
        for tried in (bytes(self._refused), b"") if self._refused else ():
            with self._transaction(True) as step:
                step.put(place.TRIED, tried, db=self._tables.about)
        self._refused = 0

    def close(self) -> None:
        """See `Store`. Calls that are under way end first."""
        with self._calls:
            if not self._open:
                return
            self._open = False
            self._calls.wait_for(lambda: not self._at_work)
        self._stop.set()
        if self._syncing.is_alive():
            self._syncing.join()
        try:
            with place.told(self.folder):
                self._env.sync(True)
        finally:
            self._env.close()
            place.leave(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(
        self, write: bool = False, ready: Sequence[tuple[bytes, bytes, bytes | None]] = ()
    ) -> Iterator[Any]:
        """One transaction, perhaps of records; what goes wrong in it is one `StoreError`, and nothing is written."""
        size = sum(len(value) + len(base or b"") for _, value, base in ready)
        if os.getpid() != self._process:
            raise StoreError(f"{self.folder}: was opened before a fork; open the store in each process")
        with self._calls:
            if not self._open:
                raise StoreError(f"{self.folder}: this store was closed; open it again")
            self._at_work += 1
        try:
            if write and self._failed:
                raise StoreError(self._failed)
            with place.told(self.folder), self._env.begin(write=write, buffers=True) as step:
                yield step
            if write:
                self._refused *= size < self._refused  # as much could be written
                self._dirty.set()
        except StoreError:
            self._refused = max(self._refused, size, place.LEAST) if size else self._refused
            raise
        finally:
            with self._calls:
                self._at_work -= 1
                self._calls.notify_all()

    def _sync(self, every: float) -> None:
        """Bring to the disk what was written, again and again.

        A disk that failed once is told to every writer from then on: what the system did not write is not tried again.
        """
        while not self._stop.wait(every):
            if self._dirty.is_set():
                self._dirty.clear()
                try:
                    with place.told(self.folder):
                        self._env.sync(True)
                except StoreError as error:
                    self._failed = f"{error}; then start the service again"
                    return

    def _ready(self, user: str, touched: float, record: bytes, base: bytes | None) -> tuple[bytes, bytes, bytes | None]:
        """Key and values, made before the writer's turn begins."""
        key = key_of(user)
        return key, pack(key, touched, payload_of(key, user, record)), pack_base(key, base) if base else base

    def _put(self, step: Any, key: bytes, value: bytes, base: bytes | None) -> None:
        step.put(key, value, db=self._tables.records)
        if base:
            step.put(key, base, db=self._tables.bases)
        elif base is not None:
            step.delete(key, db=self._tables.bases)

    def _delete(self, step: Any, key: bytes) -> bool:
        step.delete(key, db=self._tables.bases)
        return bool(step.delete(key, db=self._tables.records))

    def _unpack(self, key: bytes, user: str, value: Bytes) -> tuple[bytes, int, bytes]:
        found = unpack(key, value)
        if found is None:
            raise damaged(str(self.folder), user)
        return found[0], found[1], record_of(key, found[2])

    def _base(self, step: Any, key: bytes, user: str) -> bytes:
        value = step.get(key, db=self._tables.bases)
        base = b"" if value is None else unpack_base(key, value)
        if base is None:
            raise damaged(str(self.folder), user, "base")
        return base

    def _slices(self, older_than: float | None = None) -> Iterator[list[bytes]]:
        """The keys of all users some at a time, or of those last written before a moment, each slice read afresh."""
        last = b""
        while True:
            with self._transaction() as step:
                cursor = step.cursor(self._tables.records)
                more = cursor.set_range(last) if last else cursor.first()
                if more and last and bytes(cursor.key()) == last:
                    more = cursor.next()
                found = [(bytes(key), touched_at(value)) for key, value in islice(cursor, SLICE)] if more else []
            if not found:
                return
            last = found[-1][0]
            yield [key for key, touched in found if older_than is None or touched < older_than]
