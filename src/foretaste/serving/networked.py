"""Records on a Redis or Valkey server, for several replicas of the service.

A user's two keys are `foretaste:{user:42}:r` (record) and `...:b` (base); the braces keep them in one slot of a cluster
behind a proxy. A record is changed by a script that runs on the server and first compares the version, so two replicas
never lose an update; a batch of changes is one transaction. Nothing is tried twice in silence: a call that broke off is
a `StoreError`, and the next call connects anew.

What survives is the server's to say: with `appendonly yes` a killed server loses nothing acknowledged, without it all
since its last snapshot; `report` tells. A replica that takes over may lack the last writes. A server with a limit of
memory should not evict (`maxmemory-policy noeviction`): an evicted user is a forgotten one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from foretaste.errors import ConfigError
from foretaste.serving.connection import Connection
from foretaste.serving.store import Change, Store, Stored, Whole
from foretaste.serving.values import (
    FORMAT,
    FORMAT_VERSION,
    HEAD,
    check_format,
    damaged,
    pack,
    pack_base,
    text_of,
    touched_at,
    unpack,
    unpack_base,
    user_of,
)

SLICE = 200
"""Keys of one step of an export, a sweep or a report."""
KEEP, DROP, SET = "keep", "drop", "set"

WRITE = """
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
local life = tonumber(ARGV[5])
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[3] == 'set' then redis.call('SET', KEYS[2], ARGV[4]) end
if ARGV[3] == 'drop' then redis.call('DEL', KEYS[2]) end
if life > 0 then
  redis.call('PEXPIRE', KEYS[1], life)
  redis.call('PEXPIRE', KEYS[2], life)
else
  redis.call('PERSIST', KEYS[2])
