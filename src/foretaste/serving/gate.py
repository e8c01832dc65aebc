"""Where every request comes in and every answer goes out: key, limits, clock, errors, metrics, and a line in the log.

The requests that come a thousand times a second (`quick`) are answered right here, from the bytes of the body to the
bytes of the answer: the routing and the checks of a web framework take longer than a small model. All others go to
the application behind.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from foretaste.serving.keys import Keys
from foretaste.serving.limits import ServiceConfig
from foretaste.serving.logs import LOGGER
from foretaste.serving.metrics import Metrics
from foretaste.serving.problems import MEDIA, Refused, refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Quick = Callable[[bytes], Awaitable[bytes]]
"""From the body of a request to the body of its answer."""

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Gone(Exception):
    """Whoever asked has hung up."""


class Gate:
    """The outermost part of the service: an ASGI application around another."""

    def __init__(
        self, app: App, quick: Mapping[tuple[str, str], Quick], config: ServiceConfig, keys: Keys, metrics: Metrics
    ) -> None:
        self.app = app
        self.quick = dict(quick)
        self.config = config
        self.keys = keys
        self.metrics = metrics
        self._numbers = itertools.count(1)
        self._name = os.urandom(6).hex()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        out = Answer(send, f"{self._name}-{next(self._numbers)}")
        scope["request_id"] = out.request
        self.metrics.busy.inc()
        try:
            await self._answer(scope, receive, out)
        finally:
            self.metrics.busy.dec()
            self._tell(scope, out.status, time.perf_counter() - begun, out.request)

    async def _answer(self, scope: Scope, receive: Receive, out: Answer) -> None:
        try:
            async with asyncio.timeout(self.config.timeout):
                self.keys.check(scope)
                quick = self.quick.get((scope["method"], scope["path"]))
                if quick is None:
                    await self.app(scope, receive, out)
                else:
                    await out.give(await quick(await body_of(scope, receive, self.config.body_bytes)))
        except Gone:
            out.status = 499
        except Exception as error:
            known = refused(error, self.config.retry_after)
            if known is None:
                LOGGER.error("a fault", exc_info=error, extra={"facts": {"request": out.request}})
                known = unexpected()
            if not out.begun:
                await out.refuse(known)

    def _tell(self, scope: Scope, status: int, seconds: float, request: str) -> None:
        method = scope["method"] if scope["method"] in METHODS else "-"
        route = (
            scope["path"]
            if (method, scope["path"]) in self.quick
            else getattr(scope.get("route"), "path", "-").replace(":id}", "}")
        )
        self.metrics.answered(method, route, status, seconds)
        if LOGGER.isEnabledFor(20):
            facts = {"method": method, "route": route, "status": status, "ms": round(1000 * seconds, 2)}
            LOGGER.info("request", extra={"facts": {**facts, "request": request}})


class Answer:
    """The answer on its way out; calling it sends a message of the application behind."""

    def __init__(self, send: Send, request: str) -> None:
        self.send = send
        self.request = request
        self.status = 0
        self.begun = False

    async def __call__(self, message: Message) -> None:
        """Pass a message on, with the request's id among its headers."""
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.request.encode())]
        await self.send(message)

    async def give(
        self, body: bytes, status: int = 200, media: bytes = b"application/json", more: Mapping[str, str] | None = None
    ) -> None:
        """A whole answer."""
        headers = [(b"content-type", media), (b"content-length", b"%d" % len(body))]
        headers += [(name.lower().encode(), value.encode()) for name, value in (more or {}).items()]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, error: Refused) -> None:
        """The answer of a request that gets no other."""
        await self.give(error.body(self.request), error.status, MEDIA.encode(), error.headers)


async def body_of(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The body of a request for JSON, read no further than `limit` bytes."""
    kind = length = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value
        elif name == b"content-length":
            length = value
    if kind.partition(b";")[0].strip().lower() != b"application/json":
        # also what keeps a page of another site from writing here through a visitor's browser
        raise Refused(415, "the body must be JSON; say so with the header `Content-Type: application/json`")
    if length.isdigit() and int(length) > limit:
        raise _too_long(limit)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_long(limit)
        parts.append(part)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def unexpected() -> Refused:
    """What is said of a fault: not more than where to look."""
    return Refused(500, "something went wrong here; the log of the service says what, under this request's id")


def _too_long(limit: int) -> Refused:
    return Refused(413, f"the body is longer than {limit:,} bytes; send less at a time", {"Connection": "close"})
