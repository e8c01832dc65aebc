"""The service killed under load, and every event compared with what is kept: what the benchmark and its test share.

Threads send events one by one, each with an id, and after whatever error the same again until it is acknowledged; now
and then an acknowledged one once more (it has to be a duplicate), and one event late. At random moments a worker, the
supervisor, or all processes are killed. No user meets an item twice, so every event can be found afterwards.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from foretaste.data.vocabulary import Vocabulary
from foretaste.models import model_class
from foretaste.models.contract import seeded
from foretaste.models.saved import Trained
from foretaste.serving.asks import Ask, Event
from foretaste.serving.engine import Engine
from foretaste.serving.homes import open_store
from foretaste.serving.planning import EngineConfig
from foretaste.serving.store import MemoryStore

N_ITEMS = 9973
"""A prime: any step through the catalogue meets every item before it meets one again."""
CONFIGS = {
    "narm": {"embedding_size": 16, "hidden_size": 16},
    "dman": {"embedding_size": 16, "slots": 4, "segment": 8},
}
THREADS, USERS, START = 8, 40, 1_600_000_000
KEEP = 100_000
AGAIN, LATE = 0.05, 0.01
"""Share of steps that send an acknowledged event once more, and that send two events in the wrong order."""
WAIT = 120.0
"""Seconds without an acknowledged event after which the service is given up."""
KINDS = ("a worker", "the supervisor", "the supervisor and all workers")
BOUND = 1e-5
"""Of a state's parts, relative to the larger of 1 and the value: sums in another order."""

Sent = tuple[int, float]
"""Item and time of an event."""