end
return 1
"""
"""Record, base; version, value, what to do with the base, base, milliseconds to live (0: for ever)."""
FORGET = """
if redis.call('GETRANGE', KEYS[1], 0, string.len(ARGV[1]) - 1) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
"""
"""Record, base; the beginning of the value that is to go."""


class NetworkedStore(Store):
    """`url` is `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or rediss:// for TLS, or valkey://.

    `namespace` begins every key. `ttl` is how many seconds after its last write the server forgets a user, None: never.
    A call that takes longer than `timeout` seconds is a `StoreError`. Nothing is sent before the first call.
    """

    def __init__(
        self, url: str, namespace: str = "foretaste", *, ttl: float | None = None, timeout: float = 2.0
    ) -> None:
        if not re.fullmatch(r"[\w.:-]+", namespace):
            raise ConfigError(f"namespace {namespace!r}: use letters, digits and . : - _")
        if ttl is not None and ttl < 0.001:
            raise ConfigError(f"ttl = {ttl}: expected seconds, more than 0")
        self.namespace, self.ttl = namespace, ttl
        self._connection = Connection(url, timeout)
        self.place = self._connection.place
        self._facts, self._checked = f"{namespace}:facts", False
        self._start, self._end = f"{namespace}:{{user:".encode(), b"}:r"

    def claim(self, facts: dict[str, Any], *, replace: bool = False) -> dict[str, Any]:
        """See `Store`."""
        said = {"format": FORMAT, "version": FORMAT_VERSION, "facts": facts}
        with self._asked() as server:
            before = server.get(self._facts)
            if facts and before is None and server.set(self._facts, json.dumps(said), nx=True):
                return facts
            before = self._about(server.get(self._facts) or b"null")
            if facts and (replace or not before):
                server.set(self._facts, json.dumps(said))
        return before or facts

    def read(self, users: Sequence[str]) -> list[Stored | None]:
        """See `Store`."""
        if not users:
            return []
        with self._asked() as server:
            values = server.mget([self._keys(user)[0] for user in users])
        found: list[Stored | None] = []
        for user, value in zip(users, values, strict=True):
            if value is None:
                found.append(None)
            else:
                version, _, record = self._unpack(user, value)
                found.append(Stored(version, record))
        return found

    def read_base(self, user: str) -> bytes:
        """See `Store`."""
        with self._asked() as server:
            return self._base(user, server.get(self._keys(user)[1]))

    def write(self, changes: Sequence[Change]) -> list[bool]:
        """See `Store`."""
        now, life = time.time(), 0 if self.ttl is None else max(1, round(1000 * self.ttl))
        calls = []
        for change in changes:
            text, base = text_of(change.user), change.base
            what = KEEP if base is None else SET if base else DROP
            values = change.version, pack(text, now, change.record), what, pack_base(text, base or b""), life
            calls.append((*self._keys(change.user), *values))
        if not calls:
            return []
        with self._asked():
            return [bool(one) for one in self._connection.script(WRITE, calls, together=True)]

    def delete(self, user: str) -> bool:
        """See `Store`."""
        with self._asked() as server:
            return bool(server.delete(*self._keys(user)))

    def everyone(self) -> Iterator[Whole]:
        """See `Store`."""
        for users in self._slices():
            with self._asked() as server:
                values = server.mget([key for user in users for key in self._keys(user)])
            for user, value, base in zip(users, values[::2], values[1::2], strict=True):
                if value is not None:
                    _, touched, record = self._unpack(user, value)
                    yield Whole(user, record, self._base(user, base), touched)

    def put(self, whole: Whole) -> None:
        """See `Store`."""
        self.put_all([whole])

    def put_all(self, wholes: Iterable[Whole]) -> None:
        """See `Store`. With a `ttl`, a user lives on as long as was left, counted from the last write."""
        with self._asked() as server:
            steps = server.pipeline(transaction=True)
            for whole in wholes:
                text, (key, base) = text_of(whole.user), self._keys(whole.user)
                left = None if self.ttl is None else max(1, round(1000 * (whole.touched + self.ttl - time.time())))
                steps.set(key, pack(text, whole.touched, whole.record), px=left)
                if whole.base:
                    steps.set(base, pack_base(text, whole.base), px=left)
                else:
                    steps.delete(base)
            steps.execute()

    def sweep(self, older_than: float) -> int:
        """See `Store`. A user who is written meanwhile stays."""
        gone = 0
        for users in self._slices():
            with self._asked() as server:
                steps = server.pipeline(transaction=False)
                for user in users:
                    steps.getrange(self._keys(user)[0], 0, HEAD.size - 1)
                heads = steps.execute()
                old = [(user, head) for user, head in zip(users, heads, strict=True) if touched_at(head) < older_than]
                calls = [(*self._keys(user), head) for user, head in old]
                gone += sum(self._connection.script(FORGET, calls, together=False))
        return gone

    def report(self) -> dict[str, Any]:
        """See `Store`: `bytes` are the server's memory for the users of this namespace."""
        users = bases = size = 0
        for some in self._slices():
            with self._asked() as server:
                steps = server.pipeline(transaction=False)
                for user in some:
                    for key in self._keys(user):
                        steps.memory_usage(key)
                found = steps.execute()
            users += sum(one is not None for one in found[::2])
            bases += sum(one is not None for one in found[1::2])
            size += sum(one or 0 for one in found)
        with self._asked() as server:
            facts: dict[str, Any] = server.info()
        return {
            "home": "networked",
            "server": f"{self.place} ({facts.get('server_name', 'redis')} {facts.get('redis_version')})",
            "namespace": self.namespace,
            "users": users,
            "bases": bases,
            "bytes": size,
            "server_bytes": facts.get("used_memory"),
            "server_limit": facts.get("maxmemory") or None,
            "eviction": facts.get("maxmemory_policy"),
            "appendonly": bool(facts.get("aof_enabled")),
            "ttl": self.ttl,
        }

    def close(self) -> None:
        """See `Store`."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        """The server, for one call; what it cannot do is one `StoreError`."""
        with self._connection.asked() as server:
            if not self._checked:
                self._about(server.get(self._facts) or b"null")
                self._checked = True
            yield server

    def _about(self, said: Any) -> dict[str, Any]:
        try:
            found = json.loads(said)
        except ValueError:
            found = {}
        if found is None:
            return {}
        check_format(f"{self.place}, key {self._facts}", found)
        return dict(found["facts"])

    def _slices(self) -> Iterator[list[str]]:
        """All users some at a time, each once: a scan may come by the same key again."""
        pattern, more = self._start + b"*" + self._end, 0
        seen: set[bytes] = set()
        while True:
            with self._asked() as server:
                more, keys = server.scan(more, match=pattern, count=SLICE)
            new = list(dict.fromkeys(key for key in keys if key not in seen))
            seen.update(new)
            if new:
                yield [user_of(key[len(self._start) : -len(self._end)]) for key in new]
            if not more:
                return

    def _keys(self, user: str) -> tuple[bytes, bytes]:
        name = self._start + text_of(user)
        return name + self._end, name + b"}:b"

    def _unpack(self, user: str, value: bytes) -> tuple[bytes, int, bytes]:
        found = unpack(text_of(user), value)
        if found is None:
            raise damaged(self.place, user)
        return found

    def _base(self, user: str, value: bytes | None) -> bytes:
        base = b"" if value is None else unpack_base(text_of(user), value)
        if base is None:
            raise damaged(self.place, user, "base")
        return base
