"""A client of the HTTP service, of the standard library alone.

    client = Client("http://127.0.0.1:8000", key="...")
    client.observe("ann", "item 7", k=10)["recommendations"]

Every event gets an id, so that one whose answer was lost is sent again and taken in once. A client may be used by many
threads: each has a connection of its own, which is kept open.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from numbers import Integral, Real
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from foretaste.errors import BusyError, ConfigError, ForetasteError

TRIES = 5
"""How often a request is sent before its failure is told."""
PAUSE = 0.2
"""Seconds before a lost connection is tried again; each time twice as long."""
LONGEST_PAUSE = 5.0
"""Seconds waited at most, whatever the service says."""
LOST = (ConnectionError, http.client.HTTPException, TimeoutError)
"""What a connection does that is gone."""


class Client:
    """The service at a URL. Answers are plain dictionaries, as `GET /openapi.json` describes them; of one that holds
    nothing but a list, the list."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 10.0) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r}: expected the address of a service, such as http://127.0.0.1:8000")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._path = parts.hostname, port, parts.path.rstrip("/")
        self._mine = threading.local()

    def observe(
        self,
        user: str | int,
        item: str | int,
        *,
        time: float | str | None = None,
        session: str | int | None = None,
        id: str | None = None,
        k: int = 0,
        **choice: Any,
    ) -> dict[str, Any]:
        """A user touched an item; with `k`, also what to recommend after it.

        What is asked again inside a call counts once. After an error it is not known whether the event was taken in:
        with an `id` of your own it can be sent again, and counts once.

        `choice`: candidates, exclude, leave_out_seen, now.
        """
        event = {"user": user, "item": item, "time": time, "session": session, "id": id}
        return self.observe_many([event], k=k, **choice)

    def observe_many(self, events: Iterable[Mapping[str, Any]], *, k: int = 0, **choice: Any) -> dict[str, Any]:
        """Events with the fields of `observe`, each user's the oldest first; `k` only where all are one user's."""
        sent = [{name: value for name, value in event.items() if value is not None} for event in events]
        for event in sent:
            event.setdefault("id", os.urandom(12).hex())
        body: dict[str, Any] = {"events": sent}
        if k or choice:
            body["recommend"] = {"k": k, **choice} if k else choice
        found: dict[str, Any] = self._ask("POST", "/events", body)
        return found

    def recommend(
        self, user: str | int | None = None, k: int = 10, *, history: Sequence[Any] | None = None, **choice: Any
    ) -> list[dict[str, Any]]:
        """The best items for a user, or after a history of ids or events, of which nothing is kept; as `observe`."""
        body = {"k": k, **choice}
        body |= {} if user is None else {"user": user}
        body |= {} if history is None else {"history": list(history)}
        found: list[dict[str, Any]] = self._ask("POST", "/recommendations", body)["recommendations"]
        return found

    def user(self, user: str | int) -> dict[str, Any] | None:
        """What is held of a user; None: nothing."""
        return self._ask("GET", f"/users/{_in_path(user)}", none=True) or None

    def forget(self, user: str | int) -> bool:
        """Forget a user; False if there was nothing to forget. Sent again after a lost answer, it may say False too."""
        return self._ask("DELETE", f"/users/{_in_path(user)}", none=True) is not None

    def explain(
        self, user: str | int | None = None, *, history: Sequence[Any] | None = None, item: str | int | None = None
    ) -> dict[str, Any]:
        """What the answer for a user, or after a history, rests on."""
        given = {name: value for name, value in (("user", user), ("item", item)) if value is not None}
        if history is None:
            query = urlencode({name: _text(value) for name, value in given.items()})
            found: dict[str, Any] = self._ask("GET", f"/explanations?{query}")
        else:
            found = self._ask("POST", "/explanations", {**given, "history": list(history)})
        return found

    def similar_items(self, item: str | int, k: int = 10) -> list[dict[str, Any]]:
        """The items nearest to one."""
        found: list[dict[str, Any]] = self._ask("GET", f"/items/{_in_path(item)}/similar?k={k:d}")["items"]
        return found

    def search(self, query: str, k: int = 10) -> list[dict[str, Any]]:
        """Items by a piece of their id or title."""
        found: list[dict[str, Any]] = self._ask("GET", f"/items?{urlencode({'q': _text(query), 'k': k})}")["items"]
        return found

    def close(self) -> None:
        """Close this thread's connection; the next call opens one."""
        connection = getattr(self._mine, "connection", None)
        if connection is not None:
            connection.close()
            self._mine.connection = None

    def _ask(self, method: str, path: str, body: Any = None, *, none: bool = False) -> Any:
        """The answer; None with `none` where there is nothing. Everything that is asked here may be asked twice."""
        raw = None if body is None else _json(body)
        pause = PAUSE
        for left in reversed(range(TRIES)):
            try:
                status, headers, answer = self._send(method, path, raw)
            except (*LOST, OSError) as error:
                self.close()
                if not left:
                    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
                    raise ForetasteError(f"{self.url}: no answer ({said}); is the service running there?") from None
                wait, pause = pause, 2 * pause
            else:
                said = headers.get("retry-after", "")
                if not left or not (status == 504 or (status == 503 and said)):
                    return self._told(status, answer, none)
                wait = float(said) if said.isdecimal() else pause
            time.sleep(min(wait, LONGEST_PAUSE))

    def _send(self, method: str, path: str, raw: bytes | None) -> tuple[int, dict[str, str], bytes]:
        connection = getattr(self._mine, "connection", None)
        if connection is None or self._mine.process != os.getpid():  # after a fork the socket is the parent's
            connection = self._mine.connection = self._kind(self._host, self._port, timeout=self.timeout)
            self._mine.process = os.getpid()
        connection.request(method, self._path + path, raw, self._headers)
        answer = connection.getresponse()
        whole = answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, whole

    def _told(self, status: int, answer: bytes, none: bool) -> Any:
        if none and status == 404:
            return None
        try:
            facts = json.loads(answer) if answer else {}
        except ValueError:
            facts = {}
        if 200 <= status < 300:
            return facts
        said = facts.get("detail", answer[:200].decode(errors="replace")) if isinstance(facts, dict) else ""
        raise (BusyError if status == 503 else ForetasteError)(f"{self.url}: {said} (status {status})")


def _plain(value: Any) -> Any:
    """Numbers of NumPy and moments of time, as JSON has them; a moment without a zone is UTC."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")


def _in_path(raw: str | int) -> str:
    return quote(_text(raw), safe="")


def _text(raw: str | int) -> str:
    """An id or a query, if it is one that UTF-8 can write: half a pair of surrogates is not."""
    found = str(raw)
    if not found.isascii() and any("\ud800" <= letter <= "\udfff" for letter in found):
        raise ConfigError(f"{found!r} cannot be sent: it holds a lone surrogate, which is no character")
    return found


def _json(body: Any) -> bytes:
    try:
        return json.dumps(body, allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"this cannot be sent as JSON: {error}; ids are text or integers, times numbers or text"
        ) from None
