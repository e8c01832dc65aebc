"""Logs as one JSON object a line, on standard error: what was asked, how it ended, how long it took; never who asked.

No id of a user or an item and no key is written: a path is written as its template (`/users/{user}`).
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

from pydantic_core import to_json

LOGGER = logging.getLogger("foretaste.serving")


class JsonLines(logging.Formatter):
    """A record as one line of JSON; `extra={"facts": {...}}` are fields of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        facts = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "pid": record.process,
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        return to_json(facts, fallback=str).decode()


def begin(level: str) -> None:
    """Write the logs of this process, the service's and the web server's, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    LOGGER.handlers, LOGGER.propagate = [handler], False
    LOGGER.setLevel(level.upper())
    server = logging.getLogger("uvicorn")
    server.handlers, server.propagate = [handler], False
    server.setLevel("WARNING" if level != "error" else "ERROR")
