"""How long the service takes to be ready, and how many events a second it takes in.

    python benchmarks/serving_start.py [--model narm dman] [--runs 5] [--seconds 20] [--folder FOLDER]

Recommenders with default Configs and drawn weights over 40,000 items, one worker process, the embedded store.

- `start`: seconds from starting `foretaste serve` until GET /ready answers 200, the median of some runs; one start
  before them, which is not counted, brings the files into the page cache.
- `events`: events a second that POST /events takes in from `Client`, 100 events a request, each of a random one of
  20,000 users, with ids and without recommendations, by one and by four threads of one client; durable against killed
  processes (`process`) and against a power cut (`power`; FOLDER has to be on a disk, not in memory). The first model's.

Measure on an idle machine: the service and the client share it. The load average is in the file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from foretaste.data.files import write_text
from foretaste.data.vocabulary import Vocabulary
from foretaste.models import model_class
from foretaste.models.contract import seeded
from foretaste.models.saved import Trained
from foretaste.serving.client import Client

N_ITEMS, N_USERS, BATCH = 40_000, 20_000, 100
THREADS = (1, 4)
WARM = 2.0
"""Seconds before the clock runs."""
LONGEST = 120.0
"""Seconds that a start may take."""
RESULT = Path(__file__).parent / "results" / "serving_start.json"


def main() -> None:
    """Start, feed, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["narm", "dman"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of events")
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed again")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": list(os.getloadavg()),
        "start": {},
        "events": [],
    }
    with tempfile.TemporaryDirectory(prefix="start-", dir=arguments.folder) as name:
        folder = Path(name)
        for model in arguments.model:
            run = saved(model, folder / model)
            took = [start(run, folder / f"{model}-{number}") for number in range(arguments.runs + 1)][1:]
            found["start"][model] = {"median": round(statistics.median(took), 2), "all": [round(t, 2) for t in took]}
            print(model, json.dumps(found["start"][model]), flush=True)
        model = arguments.model[0]
        for durability, threads in itertools.product(("process", "power"), THREADS):
            place = folder / f"{durability}-{threads}"
            with serving(folder / model, place, "--durability", durability) as (url, _):
                rate = taken_in(url, threads, arguments.seconds)
            found["events"].append({"model": model, "durability": durability, "threads": threads, "per_second": rate})
            print(json.dumps(found["events"][-1]), flush=True)
    found["load_average_after"] = list(os.getloadavg())
    write_text(arguments.out, json.dumps(found, indent=1) + "\n")
    write_text(arguments.out.with_suffix(".md"), table(found))


def saved(name: str, folder: Path) -> Path:
    """A recommender with the weights that it begins with."""
    with seeded(0):
        model = model_class(name)(N_ITEMS, None, 0)
    return Trained(name, model.eval(), Vocabulary(range(1, N_ITEMS + 1)), None, {}).save(folder)


@contextmanager
def serving(run: Path, store: Path, *options: str) -> Iterator[tuple[str, float]]:
    """The service as a process that is ready; its address, and the seconds that it took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "foretaste", "serve", str(run), "--store", str(store), "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--log-level", "warning", *options], stdout=subprocess.DEVNULL)
    try:
        while not ready(url):
            if process.poll() is not None or time.perf_counter() - began > LONGEST:
                sys.exit(f"the service of {run.name} does not start")
            time.sleep(0.01)
        yield url, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(60)


def ready(url: str) -> bool:
    """Does it answer 200?"""
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=LONGEST) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def start(run: Path, store: Path) -> float:
    """Seconds of one start."""
    with serving(run, store) as (_, took):
        return took


def taken_in(url: str, threads: int, seconds: float) -> int:
    """Events a second."""
    client, counts = Client(url, timeout=60), [0] * threads
    begin = time.perf_counter() + WARM
    end = begin + seconds

    def feed(number: int) -> None:
        draw = random.Random(number)
        while (now := time.perf_counter()) < end:
            some = [{"user": draw.randrange(N_USERS), "item": 1 + draw.randrange(N_ITEMS)} for _ in range(BATCH)]
            outcomes = client.observe_many(some)["outcomes"]
            assert outcomes == BATCH * ["applied"], outcomes
            counts[number] += BATCH * (begin <= now)
        client.close()

    feeding = [threading.Thread(target=feed, args=(number,)) for number in range(threads)]
    for thread in feeding:
        thread.start()
    for thread in feeding:
        thread.join()
    return round(sum(counts) / (time.perf_counter() - begin))


def table(found: dict[str, Any]) -> str:
    """Both tables."""
    lines = [
        "# Start of the service, and events taken in",
        "",
        f"{N_ITEMS:,} items, default Config, one worker process, embedded store, client on the same machine; "
        f"{found['machine']}. Made by `python benchmarks/serving_start.py`, which says how.",
        "",
        "| model | seconds to ready, median | all |",
        "| --- | --- | --- |",
    ]
    for name, one in found["start"].items():
        lines.append(f"| {name} | {one['median']} | {', '.join(map(str, one['all']))} |")
    lines += [
        "",
        f"| model | durable against | client threads | events/s, {BATCH} a request |",
        "| --- | --- | --- | --- |",
    ]
    against = {"process": "killed processes", "power": "a power cut"}
    for one in found["events"]:
        cells = [one["model"], against[one["durability"]], str(one["threads"]), f"{one['per_second']:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
