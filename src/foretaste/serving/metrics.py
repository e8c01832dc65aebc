"""What the service counts, for Prometheus. Correct with several worker processes: any of them tells for all.

The processes share their counts through a folder (`PROMETHEUS_MULTIPROC_DIR`, set before this is imported); without it
there is one process, and it tells for itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from foretaste.serving.logs import LOGGER

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
MEDIA = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
"""Seconds."""


class Metrics:
    """The counts of one worker process."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        names = ("method", "route")
        self.requests = Counter("foretaste_requests", "Requests answered.", (*names, "status"), registry=own)
        self.seconds = Histogram(
            "foretaste_request_seconds", "From the first byte to the answer.", names, registry=own, buckets=BUCKETS
        )
        self.events = Counter("foretaste_events", "Events by what became of them.", ("outcome",), registry=own)
        self.work = Counter("foretaste_work", "What the engine counts of its batches.", ("what",), registry=own)
        self.busy = Gauge(
            "foretaste_open_requests", "Requests being answered.", multiprocess_mode="livesum", registry=own
        )
        self.waiting = Gauge(
            "foretaste_waiting", "Asks that wait for the engine.", multiprocess_mode="livesum", registry=own
        )
        self.about = Gauge(
            "foretaste_info", "What is served.", ("model", "version"), multiprocess_mode="max", registry=own
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._before: dict[tuple[Counter, str], float] = {}
        self._lost = False

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        with self._apart():
            key = (method, route, status)
            found = self._children.get(key)
            if found is None:
                found = self.requests.labels(method, route, status), self.seconds.labels(method, route)
                self._children[key] = found
            found[0].inc()
            found[1].observe(seconds)

    def follow(self, outcomes: Mapping[str, int], work: Mapping[str, float], waiting: int) -> None:
        """Take over counts that somebody else keeps; call it now and then, and before they are told.

        outcomes: what became of events. An event of a request that ended in an error counts as well.
        """
        with self._apart():
            self.waiting.set(waiting)
            for counter, counts in ((self.events, outcomes), (self.work, work)):
                for name, value in counts.items():
                    more = value - self._before.get((counter, name), 0)
                    if more > 0:
                        counter.labels(name).inc(more)
                        self._before[counter, name] = value

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """What counts never fails what is counted: a folder that somebody cleared away is told once."""
        try:
            yield
        except OSError as error:
            if not self._lost:
                LOGGER.warning("the counts cannot be kept, so the metrics lack something: %s", error)
            self._lost = True

    def told(self) -> bytes:
        """All processes' counts as Prometheus reads them."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        Path(os.environ[FOLDER]).mkdir(parents=True, exist_ok=True)
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
