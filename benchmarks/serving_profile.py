"""Where the time of an answer goes: the pieces of one batch in the engine, and of one request in front of it.

    python benchmarks/serving_profile.py [--model NAME ...] [--batch 1 5 16] [--seconds 5]

The case of `serving_load.py`: a request takes in an event of one of 20,000 users and returns 20 of 40,000 items, with
the embedded store and drawn weights. The engine is called with batches of so many requests, one after the other, in
one thread with nothing beside it, and each piece is timed where it is called. `parse` and `format` are what the service
does with one request before and after the engine; the HTTP server's own work is not in it.

Under load a request waits for the batch in hand and then for its own, so its time is about twice a batch's, plus what
the server's threads take from each other. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

import numpy as np
import torch

from foretaste.data.files import write_text
from foretaste.data.vocabulary import Vocabulary
from foretaste.models import MODELS, choosing, model_class
from foretaste.models.contract import seeded
from foretaste.models.saved import Trained
from foretaste.serving.asks import Ask, Event
from foretaste.serving.embedded import EmbeddedStore
from foretaste.serving.engine import Engine
from foretaste.serving.limits import ServiceConfig
from foretaste.serving.metrics import Metrics
from foretaste.serving.service import Service

N_ITEMS, N_USERS, K, FIRST = 40_000, 20_000, 20, 3
PIECES = ("plan", "unpack", "step", "pack", "write", "query", "score", "choose", "list", "rest")
RESULT = Path(__file__).parent / "results" / "serving_profile.json"


def main() -> None:
    """Measure each model and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(MODELS), default=["narm", "dman"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 5, 16])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each batch size")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: measure(name, arguments.batch, arguments.seconds) for name in arguments.model}
    write_text(arguments.out, json.dumps(found, indent=1) + "\n")
    write_text(arguments.out.with_suffix(".md"), table(found))
    print(table(found))


def measure(name: str, batches: list[int], seconds: float) -> dict[str, Any]:
    """The pieces of one model, in milliseconds a batch."""
    with seeded(0):
        model = model_class(name)(N_ITEMS, None, 0).eval()
    trained = Trained(name, model, Vocabulary(range(1, N_ITEMS + 1)), None, {})
    with tempfile.TemporaryDirectory() as folder, EmbeddedStore(folder) as store:
        engine, draw = Engine(trained, store), random.Random(0)
        names = [f"u{number}" for number in range(N_USERS)]
        for first in range(0, N_USERS, 50):
            engine.ask_many([_ask(user, draw, k=0) for user in names[first : first + 50] for _ in range(FIRST)])
        clock = Clock()
        clock.watch(engine, trained)
        out: dict[str, Any] = {"batches": {}, **request(engine, draw)}
        for size in batches:
            clock.spent.clear()
            took, end = [], time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                asks = [_ask(user, draw) for user in draw.sample(names, size)]
                clock.time("rest", engine.ask_many, asks)
                took.append(time.perf_counter() - began)
            pieces = {piece: round(1000 * clock.spent[piece] / len(took), 3) for piece in PIECES}
            out["batches"][size] = {**pieces, "p90": round(1000 * float(np.percentile(took, 90)), 3)}
        clock.end()
    return out


def request(engine: Engine, draw: random.Random, times: int = 3000) -> dict[str, float]:
    """What the service does with a request before the engine and after it, in milliseconds."""
    told = engine.ask(_ask("u1", draw))
    began = [0.0, 0.0]

    class Ready:
        """Answers at once."""

        async def ask(self, ask: Ask) -> Any:
            began[1] = time.perf_counter()
            return told

    service = Service(engine, Ready(), ServiceConfig(), Metrics())  # type: ignore[arg-type]
    spent = {"parse": 0.0, "format": 0.0}

    async def run() -> None:
        for number in range(times):
            body = f'{{"user":"u{number}","item":7,"time":{time.time():.3f},"id":"x{number}","recommend":{{"k":{K}}}}}'
            began[0] = time.perf_counter()
            await service.events(body.encode())
            spent["parse"] += began[1] - began[0]
            spent["format"] += time.perf_counter() - began[1]

    asyncio.run(run())
    return {name: round(1000 * total / times, 3) for name, total in spent.items()}


class Clock:
    """Adds up the time of calls, each call's without those inside it."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._inside = [0.0]
        self._back: list[tuple[Any, str, Any]] = []

    def time(self, piece: str, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Make a call, on the account of a piece."""
        self._inside.append(0.0)
        began = time.perf_counter()
        try:
            return call(*given, **named)
        finally:
            took = time.perf_counter() - began
            self.spent[piece] += took - self._inside.pop()
            self._inside[-1] += took

    def watch(self, engine: Engine, trained: Trained) -> None:
        """Put itself around what an engine calls."""
        for piece, owner, name in (
            ("plan", engine, "_plans"),
            ("unpack", engine.stepper.layout, "unpack"),
            ("step", trained, "advance"),
            ("pack", engine.stepper.layout, "pack"),
            ("write", engine.store, "write"),
            ("query", trained.model, "query"),
            ("score", engine.chooser.scorer, "score"),
            ("list", engine.chooser, "_lists"),
            ("choose", choosing, "top_k"),
        ):
            call = getattr(owner, name)
            self._back.append((owner, name, call))
            object.__setattr__(owner, name, lambda *a, piece=piece, call=call, **n: self.time(piece, call, *a, **n))

    def end(self) -> None:
        """Take itself away again."""
        for owner, name, call in self._back:
            object.__setattr__(owner, name, call)


def _ask(user: str, draw: random.Random, k: int = K) -> Ask:
    return Ask(user=user, events=[Event(draw.randrange(N_ITEMS) + 1, time.time(), id=f"{draw.random()}")], k=k)


def table(found: dict[str, Any]) -> str:
    """All models."""
    lines = [
        "# Where the time of an answer goes",
        "",
        f"Milliseconds of one thread for a batch of requests, each taking in an event and returning {K} of {N_ITEMS:,} "
        "items; embedded store. `parse` and `format` are of one request. Made by "
        "`python benchmarks/serving_profile.py`.",
        "",
        f"| model | batch | whole | its p90 | {' | '.join(PIECES)} | parse | format |",
        "| --- |" + " --- |" * (len(PIECES) + 5),
    ]
    for name, one in found.items():
        for size, pieces in one["batches"].items():
            shown = " | ".join(f"{pieces[piece]:.2f}" for piece in PIECES)
            whole = f"{sum(pieces[piece] for piece in PIECES):.2f} | {pieces['p90']:.2f}"
            lines.append(f"| {name} | {size} | {whole} | {shown} | {one['parse']:.2f} | {one['format']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
