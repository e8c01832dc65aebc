"""What each model costs online and in training: one event's time, bytes of state, events a second, memory.

    python benchmarks/online_step.py [--data FOLDER] [--model NAME ...] [--seconds 6]

For every registered model with its default Config, and the variants of LSAMN, DMAN and ASARS: the time of one online
step (take in one event, give the query) after 10 events of history, after 10,000, and after 10,019, where DMAN absorbs
a segment; one user, one thread; the bytes of its state; and, in a process of its own with the model's own recipe, how
many events a second it trains on, how many targets (LSAMN's are all items of later sessions), and the peak of memory.
The log is 30Music as ASARS prepares it where it is at hand (users, sessions, times), else a simulated shop. Every step
starts from the same state, and the three are measured in turn, so that whatever else the machine does weighs on all
alike. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretaste.compare.cost import made, peak_mb
from foretaste.data import datasets
from foretaste.data.files import write_text
from foretaste.data.sequences import TRAIN, Sequences
from foretaste.data.simulate import shop
from foretaste.errors import ForetasteError
from foretaste.models import MODELS, model_class
from foretaste.models.contract import Events, SequenceModel, State, seeded
from foretaste.training.loop import train
from foretaste.training.settings import TrainConfig

LENGTHS = {"step_after_10_us": 10, "step_after_10000_us": 10_000, "step_absorbing_us": 10_019}
STEPS = 400
N_ITEMS, N_USERS = 10_000, 1_000
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in MODELS},
    "lsamn d 100": ("lsamn", {"embedding_size": 100}),
    "s-lsamn": ("lsamn", {"preference_attention": False}),
    "p-lsamn": ("lsamn", {"item_attention": False}),
    "n-lsamn": ("lsamn", {"item_attention": False, "preference_attention": False}),
    "dman-xl": ("dman", {"memory": "none"}),
    "dman-fifo": ("dman", {"memory": "fifo"}),
    "dman-nran": ("dman", {"nran": True}),
    "dman bare": ("dman", {"bare": True}),
    **{
        f"asars {name}": ("asars", {"variant": name})
        for name in ("none", "user_att", "user_cat", "time_att", "time_cat")
    },
    "asars query last": ("asars", {"query": "last"}),
    "asars temporal": ("asars", {"temporal": True}),
}
"""Row -> model and settings."""
EXPECTED = {
    "narm": "7.6 kB", "rum-item": "80 B", "rum-feature": "4 kB", "lsamn d 100": "0.8 kB", "dman": "61 kB",
    "asars": "2.0 kB", "gru4rec": "0.4 kB",
}  # fmt: skip
"""Bytes of state a user that the equations alone ask for."""
RESULT = Path(__file__).parent / "results" / "online_step.json"


def main() -> None:
    """Measure each model in a process of its own and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(1)
        name = arguments.model[0]
        print(json.dumps({**online(name), **training(name, arguments.data, arguments.seconds), **made()}))
        return
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in arguments.model:
        command = [sys.executable, __file__, "--one", "--model", name, "--data", str(arguments.data)]
        done = subprocess.run([*command, "--seconds", str(arguments.seconds)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        results[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(results[name]), flush=True)
        write_text(RESULT, json.dumps(results, indent=1) + "\n")
    write_text(RESULT.with_suffix(".md"), table({name: results[name] for name in ROWS if name in results}))
    print(RESULT.with_suffix(".md").read_text())


def events(count: int, rng: np.random.Generator) -> Events:
    """One user's random events: a session every 20, a minute or so apart."""
    place = torch.arange(count)[None]
    times = torch.from_numpy(np.cumsum(rng.integers(1, 120, count)))[None] + 7200 * (place // 20)
    items = torch.from_numpy(rng.integers(1, N_ITEMS + 1, count))[None]
    dwell = torch.from_numpy(rng.integers(1, 120, count))[None]
    return Events(items, torch.ones_like(items, dtype=torch.bool), place % 20 == 0, times, {"dwell": dwell})


def generated() -> Sequences:
    """A small log for what a model counts before its first step."""
    rng = np.random.default_rng(1)
    every = events(2_000, rng)
    ends = np.arange(0, 2_001, 20)
    columns = {"dwell": every.columns["dwell"][0].numpy()}
    items, times = every.items[0].numpy().astype(np.int32), every.times[0].numpy()  # type: ignore[index]
    return Sequences(
        items, np.array([0, 2_000]), ends, np.zeros(2_000, np.uint8), np.ones(1, np.int32), times, columns=columns
    )


def online(name: str) -> dict[str, Any]:
    """Microseconds of one step after a short history and after long ones, and the bytes of the state."""
    kind, settings = model_class(ROWS[name][0]), ROWS[name][1]
    with seeded(0):
        model = kind(N_ITEMS, kind.Config.of(settings), N_USERS)
    model.count(generated())
    model.eval()
    rng = np.random.default_rng(0)
    coming = events(STEPS, rng)
    with torch.inference_mode():
        states = {key: after(model, events(length, rng)) for key, length in LENGTHS.items()}
        took: dict[str, list[float]] = {key: [] for key in LENGTHS}
        for step in range(STEPS):
            one = coming.cut(step, step + 1)
            for key in sorted(LENGTHS, reverse=step % 2 == 0):
                began = time.perf_counter()
                model(one, states[key])
                took[key].append(time.perf_counter() - began)
    middle = {key: round(1e6 * float(np.median(times[STEPS // 8 :])), 1) for key, times in took.items()}
    size = {key: part.element_size() * part[0].numel() for key, part in states["step_after_10000_us"].items()}
    return {
        **middle,
        "ratio": round(middle["step_after_10000_us"] / middle["step_after_10_us"], 3),
        "state_bytes": sum(size.values()),
        "state": size,
    }


def after(model: SequenceModel, history: Events) -> State:
    """The state after a history, fed in pieces."""
    state = model.initial_state(torch.ones(1, dtype=torch.int64))
    for first in range(0, history.shape[1], 500):
        piece = history.cut(first, first + 500)
        _, state = model(piece, state, at=torch.zeros_like(piece.mask))
    return state


def training(name: str, data: Path, seconds: float) -> dict[str, Any]:
    """Events and targets a second in training with the model's own recipe, and the peak of memory."""
    kind, settings = model_class(ROWS[name][0]), ROWS[name][1]
    if kind.learns == "counts":
        return {}
    try:
        prepared = datasets.apply(datasets.recipe("asars-30music"), data)
        log, users, source = prepared.sequences.of_part(TRAIN), len(prepared.users or ()), "30Music"
    except ForetasteError:  # without the log: a generated one
        log, users, source = shop(seed=0).log().prepare().sequences, 0, "the simulated shop"
        users = log.n_users
    with seeded(0):
        model = kind(int(log.items.max()), kind.Config.of(settings), users)
    model.count(log)
    found: dict[str, float] = {}

    class Enough(Exception):
        pass

    def report(facts: Any) -> None:
        if "done" in facts:
            found.update(done=facts["done"], seconds=facts["seconds"], targets=facts["targets"])
            if facts["seconds"] > seconds:
                raise Enough

    with contextlib.suppress(Enough):
        train(model, log, TrainConfig.of({**kind.recipe, "epochs": 1}), report=report)
    speed = found["done"] / found["seconds"]
    return {
        "log": source,
        "events_per_second": round(speed * len(log.items) / found["targets"]),
        "targets_per_second": round(speed),
        "peak_mb": peak_mb(),
    }


def table(results: dict[str, Any]) -> str:
    """All models, one line each."""
    lines = [
        "# What each model costs",
        "",
        f"Default Config; one thread; {N_ITEMS:,} items online; the median of {STEPS} steps, each from the same "
        "state. After 10,019 events DMAN absorbs a segment, as at every 20th event. SASRec, gSASRec and eSASRec run "
        "over what their window holds, and eSASRec's of 200 events is nearly empty after 10. Beside a state its "
        "equations' own bytes: ours also hold the user's number, counts, and what `explain` needs (LSAMN's 64 item "
        "numbers). Training is on 30Music where that log is at hand; a target is an item that is asked for (LSAMN's "
        "are all items of later sessions). A step is taking one event in and giving the query; whole answers of the "
        "service, after 10 events and after 10,000, are in serving_states.md. Made by `python "
        "benchmarks/online_step.py`.",
        "",
        "| model | one step after 10 events, us | after 10,000 | ratio | after 10,019 | state, bytes a user "
        "| equations | training, events/s | targets/s | peak memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in results.items():
        short, long, absorbing = (f"{found[key]:.0f}" for key in LENGTHS)
        trained = [f"{found[key]:,}" if key in found else "" for key in ("events_per_second", "targets_per_second")]
        lines.append(
            f"| {name} | {short} | {long} | {found['ratio']:.2f} | {absorbing} | {found['state_bytes']:,} "
            f"| {EXPECTED.get(name, '')} | {' | '.join(trained)} | {found.get('peak_mb', '')} |"
        )
    days = {f"{one['machine']['processor']}, {one['made']}" for one in results.values() if "machine" in one}
    return "\n".join([*lines, "", f"Made on: {'; '.join(sorted(days))}."]) + "\n"


if __name__ == "__main__":
    main()
