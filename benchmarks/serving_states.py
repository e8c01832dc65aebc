"""What a user takes in the store, what half precision does to it, and what an event costs after a long history.

    python benchmarks/serving_states.py [--model NAME ...] [--folder FOLDER]

For every registered model that a service can run, with its default Config, drawn weights, 40,000 items and 1,000 users:

- bytes a user in the embedded store (record and base) after 50, 200 and 10,000 events, states as float32 and as
  float16, every event with an id and the engine's default settings;
- how far states in float16 drift in 10,000 events, taken in one by one and rounded after each as the engine does, for 8
  users, against float32: the largest difference of a score, in standard deviations of the user's scores, and how many
  of the best 20 items are the same;
- what one ask costs that takes in an event and gives 20 items, one user, in the embedded store, after 10 and after
  10,000 events, in turn, so that whatever else the machine does weighs on both alike. The median is the ask of most
  events; the mean holds the one in 32 that moves the oldest events kept into the base. By the clock, and (`cpu`) by the
  work of this thread alone.

Measure on an idle machine (under 12 minutes); the load average is in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

import numpy as np
import torch

from foretaste.data.files import write_text
from foretaste.data.rules import Edge, Happened, Rules, walk
from foretaste.data.sequences import Sequences
from foretaste.data.vocabulary import Vocabulary
from foretaste.models import MODELS, model_class
from foretaste.models.contract import State, seeded
from foretaste.models.saved import Trained
from foretaste.models.topk import top_k
from foretaste.serving.asks import Ask, Event
from foretaste.serving.engine import Engine
from foretaste.serving.homes import open_store
from foretaste.serving.planning import EngineConfig
from foretaste.serving.stepping import Stepper
from foretaste.serving.store import MemoryStore

N_ITEMS, N_USERS, K = 40_000, 1_000, 20
SHORT, LONG = 10, 10_000
SIZES = (50, 200, LONG)
PIECE = 350
"""Events of one ask while a history is filled."""
FILLED = 8
"""Users."""
ASKS, FRESH = 300, 10
"""Asks that are timed after each history, and how many a user gets before the short history is made anew."""
START = 1_600_000_000
RESULT = Path(__file__).parent / "results" / "serving_states.json"


def main() -> None:
    """Measure each model in a process of its own and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed again")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--short", type=int, default=SHORT, help="events of the short history")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory(prefix="states-", dir=arguments.folder) as folder:
            print(json.dumps(measure(arguments.model[0], Path(folder), arguments.short)))
        return
    before: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 used",
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "load_average": list(os.getloadavg()),
        "short": arguments.short,
        "models": before.get("models", {}),
    }
    for name in arguments.model:
        command = [sys.executable, __file__, "--one", "--model", name, "--short", str(arguments.short)]
        command += ["--folder", str(arguments.folder)] if arguments.folder else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        found["models"][name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(found["models"][name]), flush=True)
        found["load_average_after"] = list(os.getloadavg())
        write_text(arguments.out, json.dumps(found, indent=1) + "\n")
    write_text(arguments.out.with_suffix(".md"), table(found))


