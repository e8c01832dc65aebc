"""One thread that does all the work of models and stores, for an event loop that must never wait.

Asks that arrive while the thread works are taken together the next time: under load the batches grow by themselves,
and a lone ask waits for nobody. `wait_ms` makes a lone ask wait for others, for machines where a larger batch is
worth it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from foretaste.errors import BusyError
from foretaste.serving.asks import Ask, Told
from foretaste.serving.engine import Engine

EVENTS = 10_000
"""Events in one batch, where more than one ask is in it: nobody waits for longer than they take."""
T = TypeVar("T")
Waiting = tuple[Any, "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class Batcher:
    """Feeds an engine from event loops. Every call that touches the engine goes through here, in turn."""

    def __init__(self, engine: Engine, *, limit: int = 1024, batch: int = 64, wait_ms: float = 0.0) -> None:
        """`limit`: asks and calls that may wait; `batch`: asks that are answered together at most."""
        self.engine, self.limit, self.batch, self.wait = engine, limit, batch, wait_ms / 1000
        self.counts: Counter[str] = Counter()
        """Batches, and the asks in them."""
        self._queue: deque[Waiting] = deque()
        self._wake = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="foretaste-engine", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def ask(self, ask: Ask) -> Told:
        """One ask, with others in one batch. `BusyError` at once where too many wait already."""
        told: Told = await self._put(ask)
        return told

    async def call(self, work: Callable[[], T]) -> T:
        """Any other call of the engine, in the same thread, in turn."""
        done: T = await self._put(work)
        return done

    def close(self) -> None:
        """Finish what waits, then stop."""
        with self._wake:
            self._open = False
            self._wake.notify()
        self._thread.join()

    def _put(self, what: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._wake:
            if not self._open:
                raise BusyError("the service is stopping; ask another, or again in a moment")
            if len(self._queue) >= self.limit:
                raise BusyError(f"{self.limit} requests wait already; ask again in a moment")
            self._queue.append((what, future, loop))
            self._wake.notify()
        return future

    def _run(self) -> None:
        while taken := self._next():
            if isinstance(taken[0][0], Ask):
                self.counts["batches"] += 1
                self.counts["asks"] += len(taken)
                values = self._answers([what for what, _, _ in taken])
            else:
                values = [_result(taken[0][0])]
            for loop in {loop for _, _, loop in taken}:
                done = [(future, value) for (_, future, own), value in zip(taken, values, strict=True) if own is loop]
                with suppress(RuntimeError):  # a loop that was closed: nobody waits
                    loop.call_soon_threadsafe(_settle, done)

    def _next(self) -> list[Waiting]:
        """What to do next: some asks, or one call; nothing when closed and all is done."""
        with self._wake:
            while True:
                self._wake.wait_for(lambda: self._queue or not self._open)
                if not self._queue:
                    return []
                if self.wait:
                    self._wake.wait_for(lambda: len(self._queue) >= self.batch or not self._open, self.wait)
                taken: list[Waiting] = []
                events = 0
                while self._queue and len(taken) < self.batch and events < EVENTS:
                    lone = not isinstance(self._queue[0][0], Ask)
                    if lone and taken:
                        break
                    one = self._queue.popleft()
                    if one[1].cancelled():  # who asked has gone
                        continue
                    taken.append(one)
                    events += 0 if lone else len(one[0].events) + len(one[0].history or ())
                    if lone:
                        break
                if taken:
                    return taken

    def _answers(self, asks: list[Ask]) -> list[Any]:
        try:
            return list(self.engine.ask_many(asks))
        except Exception as error:  # a fault: told to whoever asked, and the service goes on
            if len(asks) == 1:
                return [error]
            # One of them is to blame. What can be asked twice is asked by itself.
            again = [all(event.id is not None for event in ask.events) for ask in asks]
            return [self._answers([ask])[0] if twice else error for ask, twice in zip(asks, again, strict=True)]


def _result(work: Callable[[], Any]) -> Any:
    """What a call gives, or the error that it raised."""
    try:
        return work()
    except Exception as error:
        return error


def _settle(done: list[tuple[asyncio.Future[Any], Any]]) -> None:
    """On the event loop: hand the answers to whoever waits."""
    for future, value in done:
        if future.done():
            continue
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)
