"""The port on which the workers answer.

Several workers have a socket each on the same port, among which the system spreads the connections evenly. On one
socket, whichever worker wakes first takes most of them, and on connections that are kept open it then does most of the
work. At first all listen, so that whoever asks before a worker is ready waits. A worker that is gone leaves its share
to the others, and the one in its place listens when it is ready. Where no other is ready, its socket is kept: who asks
waits there for the worker that is ready first.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Self

from foretaste.errors import ConfigError

BACKLOG = 2048
"""Connections that may wait to be taken."""
SPREAD = getattr(socket, "SO_REUSEPORT", None)
"""The option that lets sockets share a port, where the system has it."""


class Listening:
    """A host and port, with a socket for each of `count` workers."""

    def __init__(self, host: str, port: int, count: int = 1) -> None:
        if not 0 <= port < 2**16:
            raise ConfigError(f"port = {port}; expected 1 to {2**16 - 1}, or 0 for one that is free")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._family = found[0]
            self._address: Any = found[4]
            first = self._bound(alone=True)  # refused where another program listens, whether it would share or not
            self._address = first.getsockname()
            if count == 1 or SPREAD is None:
                first.listen(BACKLOG)
                self._sockets = {0: first}
            else:
                first.close()
                self._sockets = {place: self._bound(alone=False) for place in range(count)}
                for one in self._sockets.values():
                    one.listen(BACKLOG)
        except (OSError, UnicodeError) as error:  # the latter of a name that can be no host
            said = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot listen on {host}, port {port}: {said}; choose another with --port") from None
        self.spread = len(self._sockets) > 1
        self._kept: list[int] = []

    @property
    def place(self) -> str:
        """HOST:PORT."""
        host, port = self._address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"

    def take(self, place: int) -> int:
        """The file descriptor of a worker's socket: its own, one that was kept, or a new one for it to listen on."""
        if not self.spread:
            return self._sockets[0].fileno()
        if place not in self._sockets:
            kept = self._kept[-1] if self._kept else None
            self._sockets[place] = self._bound(alone=False) if kept is None else self._sockets.pop(kept)
            self._kept = self._kept[:-1]
        self._kept = [other for other in self._kept if other != place]
        return self._sockets[place].fileno()

    def leave(self, place: int, others: bool) -> None:
        """A worker is gone. Where others are ready, who connects from now on comes to them."""
        if not self.spread:
            return
        if others:
            self._sockets.pop(place).close()
        else:
            self._kept.append(place)

    def ready(self) -> None:
        """A worker is ready: who connects from now on does not come to sockets that were kept."""
        for place in self._kept:
            self._sockets.pop(place).close()
        self._kept = []

    def close(self) -> None:
        """Who connects from now on is refused, as soon as the workers have closed theirs."""
        for one in self._sockets.values():
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bound(self, alone: bool) -> socket.socket:
        found = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if not alone and SPREAD is not None:
                found.setsockopt(socket.SOL_SOCKET, SPREAD, 1)
            found.bind(self._address)
            found.setblocking(False)
        except BaseException:
            found.close()
            raise
        return found
