"""From the words that name a store to the store: memory, a folder, or the URL of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from foretaste.serving.store import MemoryStore, Store


def open_store(
    where: str | Path,
    *,
    durability: Literal["process", "power"] = "process",
    map_size: int | None = None,
    create: bool = True,
    namespace: str = "foretaste",
    ttl: float | None = None,
    timeout: float = 2.0,
) -> Store:
    """The store at `where`: "memory", a folder, or a URL such as redis://localhost:6379/0.

    `durability`, `map_size`, `create` are the embedded store's, `namespace`, `ttl`, `timeout` the networked one's.
    Only a server forgets users by itself (`ttl`); for the other homes call `sweep` now and then.
    """
    if str(where) == "memory":
        return MemoryStore()
    if "://" in str(where):
        from foretaste.serving.networked import NetworkedStore

        return NetworkedStore(str(where), namespace, ttl=ttl, timeout=timeout)
    from foretaste.serving.embedded import MAP_SIZE, EmbeddedStore

    size = MAP_SIZE if map_size is None else map_size
    return EmbeddedStore(where, durability, map_size=size, create=create)
