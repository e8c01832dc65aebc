"""How long a log of YOOCHOOSE's size takes from CSV to flat arrays, and how much memory.

    python benchmarks/prepare_33m.py

The CSV is generated once, in the shape of yoochoose-clicks.dat: no header; session id, time with milliseconds and Z,
item id, category; 9,249,729 sessions with 33.0 million clicks on 52,739 items, 1.5 GB. Session lengths are geometric
with the real mean (3.57), popularity falls like that of a shop. Then a fresh process does what a user would do:

    read -> filter (items with 5 clicks, sessions with 2) -> split by the last day -> number -> save

and each step is timed. Memory is the peak resident set of that process. To reach: 90 s and 6 GB on two cores. Other
programs slow a run down, so how busy they kept the machine stands beside the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

SESSIONS, ITEMS, MEAN_LENGTH = 9_249_729, 52_739, 3.57
FIRST, LAST = 1_396_310_400_000, 1_412_121_600_000  # 2014-04-01 .. 2014-10-01, milliseconds
NAMES = ["session", "time", "item", "category"]
RESULT = Path(__file__).parent / "results" / "prepare_33m.json"
MEASURE = "--measure"


def generate(path: Path, sessions: int) -> None:
    """Write the CSV: sessions in the order of their ids, which is nearly that of their times."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / MEAN_LENGTH, sessions), 200)
    n = int(lengths.sum())
    ids = np.cumsum(rng.integers(1, 3, sessions))
    starts = np.sort(rng.integers(FIRST, LAST, sessions))
    starts = starts[np.argsort(np.arange(sessions) + rng.normal(0, 50, sessions))]
    passed = np.cumsum(rng.exponential(120_000, n).astype(np.int64) + 1)
    firsts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    catalogue = rng.permutation(np.arange(ITEMS)) * 20 + 214_000_000
    clicks = {
        "session": np.repeat(ids, lengths),
        "time": np.repeat(starts, lengths) + passed - passed[firsts],
        "item": catalogue[(ITEMS ** rng.random(n)).astype(np.int64) - 1],
        "category": np.where(rng.random(n) < 0.5, 0, rng.integers(1, 13, n)),
    }
    temporary = path.with_name(f".{path.name}.tmp")
    with duckdb.connect() as db:
        db.register("clicks", clicks)
        db.execute(
            f"""COPY (SELECT session, strftime(make_timestamp_ms(time), '%Y-%m-%dT%H:%M:%S.%gZ'), item,
                      CASE WHEN category = 0 AND item % 3 = 0 THEN 'S' ELSE category::VARCHAR END FROM clicks)
                TO '{temporary}' (HEADER false)"""
        )
    temporary.replace(path)


def measure(path: Path, threads: int) -> dict[str, Any]:
    """The way of the data in this process, and what each step took."""
    seconds = {}
    start = mark = time.perf_counter()

    def took(step: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        seconds[step], mark = round(now - mark, 1), now

    from foretaste.data.events import EventLog
    from foretaste.data.splits import GlobalTime

    took("import")
    log = EventLog.read(path, session="session", item="item", time="time", names=NAMES, threads=threads)
    took("read")
    log = log.filter(item_support=5, session_length=2)
    took("filter")
    with tempfile.TemporaryDirectory(prefix="foretaste-") as folder:
        prepared = log.prepare(GlobalTime(days=1), folder=Path(folder) / "prepared")
        took("prepare")
        counts = prepared.manifest["counts"]
    total = round(time.perf_counter() - start, 1)
    steps = [{"step": s.name, "events": s.events, "sessions": s.sessions, "items": s.items} for s in log.steps]
    cpu = round(sum(os.times()[:2]), 1)
    return {
        "seconds": seconds | {"total": total},
        "cpu_seconds": cpu,
        "peak_gb": peak(),
        "steps": steps,
        "counts": counts,
    }


def peak() -> float:
    """Largest resident set of this process in GB, without what its parent had before it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e9, 2)
    raise SystemExit("the peak of memory is read from /proc/self/status; this system has none")


def busy_seconds() -> float:
    """Core-seconds the whole machine has worked since it started; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        user, nice, system, *_ = Path("/proc/stat").read_text().split()[1:]
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def main() -> None:
    """Generate if need be, measure in a fresh process, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="where the CSV lies or is put (default: the temporary folder)")
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="fewer for a trial; then no result is written")
    parser.add_argument("--threads", type=int, default=2, help="of DuckDB")
    parser.add_argument(MEASURE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    path = given.csv or Path(tempfile.gettempdir()) / f"foretaste-clicks-{given.sessions}.csv"
    if given.measure:
        print(json.dumps(measure(path, given.threads)))
        return
    if not path.exists():
        print(f"generating {path}", flush=True)
        generate(path, given.sessions)
    start, busy = time.perf_counter(), busy_seconds()
    again = [sys.executable, __file__, MEASURE, "--csv", str(path), "--threads", str(given.threads)]
    found = json.loads(subprocess.run(again, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    others = (busy_seconds() - busy - found["cpu_seconds"]) / (time.perf_counter() - start)
    result = {
        "command": "python benchmarks/prepare_33m.py",
        "date": datetime.now(UTC).date().isoformat(),
        "csv_gb": round(path.stat().st_size / 1e9, 2),
        "threads": given.threads,
        "cores": os.cpu_count(),
        "cores_taken_by_others": round(max(others, 0.0), 2),
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "to_reach": {"seconds": 90, "peak_gb": 6},
        **found,
    }
    print(json.dumps(result, indent=2))
    if given.sessions == SESSIONS:
        RESULT.parent.mkdir(exist_ok=True)
        temporary = RESULT.with_suffix(".tmp")
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        temporary.replace(RESULT)


if __name__ == "__main__":
    main()
