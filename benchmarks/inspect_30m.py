"""How long it takes to say what a log of 30 million events is like, and how much memory beside the log itself.

    python benchmarks/inspect_30m.py

The log is drawn as flat arrays: 9 million sessions of 3 million users, 52,739 items whose popularity falls like that of
a shop, gamma gaps. What is measured is `foretaste.inspection.log.log_facts` alone; how long a CSV takes to become such
arrays is in `prepare_33m.py`. To reach: well under a minute, and memory that does not grow with the log. Processor time
stands beside the time that passed, since other programs slow a run down.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path

import numpy as np

from foretaste.data.prepared import Prepared
from foretaste.data.sequences import Sequences
from foretaste.data.vocabulary import Vocabulary
from foretaste.inspection.log import log_facts

SESSIONS, ITEMS = 9_000_000, 52_739
START, SPAN = 1_396_310_400, 180 * 86_400  # seconds


def drawn() -> Prepared:
    """The log."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 3.4, SESSIONS), 200)
    sessions = np.concatenate([[0], np.cumsum(lengths)])
    visits = np.concatenate([[0], np.cumsum(np.minimum(rng.geometric(1 / 3, SESSIONS // 2), 300))])
    users = np.append(visits[visits < SESSIONS], SESSIONS)
    n, n_users = int(sessions[-1]), len(users) - 1
    passed = np.cumsum(rng.gamma(0.6, 150, n).astype(np.int64))
    begin = np.sort(rng.integers(START, START + SPAN, SESSIONS))
    log = Sequences(
        items=(ITEMS ** rng.random(n)).astype(np.int32).clip(1, ITEMS),
        users=sessions[users],
        sessions=sessions,
        part=np.zeros(n, np.uint8),
        user_numbers=np.arange(1, n_users + 1, dtype=np.int32),
        times=np.repeat(begin - passed[sessions[:-1]], lengths) + passed,
    )
    counts = {"events": n, "users": n_users, "sessions": SESSIONS, "items": ITEMS, "prefixes": n - SESSIONS}
    manifest = {
        "has": ["sessions", "times", "users"], "counts": {"all": counts}, "split": None, "test_targets": {"asked": 0},
        "vocabularies": {"items": ITEMS, "users": n_users},
    }  # fmt: skip
    return Prepared(log, {"items": Vocabulary(range(1, ITEMS + 1))}, manifest)


def megabytes(what: str) -> float:
    """VmRSS, what this process holds now, or VmHWM, the most since the peak was forgotten; Linux."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) / 1024


def main() -> None:
    """Draw, count, and print."""
    prepared = drawn()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before, passed, spent = megabytes("VmRSS"), time.perf_counter(), time.process_time()
    facts = log_facts(prepared)
    passed, spent = time.perf_counter() - passed, time.process_time() - spent
    more = megabytes("VmHWM") - before
    print(f"{facts.events:,} events, {facts.sessions:,} sessions, {facts.users:,} users; {platform.machine()}")
    print(f"{passed:.1f} s, {spent:.1f} s of the processor; at most {more:,.0f} MB beside the log")


if __name__ == "__main__":
    main()
