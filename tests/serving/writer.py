"""A process for the tests of the embedded store: writes batch after batch, and says each when it was acknowledged."""

from __future__ import annotations

import hashlib
import sys

from foretaste.serving.embedded import EmbeddedStore
from foretaste.serving.store import Change


def filled(user: str, number: int) -> bytes:
    """A record that says what it is, and shows whether it is whole."""
    seed = f"{user}/{number}".encode()
    return b"%d\n" % number + hashlib.sha256(seed).digest() * (50 + 37 * number % 400)


def main(folder: str, name: str, durability: str) -> None:
    """Two users a batch, a base for each, until somebody ends it."""
    store, number = EmbeddedStore(folder, durability), 0  # type: ignore[arg-type]
    while True:
        changes = []
        for user in (f"{name} {number % 7}", f"{name} {7 + number % 5}"):
            (found,) = store.read([user])
            version = b"" if found is None else found.version
            changes.append(Change(user, version, filled(user, number), b"%d" % number))
        assert store.write(changes) == [True, True]
        print(number, flush=True)
        number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
