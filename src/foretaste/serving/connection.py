"""The way to a Redis or Valkey server: its URL, scripts that run on it, and what is said when it cannot be used.

Passwords are in no message. Nothing is tried twice: a script whose answer was lost may have run. A connection that
broke is dropped, and the next call makes a new one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from foretaste.errors import ConfigError, ForetasteError, StoreError, nearest

try:
    from redis import Redis
    from redis import exceptions as wrong
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:
    raise ForetasteError(
        "a store at a URL needs redis, which is not installed: pip install 'foretaste[serve]'"
    ) from None

SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
"""Of a URL, and what the client calls it; with an s: over TLS."""
UNREADABLE = (
    "the URL of the store cannot be read; write redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], with %-codes for "
    "signs in the password that mean something in a URL"
)


class Connection:
    """To one server, from any thread. `place` is its URL as messages show it."""

    def __init__(self, url: str, timeout: float) -> None:
        self.place, client_url = understood(url)
        self.timeout = timeout
        try:
            self._server = Redis.from_url(
                client_url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except (ValueError, TypeError):  # its words may hold the password
            raise ConfigError(f"{self.place}: {UNREADABLE}") from None

    @contextmanager
    def asked(self) -> Iterator[Any]:
        """The server, for one call; what it cannot do is one `StoreError`."""
        try:
            yield self._server
        except wrong.RedisError as error:
            raise StoreError(f"{self.place}: {self._sentence(error)}") from None

    def script(self, script: str, calls: Sequence[tuple[Any, ...]], *, together: bool) -> list[Any]:
        """What a script answers to each call (two keys, then its arguments); `together`: in one transaction.

        A server whose memory is full refuses any transaction, so what makes room must not come in one.
        """
        name = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()

        def run(some: Sequence[tuple[Any, ...]]) -> list[Any]:
            steps = self._server.pipeline(transaction=together)
            for call in some:
                steps.evalsha(name, 2, *call)
            return list(steps.execute(raise_on_error=False))

        found = run(calls)
        unknown = [at for at, one in enumerate(found) if isinstance(one, wrong.NoScriptError)]
        if unknown:  # the server is new, or was started again; these calls were not made
            self._server.script_load(script)
            for at, one in zip(unknown, run([calls[at] for at in unknown]), strict=True):
                found[at] = one
        for one in found:
            if isinstance(one, Exception):
                raise one
        return found

    def close(self) -> None:
        """Let the connections go."""
        self._server.close()

    def _sentence(self, error: wrong.RedisError) -> str:
        text = str(error)
        match error:
            case wrong.AuthenticationError() | wrong.AuthenticationWrongNumberOfArgsError():
                return "refused the user name or password; mend the URL of the store"
            case wrong.NoPermissionError():
                return f"this user may not do what a store needs: {text}; change its rights"
            case wrong.BusyLoadingError():
                return "is still loading its data; try again in a moment"
            case wrong.TimeoutError():
                return f"did not answer within {self.timeout:g} s; the next call tries again"
            case wrong.ConnectionError():
                return f"cannot be reached ({text}); is it running? The next call tries again"
            case wrong.OutOfMemoryError():
                return "its memory is full (maxmemory); give it more, or forget users with `foretaste store sweep`"
            case wrong.ReadOnlyError():
                return "is a read-only replica; give the URL of the primary"
            case wrong.MovedError():
                return "is one node of a cluster; give a single server, or a proxy of the cluster"
        return f"refused: {text}"


def understood(url: str) -> tuple[str, str]:
    """The server as messages name it, without user, password and options; and the URL as the client wants it."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise ConfigError(f"no store is behind {scheme}://; {nearest(scheme, SCHEMES)}; or give a folder")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError:
        raise ConfigError(f"{scheme}://...: {UNREADABLE}") from None
    host = f"[{host}]" if ":" in host else host
    database = parts.path if re.fullmatch(r"/\d+", parts.path) else ""
    return f"{scheme}://{host}:{port}{database}", f"{SCHEMES[scheme]}://{rest}"
