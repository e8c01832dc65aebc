"""The service under load: events taken in and answered, a request each, at a rate that does not wait for the answers.

    python benchmarks/serving_load.py [--model narm dman] [--rate 1000] [--seconds 300] [--workers 1] [--search]

A request is one POST /events that takes in an event and returns 20 items, over a catalogue of 40,000 items, by the
model's default Config with drawn weights (the time of an answer does not depend on what was learned), with the
embedded store. Arrivals are a Poisson process (open loop) over 64 connections that are open already; a latency counts
from the moment at which the request was to be sent, so that a stall is charged to all who wait behind it. `--search`
looks for the highest rate whose p90 stays under 7 ms and p99 under 25 ms; a closed loop over the same connections gives
the most that goes through. The load generator runs on the same machine, in a process of its own. Measure on an idle
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from foretaste.data.files import write_text

N_ITEMS, N_USERS, CONNECTIONS, K = 40_000, 20_000, 64, 20
P90, P99 = 7.0, 25.0
RESULT = Path(__file__).parent / "results" / "serving_load.json"


def main() -> None:
    """Serve each model, load it, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["narm", "dman"])
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--closed", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.url:
        if arguments.closed:
            print(json.dumps(closed(arguments.url, arguments.seconds)))
        else:
            print(json.dumps(opened(arguments.url, arguments.rate, arguments.seconds)))
        return
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in arguments.model:
        with serving(name, arguments.workers, arguments.set) as url:
            asked(url, rate=200, seconds=5)
            found: dict[str, Any] = {
                "workers": arguments.workers,
                "machine": f"{os.cpu_count()} cores, {platform.machine()}",
            }
            found["closed"] = asked(url, seconds=20, closed=True)
            found["open"] = asked(url, rate=arguments.rate, seconds=arguments.seconds)
            if arguments.search:
                found["highest"] = highest(url, found["closed"]["rate"])
            results[name] = found
            print(name, json.dumps(found), flush=True)
            write_text(RESULT, json.dumps(results, indent=1) + "\n")
    write_text(RESULT.with_suffix(".md"), table(results))
    print(RESULT.with_suffix(".md").read_text())


@contextmanager
def serving(name: str, workers: int, settings: list[str]) -> Iterator[str]:
    """The service of a model with drawn weights, on a free port; its address."""
    import torch

    from foretaste.data.vocabulary import Vocabulary
    from foretaste.models import model_class
    from foretaste.models.contract import seeded
    from foretaste.models.saved import Trained

    torch.set_num_threads(1)
    with seeded(0):
        model = model_class(name)(N_ITEMS, None, 0)
    with tempfile.TemporaryDirectory(dir=os.environ.get("FORETASTE_BENCH")) as folder:
        run_folder = Trained(name, model.eval(), Vocabulary(range(1, N_ITEMS + 1)), None, {}).save(Path(folder) / "run")
        command = [sys.executable, "-m", "foretaste", "serve", str(run_folder), "--port", "0"]
        command += ["--workers", str(workers), "--log-level", "warning"]
        command += [word for setting in settings for word in ("--set", setting)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        url = next(word.rstrip(";") for word in line.split() if word.startswith("http"))
        try:
            for _ in range(300):
                with suppress(OSError), urllib.request.urlopen(f"{url}/ready", timeout=1) as answer:
                    if answer.status == 200:
                        break
                time.sleep(0.1)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def asked(url: str, **options: Any) -> dict[str, Any]:
    """The load generator in a process of its own."""
    command = [sys.executable, __file__, "--url", url, "--seconds", str(options["seconds"])]
    command += ["--closed"] if options.get("closed") else ["--rate", str(options["rate"])]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    print(dict(found.items()), file=sys.stderr, flush=True)
    return found


def highest(url: str, most: float) -> dict[str, Any]:
    """The highest rate that holds both bounds for 15 s, found by halving what lies below the closed loop's rate."""
    low, high = 0.0, most
    best: dict[str, Any] = {}
    for _ in range(6):
        found = asked(url, rate=round((low + high) / 2), seconds=15)
        if found["p90_ms"] < P90 and found["p99_ms"] < P99 and not found["errors"]:
            low, best = found["asked_rate"], found
        else:
            high = found["asked_rate"]
    return best


class Connection:
    """One keep-alive connection: a request at a time, answers measured by their Content-Length."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left, self.due = b"", 0.0

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at that moment."""
        self.due = due
        self.socket.sendall(request)

    def answered(self) -> bool | None:
        """Read a piece; None while the answer is not whole, else whether it is a good one."""
        data = self.socket.recv(65536)
        if not data:
            return False
        self.left += data
        head = self.left.find(b"\r\n\r\n")
        if head < 0:
            return None
        place = self.left.lower().find(b"content-length:")
        size = int(self.left[place + 15 : self.left.find(b"\r\n", place)])
        if len(self.left) < head + 4 + size:
            return None
        good = self.left.startswith(b"HTTP/1.1 200")
        self.left = b""
        return good


class Requests:
    """Requests of random users for random items, each event with a time and an id of its own."""

    def __init__(self, url: str) -> None:
        self.host = url.removeprefix("http://")
        self.random = random.Random(0)
        self.run, self.count = f"{time.time_ns():x}", 0

    def next(self) -> bytes:
        """The bytes of one request."""
        self.count += 1
        user, item = self.random.randrange(N_USERS), self.random.randrange(N_ITEMS) + 1
        body = (
            f'{{"user":"u{user}","item":{item},"time":{time.time():.3f},"id":"{self.run}-{self.count}",'
            f'"recommend":{{"k":{K}}}}}'
        ).encode()
        head = f"POST /events HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Load:
    """The connections, and a thread that reads their answers."""

    def __init__(self, url: str, until: float = 0.0) -> None:
        """Until that moment a connection asks again as soon as it is answered."""
        self.requests, self.until = Requests(url), until
        host, port = url.removeprefix("http://").split(":")
        every = [Connection(host, int(port)) for _ in range(CONNECTIONS)]
        self.free, self.waiting = deque(every), deque[float]()
        self.took: list[float] = []
        self.errors = 0
        self.turn = threading.Lock()
        self.selector = selectors.DefaultSelector()
        for one in every:
            self.selector.register(one.socket, selectors.EVENT_READ, one)
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, due: float) -> None:
        """A request that is due now; who finds every connection busy waits, and its clock runs."""
        with self.turn:
            if self.free:
                self.free.popleft().send(self.requests.next(), due)
            else:
                self.waiting.append(due)

    def _read(self) -> None:
        while True:
            for key, _ in self.selector.select():
                one: Connection = key.data
                good = one.answered()
                if good is None:
                    continue
                now = time.perf_counter()
                self.took.append(now - one.due)
                self.errors += not good
                with self.turn:
                    if now < self.until:
                        one.send(self.requests.next(), now)
                    elif self.waiting:
                        one.send(self.requests.next(), self.waiting.popleft())
                    else:
                        self.free.append(one)


