"""What is kept of one user, as bytes: the model's state, the newest events, and the ids of events taken in.

The newest events stay as raw ids and times, so that a late event can be put in its place and a new model can make its
own state of them. They are lines of JSON, and their times an array beside them: to take in one event is to append, and
nothing is parsed. Event ids are kept as the first 8 bytes of their BLAKE2b digest: two different ids of one user are
taken for the same once in 10^16 times.

    header | state | times, 8 bytes an event | lines | digests, 8 bytes an id | arrivals, 4 bytes an id
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from foretaste.data.rules import Edge, Happened
from foretaste.errors import DamagedRecordError, StoreError

FORMAT = 1
ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
HEADER = struct.Struct("<BB16sQQIIII")
"""Format, is the open session begun, model, events seen, events beyond, bytes of state and lines, numbers of events
and ids."""
BASE = struct.Struct("<BB16sII")
"""Format, begun, model, bytes of state and of the last line."""


def line_of(event: Happened) -> bytes:
    """An event without its time."""
    value = event.item if event.session is None else [event.item, event.session]
    return ENCODE(value).encode("utf-8", "surrogatepass")


def event_of(line: bytes, time: int) -> Happened:
    """Back from its line."""
    value = json.loads(line.decode("utf-8", "surrogatepass"))
    item, session = value if isinstance(value, list) else (value, None)
    return Happened(item, time, session)


def digest(event_id: str) -> bytes:
    """What is kept of an event's id."""
    return hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@dataclass(slots=True)
class Record:
    """One user, as read from a store and to be written there again."""

    model: bytes
    """Fingerprint of the model that made the state."""
    state: bytes
    begun: bool = False
    """Has the model been given an event of the open session?"""
    seen: int = 0
    """Events taken in since the user was first seen."""
    beyond: int = 0
    """Of them, those older than every event kept by then, taken in as the newest."""
    times: bytes = b""
    lines: bytes = b""
    """The events kept, each line ended by a newline."""
    digests: bytes = b""
    arrivals: bytes = b""

    def __len__(self) -> int:
        """Events kept."""
        return len(self.times) // 8

    @property
    def last(self) -> Happened | None:
        """The newest event."""
        if not self.times:
            return None
        line = self.lines[self.lines.rfind(b"\n", 0, -1) + 1 : -1]
        return event_of(line, self.newest)

    @property
    def newest(self) -> int:
        """Time of the newest event, milliseconds."""
        return int.from_bytes(self.times[-8:], "little", signed=True)

    @property
    def edge(self) -> Edge:
        """What the next event is cut by."""
        return Edge(self.last, self.begun, self.seen)

    def events(self) -> list[Happened]:
        """All events kept, the oldest first."""
        times = np.frombuffer(self.times, np.int64).tolist()
        return [event_of(line, time) for line, time in zip(self.lines.split(b"\n"), times, strict=False)]

    def knows(self, digest: bytes) -> bool:
        """Was an event of this id taken in, as far as the window reaches?"""
        if digest not in self.digests:
            return False
        return bool((np.frombuffer(self.digests, np.int64) == np.frombuffer(digest, np.int64)[0]).any())

    def append(self, events: Sequence[Happened]) -> None:
        """Put events at the end; whoever calls has their state."""
        self.times += b"".join(event.time.to_bytes(8, "little", signed=True) for event in events)
        self.lines += b"".join(line_of(event) + b"\n" for event in events)
        self.seen += len(events)

    def remember(self, digests: Iterable[bytes], now: int, ids: int, seconds: float) -> None:
        """Put these ids into the window of the newest `ids` ids of the last so many seconds."""
        fresh = b"".join(digests)
        if not fresh:
            return
        now = max(now, int.from_bytes(self.arrivals[-4:], "little"))  # another machine's clock may go before ours
        self.digests += fresh
        self.arrivals += now.to_bytes(4, "little") * (len(fresh) // 8)
        gone = max(len(self.digests) // 8 - ids, 0)
        if int.from_bytes(self.arrivals[:4], "little") < now - seconds:
            gone = max(gone, int(np.searchsorted(np.frombuffer(self.arrivals, np.uint32), now - seconds)))
        if gone:
            self.digests, self.arrivals = self.digests[8 * gone :], self.arrivals[4 * gone :]

    def drop_oldest(self, count: int) -> list[Happened]:
        """Let go of the oldest events, and give them."""
        parts = self.lines.split(b"\n", count)
        times = np.frombuffer(self.times[: 8 * count], np.int64).tolist()
        gone = [event_of(line, time) for line, time in zip(parts[:count], times, strict=True)]
        self.times, self.lines = self.times[8 * count :], parts[count]
        return gone

    def pack(self) -> bytes:
        """As bytes."""
        sizes = len(self.state), len(self.lines), len(self), len(self.digests) // 8
        head = HEADER.pack(FORMAT, self.begun, self.model, self.seen, self.beyond, *sizes)
        return b"".join((head, self.state, self.times, self.lines, self.digests, self.arrivals))

    @classmethod
    def unpack(cls, value: bytes, user: str = "") -> Record:
        """From the bytes that are kept of a user."""
        if value and value[0] != FORMAT:
            raise StoreError(f"a record of format {value[0]}, expected {FORMAT}: another version wrote it; upgrade it")
        if len(value) < HEADER.size:
            raise DamagedRecordError(f"the record of user {user!r} has {len(value)} bytes: it is damaged", user)
        _, begun, model, seen, beyond, state, lines, events, ids = HEADER.unpack_from(value)
        places, at = [], HEADER.size
        for size in (state, 8 * events, lines, 8 * ids, 4 * ids):
            places.append(value[at : at + size])
            at += size
        if at != len(value):
            raise DamagedRecordError(
                f"the record of user {user!r} has {len(value)} bytes, expected {at}: it is damaged", user
            )
        return cls(model, places[0], bool(begun), seen, beyond, *places[1:])


@dataclass(frozen=True, slots=True)
class Base:
    """The state before the oldest event kept, and what that event is cut by, but for the count of events."""

    model: bytes
    state: bytes
    edge: Edge

    def pack(self) -> bytes:
        """As bytes."""
        assert self.edge.last is not None  # there is no base before the first event is dropped
        line = line_of(self.edge.last)
        head = BASE.pack(FORMAT, self.edge.begun, self.model, len(self.state), len(line))
        return b"".join((head, self.state, line, struct.pack("<q", self.edge.last.time)))

    @classmethod
    def unpack(cls, value: bytes) -> Base:
        """From bytes."""
        if len(value) < BASE.size or value[0] != FORMAT:
            raise StoreError(f"a base of another version, or damaged ({len(value)} bytes)")
        _, begun, model, state, line = BASE.unpack_from(value)
        at = BASE.size + state
        if len(value) != at + line + 8:
            raise StoreError(f"a base of {len(value)} bytes, expected {at + line + 8}: it is damaged")
        (time,) = struct.unpack_from("<q", value, at + line)
        last = event_of(value[at : at + line], time)
        return cls(model, value[BASE.size : at], Edge(last, bool(begun)))
