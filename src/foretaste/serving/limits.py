"""What the service allows: how large, how many, how long. Each limit answers with the number that was passed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foretaste.config import Config


class ServiceConfig(Config):
    """The limits of the HTTP service, where it runs, and how it logs."""

    body_bytes: int = Field(default=1 << 20, ge=1024)
    """Bytes of a request's body; a longer one is refused with 413 while it still comes in."""
    events: int = Field(default=1000, ge=1)
    """Events in one request."""
    k: int = Field(default=1000, ge=1)
    """Items in one answer."""
    history: int = Field(default=10_000, ge=1)
    """Events of a history that is sent along."""
    candidates: int = Field(default=10_000, ge=1)
    """Candidates in one request, and items to exclude."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds for one request. After them the answer is 504, and its events may or may not be taken in."""
    queue: int = Field(default=1024, ge=1)
    """Asks that may wait in a worker process; one more is answered with 503 at once, and nothing of it is kept."""
    batch: int = Field(default=64, ge=1)
    """Asks that are answered together at most."""
    wait_ms: float = Field(default=0.0, ge=0)
    """How long an ask waits for others to share its batch. 0: never; what piles up meanwhile is one batch anyway."""
    retry_after: int = Field(default=1, ge=1)
    """Seconds that an answer 503 tells the caller to wait."""
    keep_alive: int = Field(default=75, ge=1)
    """Seconds that an idle connection is kept open."""
    pin: bool = False
    """Keep each worker process on a core of its own, where the service has the cores for itself."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """`info` writes a line a request; `warning` only what went wrong."""