def event(user: int, number: int) -> Event:
    """A user's event of that number: an item of his own order, a minute after the one before, a session every 20."""
    item = 1 + (user * 31 + number * (user + 1)) % N_ITEMS
    return Event(item, float(START + 60 * number + 7200 * (number // 20)), id=f"{user}/{number}")


class Service:
    """`foretaste serve` as a process that can be killed."""

    def __init__(self, run: Path, store: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [sys.executable, "-m", "foretaste", "serve", str(run), "--store", str(store), "--workers", "2"]
        self.command += ["--port", str(self.port), "--history", str(KEEP), "--log-level", "error"]
        self.log, self.starts = log, 0
        self.start()

    def start(self) -> None:
        """Start the supervisor."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=log)
        self.starts += 1

    def kill(self, kind: str, draw: random.Random) -> str:
        """SIGKILL; says what was killed (the supervisor, where there is no worker yet)."""
        own = self.process.pid
        with suppress(OSError):
            workers = [int(one) for one in Path(f"/proc/{own}/task/{own}/children").read_text().split()]
            if kind == KINDS[0] and workers:
                os.kill(draw.choice(workers), signal.SIGKILL)
                return kind
            self.process.kill()
            for worker in workers if kind == KINDS[2] else ():
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
        self.process.wait()
        self.start()
        return KINDS[1] if kind == KINDS[0] else kind

    def tend(self) -> None:
        """Start it again if it is gone: workers of a killed supervisor hold the port until they have ended."""
        if self.process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """As an operator does."""
        self.process.terminate()
        self.process.wait(60)


class Sender(threading.Thread):
    """Sends events of its own users until it is told to stop; what it leaves behind is acknowledged."""

    def __init__(self, number: int, port: int, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.users = range(1 + number * USERS, 1 + (number + 1) * USERS)
        self.sent = dict.fromkeys(self.users, 0)
        """User -> how many events were acknowledged: those of the numbers below."""
        self.port, self.ending = port, stop
        self.draw = random.Random(seed * 1000 + number)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.connection: HTTPConnection | None = None

    def run(self) -> None:
        """See the class."""
        while not self.ending.is_set():
            user = self.draw.choice(self.users)
            number, chance = self.sent[user], self.draw.random()
            if chance < AGAIN and number:
                self.acknowledged(user, self.draw.randrange(max(0, number - 100), number), known=True)
            elif chance < AGAIN + LATE:
                self.acknowledged(user, number + 1)
                self.acknowledged(user, number)
                self.sent[user] += 2
            else:
                self.acknowledged(user, number)
                self.sent[user] += 1

    def acknowledged(self, user: int, number: int, *, known: bool = False) -> None:
        """Send an event until it is acknowledged; `known`: it was before."""
        one = event(user, number)
        body = json.dumps({"user": f"u{user}", "item": one.item, "time": one.time, "id": one.id})
        tries = 0
        while True:
            tries += 1
            try:
                if self.connection is None:
                    self.connection = HTTPConnection("127.0.0.1", self.port, timeout=3)
                self.connection.request("POST", "/events", body, {"Content-Type": "application/json"})
                answer = self.connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    break
                if answer.status not in (503, 504):
                    self.wrong.append(f"status {answer.status} for {body}: {text.decode()}")
                self.counts[f"status {answer.status}"] += 1
            except (OSError, HTTPException) as error:
                self.counts[type(error).__name__] += 1
                if self.connection is not None:
                    self.connection.close()
                self.connection = None
            time.sleep(0.05)
        (outcome,) = json.loads(text)["outcomes"]
        again = "sent once more: " if known else ""
        self.counts[f"{again}{outcome}"] += 1
        self.counts["acknowledged"] += 1
        if (outcome == "duplicate") != known and (known or tries == 1):
            self.wrong.append(f"{again}{one.id} of user u{user} is '{outcome}' at try {tries}")


def measure(name: str, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Load, kill, read all users, compare."""
    with seeded(seed):
        model = model_class(name)(N_ITEMS, model_class(name).Config.of(CONFIGS[name])).eval()
    trained = Trained(name, model, Vocabulary(range(1, N_ITEMS + 1)), None, {})
    began, stop, draw = time.perf_counter(), threading.Event(), random.Random(seed)
    service = Service(trained.save(folder / "run"), folder / "store", folder / "log")
    senders = [Sender(number, service.port, seed, stop) for number in range(THREADS)]
    killed: Counter[str] = Counter()
    between = []
    try:
        for sender in senders:
            sender.start()
        for _ in range(kills):
            before = acknowledged(senders)
            wait(service, lambda before=before: acknowledged(senders) > before)  # type: ignore[misc]
            time.sleep(draw.expovariate(1.0))
            killed[service.kill(draw.choice(KINDS), draw)] += 1
            between.append(acknowledged(senders) - before)
        stop.set()
        wait(service, lambda: not any(sender.is_alive() for sender in senders))
        sent = {f"u{user}": count for sender in senders for user, count in sender.sent.items() if count}
        kept = {user: read(service, user) for user in sent}
        service.stop()
    finally:
        stop.set()
        service.process.kill()
    wrong = [one for sender in senders for one in sender.wrong]
    for user, count in sent.items():
        whole = [event(int(user[1:]), number) for number in range(count)]
        wrong += differences(user, [(one.item, one.time) for one in whole], kept[user])  # type: ignore[misc]
    wrong += unlike(trained, folder / "store", kept)
    counts = sum((sender.counts for sender in senders), Counter[str]())
    return {
        "kills": dict(killed),
        "starts": service.starts,
        "seconds": round(time.perf_counter() - began),
        "users": len(sent),
        "events": sum(sent.values()),
        "acknowledged_before_a_kill": {"least": min(between), "median": sorted(between)[kills // 2]},
        "answers": dict(sorted(counts.items())),
        "wrong": wrong,
    }


def acknowledged(senders: Sequence[Sender]) -> int:
    """By all."""
    return sum(sender.counts["acknowledged"] for sender in senders)


def wait(service: Service, done: Callable[[], bool]) -> None:
    """Until something is so; whoever runs the service starts it again if it is gone."""
    last = time.monotonic() + WAIT
    while not done():
        if time.monotonic() > last:
            sys.exit(f"nothing was acknowledged for {WAIT:g} s; the service said:\n{service.log.read_text()[-2000:]}")
        service.tend()
        time.sleep(0.02)


def read(service: Service, user: str) -> dict[str, Any]:
    """What the service says that it holds of a user; it may still be starting after the last kill."""
    found: dict[str, Any] = {}

    def answered() -> bool:
        connection = HTTPConnection("127.0.0.1", service.port, timeout=60)
        with suppress(OSError, HTTPException):
            connection.request("GET", f"/users/{user}")
            answer = connection.getresponse()
            if answer.status == 404:
                found.update(events=[], seen=0)
            elif answer.status == 200:
                found.update(json.loads(answer.read()))
        connection.close()
        return bool(found)

    wait(service, answered)
    return found


def differences(user: str, sent: Sequence[Sent], kept: Mapping[str, Any]) -> list[str]:
    """What is wrong with what is kept of a user, one line an event."""
    found = [(one["item"], one["time"]) for one in kept["events"]]
    have, want = Counter(found), Counter(sent)
    wrong = [f"{user}: {one} is lost" for one in want if one not in have]
    wrong += [f"{user}: {one} was taken in {count} times" for one, count in have.items() if one in want and count > 1]
    wrong += [f"{user}: {one} was never sent" for one in have if one not in want]
    if not wrong and found != list(sent):
        wrong.append(f"{user}: the events are not in the order of their times")
    if kept["seen"] != len(sent):
        wrong.append(f"{user}: {kept['seen']} events are said to be taken in, {len(sent)} were")
    return wrong


def unlike(trained: Trained, folder: Path, kept: Mapping[str, Any]) -> list[str]:
    """Users whose state is not what the events kept lead to, and users that nobody sent."""
    store, config = open_store(folder), EngineConfig(history=KEEP)
    served, again = Engine(trained, store, config), Engine(trained, MemoryStore(), config)
    wrong = [f"{one.user}: no such user was sent" for one in store.everyone() if one.user not in kept]
    for user, facts in kept.items():
        events = [Event(one["item"], one["time"]) for one in facts["events"]]
        again.ask(Ask(user=user, events=events))
        state, wanted = served.state(user), again.state(user)
        if state is None or wanted is None:
            wrong.append(f"{user}: has no state")
            continue
        for part, value in wanted.items():
            off = (state[part].double() - value.double()).abs() / value.double().abs().clamp(min=1)
            if not bool((off <= BOUND).all()):
                wrong.append(f"{user}: '{part}' of the state is off by {float(off.max()):.1e}")
    served.close()
    return wrong