def history(user: int, count: int) -> list[Event]:
    """A user's random events: a session every 20, up to two minutes apart."""
    draw = np.random.default_rng(user)
    times = START + np.cumsum(draw.integers(1, 120, count)) + 7200 * (np.arange(count) // 20)
    items = draw.integers(1, N_ITEMS + 1, count)
    both = zip(items.tolist(), times.tolist(), strict=True)
    return [Event(item, float(moment), id=f"{user}-{place}") for place, (item, moment) in enumerate(both)]


def counted() -> Sequences:
    """A small log for what a model counts before its first step: 40 events a user."""
    draw = np.random.default_rng(1)
    count = 40 * N_USERS
    items = draw.integers(1, N_ITEMS + 1, count).astype(np.int32)
    users, sessions = np.arange(0, count + 1, 40), np.arange(0, count + 1, 20)
    times = START + np.cumsum(draw.integers(1, 120, count))
    columns = {"dwell": draw.integers(1, 120, count)}
    numbers = np.arange(1, N_USERS + 1, dtype=np.int32)
    return Sequences(items, users, sessions, np.zeros(count, np.uint8), numbers, times, columns=columns)


def measure(name: str, folder: Path, short: int = SHORT) -> dict[str, Any]:
    """Everything about one model."""
    began, kind = time.perf_counter(), model_class(name)
    with seeded(0):
        model = kind(N_ITEMS, None, N_USERS)
    if not model.causal:
        return {"refused": "told of the next event"}
    model.count(counted())
    users = Vocabulary([f"u{n}" for n in range(1, N_USERS + 1)])
    trained = Trained(name, model.eval(), Vocabulary(range(1, N_ITEMS + 1)), users, {})
    engine = Engine(trained, open_store(folder))
    found: dict[str, Any] = {
        "float32": filled(engine, FILLED),
        "float16": filled(Engine(trained, MemoryStore(), EngineConfig(precision="float16")), 1),
        **drift(engine),
        **costs(engine, short),
    }
    engine.close()
    return {**found, "seconds": round(time.perf_counter() - began, 1)}


def filled(engine: Engine, users: int) -> dict[str, int]:
    """Give users u1, u2, ... all their events, in pieces; bytes of the first after so many."""
    whole = {f"u{n}": history(n, LONG) for n in range(1, users + 1)}
    ends = sorted({*range(SIZES[1] + PIECE, LONG, PIECE), *SIZES})
    found = {"state": engine.stepper.layout.bytes}
    for first, end in zip([0, *ends], ends, strict=False):
        take_in(engine, {user: events[first:end] for user, events in whole.items()})
        if end in SIZES:
            kept = engine.user("u1")
            assert kept is not None
            found[str(end)] = kept.bytes
    return found


def take_in(engine: Engine, events: dict[str, list[Event]]) -> None:
    """Some events of each user, in one call."""
    for told in engine.ask_many([Ask(user=user, events=some) for user, some in events.items()]):
        if isinstance(told, Exception):
            raise told


def drift(engine: Engine) -> dict[str, Any]:
    """What float16 makes of the scores after all events; the engine's states are those of float32."""
    trained = engine.trained
    stepper = Stepper(trained, "float16")
    if torch.float16 not in stepper.layout.stored.values():
        return {"drift": None}
    names = [f"u{n}" for n in range(1, FILLED + 1)]
    steps = []
    for number in range(1, FILLED + 1):
        events = [Happened(event.item, 1000 * int(event.time or 0)) for event in history(number, LONG)]
        steps.append([step for step, _ in walk(Rules(), trained.items, Edge(), events)])
    numbers = [engine.planner.number(name) for name in names]
    values: list[bytes | None] = [None] * FILLED
    for place in range(LONG):
        rows = [stepper.row(values[user], numbers[user], [steps[user][place]]) for user in range(FILLED)]
        values = [*stepper.packed(rows)]
    states = [engine.state(name) for name in names]
    exact: State = {part: torch.cat([state[part] for state in states if state]) for part in states[0] or {}}
    with torch.inference_mode():
        wanted, rounded = (
            trained.model.score(trained.model.query(state))[:, 0]  # [U, I]
            for state in (exact, stepper.layout.unpack([value for value in values if value]))
        )
    off = (rounded - wanted).abs().amax(1) / wanted.std(1)  # [U]
    best, other = top_k(wanted, K)[1].tolist(), top_k(rounded, K)[1].tolist()
    same = [len({*one} & {*two}) for one, two in zip(best, other, strict=True)]
    return {
        "drift": {
            "largest": float(f"{float(off.max()):.2g}"),
            "median": float(f"{float(off.median()):.2g}"),
            "finite": bool(rounded.isfinite().all()),
            "same_of_20": {"mean": sum(same) / FILLED, "least": min(same)},
        }
    }


def costs(engine: Engine, short: int) -> dict[str, Any]:
    """Microseconds of an ask after a short and after a long history: the users of `filled`, and as many new ones."""
    took: dict[int, list[tuple[float, float]]] = {short: [], LONG: []}
    items = np.random.default_rng(2).integers(1, N_ITEMS + 1, ASKS).tolist()
    clock = START + 10**8  # after all histories, and before now
    for place, item in enumerate(items):
        user, turn = place % FILLED, place // FILLED % FRESH
        if not turn:  # the short history again
            engine.forget(f"u{101 + user}")
            take_in(engine, {f"u{101 + user}": history(101 + user, short)})
        pair = [(short, f"u{101 + user}"), (LONG, f"u{1 + user}")]
        for length, name in pair if place % 2 else pair[::-1]:
            now = clock + place + 7200 * (place // (FILLED * FRESH))  # the open session is as long for both
            ask = Ask(user=name, events=[Event(item, now, id=f"new {place}")], k=K)
            began, worked = time.perf_counter(), time.thread_time()
            engine.ask(ask)
            took[length].append((time.perf_counter() - began, time.thread_time() - worked))
    clocked, busy = ({length: np.array(times)[:, kind] for length, times in took.items()} for kind in (0, 1))
    return {
        **{f"ask_after_{length}_us": round(1e6 * float(np.median(times)), 1) for length, times in clocked.items()},
        "ratio": ratio(clocked, short, np.median),
        "ratio_of_means": ratio(clocked, short, np.mean),
        "cpu": {
            **{f"ask_after_{length}_us": round(1e6 * float(np.median(times)), 1) for length, times in busy.items()},
            "ratio": ratio(busy, short, np.median),
            "ratio_of_means": ratio(busy, short, np.mean),
        },
    }


def ratio(took: dict[int, Any], short: int, middle: Callable[[Any], Any]) -> float:
    """Long to short."""
    return round(float(middle(took[LONG]) / middle(took[short])), 3)


def table(found: dict[str, Any]) -> str:
    """All models, one line each."""
    short = found["short"]
    lines = [
        "# What a user takes in the store, and what an event costs",
        "",
        f"Default Config; {N_ITEMS:,} items; bytes of record and base in the embedded store, every event with an id, "
        f"200 to 232 kept; drift of float16 after {LONG:,} events: the largest difference of a score, in standard "
        f"deviations of the user's scores, and how many of the best {K} are the same, on average and at least, "
        f"{FILLED} users; one ask (an event in, {K} items out) after {short} and after {LONG:,} events, the median of "
        f"{ASKS}; {found['machine']}. Made by `python benchmarks/serving_states.py --short {short}`.",
        "",
        "| model | state, float32 | float16 | bytes after 50 events, float32 | float16 | after 200 | float16 "
        f"| after 10,000 | float16 | drift | same of 20 | ask after {short}, us | after 10,000 | ratio | of means |",
        f"|{' --- |' * 15}",
    ]
    for name, one in found["models"].items():
        if "refused" in one:
            lines.append(f"| {name} | {one['refused']} |{' |' * 13}")
            continue
        cells = [f"{one[kind][size]:,}" for size in ("state", *map(str, SIZES)) for kind in ("float32", "float16")]
        drift, same = one["drift"], "all"
        if drift is not None:
            same = f"{drift['same_of_20']['mean']:.1f}, {drift['same_of_20']['least']}"
        cells += ["none" if drift is None else f"{drift['largest']:g}", same]
        cells += [f"{one[f'ask_after_{length}_us']:,.0f}" for length in (short, LONG)]
        cells += [f"{one[kind]:.2f}" for kind in ("ratio", "ratio_of_means")]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