def opened(url: str, rate: float, seconds: float) -> dict[str, Any]:
    """Poisson arrivals at a rate."""
    load = Load(url)
    arrivals = np.cumsum(np.random.default_rng(1).exponential(1 / rate, int(rate * seconds)))
    begin = time.perf_counter() + 0.2
    for arrival in (begin + arrivals).tolist():
        if (left := arrival - time.perf_counter()) > 0:
            time.sleep(left)
        load.send(arrival)
    last = time.perf_counter()
    while len(load.took) < len(arrivals) and time.perf_counter() < last + 30:
        time.sleep(0.05)
    missing = len(arrivals) - len(load.took)
    return {"asked_rate": rate, **told(load.took, load.errors + missing, time.perf_counter() - begin, seconds)}


def closed(url: str, seconds: float) -> dict[str, Any]:
    """Every connection asks again as soon as it is answered."""
    load = Load(url, time.perf_counter() + seconds)
    for _ in range(CONNECTIONS):
        load.send(time.perf_counter())
    time.sleep(seconds + 0.5)
    return told(load.took, load.errors, seconds, seconds)


def told(took: list[float], errors: int, wall: float, seconds: float) -> dict[str, Any]:
    """What is kept of a run."""
    ms = 1000 * np.array(took)
    middle = {f"p{q:g}_ms": round(float(np.percentile(ms, q)), 2) for q in (50, 90, 99, 99.9)}
    return {
        "requests": len(took),
        "rate": round(len(took) / seconds, 1),
        "seconds": seconds,
        "errors": errors,
        **middle,
        "max_ms": round(float(ms.max()), 1),
        "generator_cpu": round(time.process_time() / wall, 2),
    }


def table(results: dict[str, Any]) -> str:
    """All models."""
    lines = [
        "# The service under load",
        "",
        f"One POST takes in an event and returns {K} of {N_ITEMS:,} items; embedded store, durable against a killed "
        f"process; {N_USERS:,} users; {CONNECTIONS} connections; Poisson arrivals, latency from the moment at which a "
        "request was to be sent; the load generator runs on the same machine. Made by "
        "`python benchmarks/serving_load.py --search`.",
        "",
        "| model | worker processes | load | requests/s | seconds | p50 ms | p90 | p99 | p99.9 | greatest | errors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    names = {
        "open": "open loop",
        "highest": f"highest with p90 < {P90:g} and p99 < {P99:g} ms",
        "closed": "closed loop",
    }
    for model, found in results.items():
        for kind, name in names.items():
            if one := found.get(kind):
                times = " | ".join(str(one[f"p{q}_ms"]) for q in ("50", "90", "99", "99.9"))
                lines.append(
                    f"| {model} | {found['workers']} | {name} | {one['rate']:,} | {one['seconds']:g} | {times} "
                    f"| {one['max_ms']} | {one['errors']} |"
                )
    lines += ["", f"Machine: {next(iter(results.values()))['machine']}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
