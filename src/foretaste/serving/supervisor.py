"""The process over the workers: it holds their sockets, starts them, starts a killed one again, and stops them all.

It loads no model and opens no store, so nothing that goes wrong in them can take it along.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretaste.errors import ForetasteError
from foretaste.serving.listening import Listening
from foretaste.serving.logs import LOGGER
from foretaste.serving.worker import GRACE, Plan

LONGEST_PAUSE = 30.0
"""Seconds before a worker that dies again and again is started once more."""
STEADY = 10.0
"""Seconds after which a worker's start is taken as good."""


def pin(process: int, place: int) -> None:
    """Keep a process on one of the cores that this one may use; where the system knows no such thing, nothing."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        with suppress(ProcessLookupError):
            os.sched_setaffinity(process, {cores[place % len(cores)]})


@dataclass
class Worker:
    """A worker process."""

    process: subprocess.Popen[bytes]
    pipe: int
    place: int
    begun: float
    ready: bool = False
    said: bytes = b""


class Supervisor:
    """Keeps `count` workers running until it is told to stop."""

    def __init__(
        self, plan: Plan, listening: Listening, count: int, on_ready: Callable[[dict[str, Any]], None]
    ) -> None:
        self.plan = plan
        self.listening = listening
        self.count = count
        self.on_ready = on_ready
        self.workers: dict[int, Worker] = {}
        self.pauses = [0.0] * count
        self.due: dict[int, float] = {}
        self.up = False
        self.stopping = 0
        self.failed = ""
        self.model = ""

    def run(self) -> None:
        """Until SIGTERM or Ctrl-C; a service that never became ready is an error."""
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None  # a full disk would kill the workers
        self.metrics = Path(tempfile.mkdtemp(prefix="foretaste-metrics-", dir=memory))
        try:
            with selectors.DefaultSelector() as self.selector, self._signals():
                for place in range(self.count):
                    self._start(place)
                try:
                    self._watch()
                finally:
                    self._end()
        finally:
            shutil.rmtree(self.metrics, ignore_errors=True)
        if self.failed:
            raise ForetasteError(self.failed)

    def _start(self, place: int) -> None:
        self.metrics.mkdir(exist_ok=True)  # whatever clears old files away
        reading, writing = os.pipe()
        first = place == 0
        given = {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "PROMETHEUS_MULTIPROC_DIR": str(self.metrics),
        }
        listening = self.listening.take(place)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "foretaste.serving.worker", str(listening), str(writing)],
                stdin=subprocess.PIPE,
                stdout=2,  # nothing of a worker goes among what the command says
                pass_fds=(listening, writing),
                env={**os.environ, **given},
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        if self.plan.service.pin:
            pin(process.pid, place)
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            model = self.model if self.up else ""
            plan = self.plan.with_(sweeps=first, replay=self.plan.replay and not self.up, model=model)
            process.stdin.write(json.dumps(plan.as_dict()).encode() + b"\n")
            process.stdin.flush()  # and left open: its end is how the worker learns of ours
        self.workers[reading] = Worker(process, reading, place, time.monotonic())
        self.selector.register(reading, selectors.EVENT_READ)

    def _watch(self) -> None:
        while not self.stopping:
            now = time.monotonic()
            for place in [place for place, when in self.due.items() if when <= now]:
                del self.due[place]
                try:
                    self._start(place)
                except OSError as error:  # no memory or no process to be had: perhaps in a while
                    LOGGER.error("a worker cannot be started: %s", error)
                    self.due[place] = now + LONGEST_PAUSE
            wait = min((when - now for when in self.due.values()), default=None)
            for key, _ in self.selector.select(wait):
                if key.fd in self.workers:
                    self._hear(self.workers[key.fd])
                else:
                    os.read(key.fd, 64)  # a signal: `stopping` says which

    def _hear(self, worker: Worker) -> None:
        """Something from a worker: that it is ready, that it failed, or, with the end of the pipe, that it is gone."""
        words = os.read(worker.pipe, 65536)
        worker.said += words
        if not words:
            self._gone(worker)
            return
        if not worker.said.endswith(b"\n"):
            return
        facts = json.loads(worker.said)
        worker.said = b""
        if "failed" in facts:
            self._failing(facts["failed"], facts["passing"])
            return
        worker.ready = True
        self.model = facts["ready"]["model"]
        self.listening.ready()
        if not self.up and sum(one.ready for one in self.workers.values()) == self.count:
            self.up = True
            self.on_ready(facts["ready"])

    def _gone(self, worker: Worker) -> None:
        status = self._bury(worker)
        if self.stopping:
            return
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if not self.up:
            self._failing(f"a worker process ended before it was ready ({how}); its last lines say why", passing=False)
            return
        self.listening.leave(worker.place, any(one.ready for one in self.workers.values()))
        lived = time.monotonic() - worker.begun
        pause = 0.0 if lived > STEADY else min(max(2 * self.pauses[worker.place], 1.0), LONGEST_PAUSE)
        self.pauses[worker.place] = pause
        self.due[worker.place] = time.monotonic() + pause
        LOGGER.warning("worker %d is gone (%s); another one starts", worker.process.pid, how)

    def _bury(self, worker: Worker) -> int:
        from prometheus_client.multiprocess import mark_process_dead

        self.selector.unregister(worker.pipe)
        os.close(worker.pipe)
        del self.workers[worker.pipe]
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):
            worker.process.stdin.close()
        status = worker.process.wait()
        mark_process_dead(worker.process.pid, str(self.metrics))  # type: ignore[no-untyped-call]
        return status

    def _failing(self, why: str, passing: bool) -> None:
        """What a worker says that cannot start: the end of a service that never ran, a line in the log of another.

        A service without any worker ends too, unless what is wrong may pass: who watches it is to know, and who calls
        is refused instead of waiting.
        """
        if self.up and (passing or any(one.ready for one in self.workers.values())):
            LOGGER.error("a worker cannot start: %s", why)
        elif not self.failed:
            self.failed = why
            self.stopping = self.stopping or 1

    def _end(self) -> None:
        """Stop all workers, and wait until they have finished what they were asked; nobody else is let in."""
        self.listening.close()
        last = time.monotonic() + GRACE + 10
        for worker in self.workers.values():
            worker.process.terminate()
        while self.workers:
            late = time.monotonic() > last or self.stopping > 1
            for worker in list(self.workers.values()) if late else ():
                worker.process.kill()
            for key, _ in self.selector.select(1.0):
                if key.fd in self.workers:
                    self._hear(self.workers[key.fd])
                else:
                    os.read(key.fd, 64)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C count up `stopping` and wake the loop: once means finish, twice means now."""
        reading, writing = os.pipe()
        self.selector.register(reading, selectors.EVENT_READ)

        def stop(*_: object) -> None:
            self.stopping += 1
            os.write(writing, b".")

        before = {one: signal.signal(one, stop) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            os.close(reading)
            os.close(writing)
