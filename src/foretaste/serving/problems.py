"""Why there is no answer: every error as application/problem+json, with the status that says whose fault it is."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from foretaste.errors import BusyError, ConfigError, DamagedRecordError, DataError, NeedsError, StoreError, nearest

MEDIA = "application/problem+json"
SHOWN = 5
"""Wrong fields named in one answer."""
AN_ID, AN_EVENT = "an id", "an event"
"""What an element of a history is taken for."""
NO_FIELDS = ("query", "path", AN_ID, AN_EVENT)
"""What stands in the place of an error without being in the request."""


class Refused(Exception):
    """The answer to a request that gets no other."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def body(self, request: str) -> bytes:
        """The answer's body; `request` is the request's id."""
        title = HTTPStatus(self.status).phrase
        facts = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        return to_json({**facts, "request": request, **self.more}, fallback=str)


def refused(error: Exception, retry_after: int) -> Refused | None:
    """An error as an answer; None for one that nobody expected."""
    match error:
        case Refused():
            return error
        case DamagedRecordError():
            return Refused(500, str(error))
        case BusyError() | StoreError():
            return Refused(503, str(error), {"Retry-After": str(retry_after)})
        case TimeoutError():
            return Refused(504, "the answer took too long; send the same again, with the ids of its events")
        case ConfigError() | DataError() | NeedsError():
            return Refused(422, str(error))
        case RequestValidationError():
            return Refused(422, said(error.errors()))
        case HTTPException():
            return Refused(error.status_code, _plain(error), error.headers)
    return None


def invalid(error: ValidationError, kind: type[Any]) -> Refused:
    """A body that is not as described."""
    return Refused(422, said(error.errors(include_url=False, include_input=False), list(kind.model_fields)))


def said(errors: Any, known: list[str] | None = None) -> str:
    """What is wrong with which field, without the value: it may be long."""
    lines = []
    for one in errors[:SHOWN]:
        where = ".".join(str(part) for part in one["loc"] if part not in NO_FIELDS) or "the body"
        if one["type"] == "extra_forbidden":
            hint = f"; {nearest(where, known)}" if known and len(one["loc"]) == 1 else ""
            lines.append(f"{where[:80]}: not a field of this request{hint}")
        elif one["type"] == "missing":
            lines.append(f"{where}: is required and missing")
        else:
            msg = one["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {'expected an object' if one['type'].startswith('model') else msg}")
    more = len(errors) - SHOWN
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _plain(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing under this address; GET /openapi.json describes what there is"
    if error.status_code == 405:
        return "this address does not take this method"
    return str(error.detail)
