"""How many users' records a store reads and writes a second, by home, size of the record, and users in one step.

    python benchmarks/stores.py [--folder FOLDER] [--users 10000] [--seconds 3]

A step is what one micro-batch of the service costs: `read` of 1, 16 or 64 users drawn at random, each record changed in
64 places, `write` of all of them with the versions that were read. One process, one thread. The sizes are those of the
states of ASARS (2.1 kB), NARM (8 kB) and DMAN (62 kB). The homes, by what an acknowledged write survives:

- `embedded, process` and `networked, everysec` (Redis with `appendonly yes`): any killed process; a power cut may lose
  the last second.
- `embedded, power` and `networked, always` (`appendfsync always`): a power cut too.

The networked homes are measured where redis-server or valkey-server is installed, on loopback, so both processes share
the machine. `disk_waits` is how many times a second 4 kB can be appended and brought to the disk in FOLDER, the bound
of the homes that survive a power cut: FOLDER has to be on a disk, not in memory. Measure on an idle machine; the load
average is in the file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import redis

from foretaste.data.files import write_text
from foretaste.errors import StoreError
from foretaste.serving.homes import open_store
from foretaste.serving.store import Change, Store, Whole

SIZES = (2_112, 8_008, 61_976)
BATCHES = (1, 16, 64)
HOMES = {
    "embedded, process": "process",
    "embedded, power": "power",
    "networked, everysec": "everysec",
    "networked, always": "always",
}
WARM = 0.1
"""Share of the seconds before the clock runs."""
RESULT = Path(__file__).parent / "results" / "stores.json"


def main() -> None:
    """Measure each home and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the stores are made, and removed again")
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"lmdb": lmdb.__version__, "redis-py": redis.__version__},
        "load_average": list(os.getloadavg()),
        "users": arguments.users,
        "homes": {},
    }
    with tempfile.TemporaryDirectory(prefix="stores-", dir=arguments.folder) as name:
        found["disk_waits"] = disk_waits(Path(name), arguments.seconds)
        for home in HOMES:
            for size in SIZES:
                with opened(home, Path(name)) as store:
                    if store is None:
                        continue
                    one = measure(store, size, arguments.users, arguments.seconds)
                if "server" in one:
                    found["versions"]["server"] = one.pop("server")
                found["homes"].setdefault(home, {})[str(size)] = one
                print(home, size, json.dumps(one), flush=True)
    found["load_average_after"] = list(os.getloadavg())
    write_text(arguments.out, json.dumps(found, indent=1) + "\n")
    write_text(arguments.out.with_suffix(".md"), table(found))


@contextlib.contextmanager
def opened(home: str, folder: Path) -> Iterator[Store | None]:
    """An empty store, gone afterwards; None where there is no server program."""
    place = Path(tempfile.mkdtemp(dir=folder))
    server = None
    if home.startswith("embedded"):
        store = open_store(place, durability="power" if HOMES[home] == "power" else "process")
    else:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            yield None
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {"port": port, "bind": "127.0.0.1", "dir": place, "save": "", "appendonly": "yes"}
        words = [str(word) for option in options.items() for word in (f"--{option[0]}", option[1])]
        command = [program, *words, "--appendfsync", HOMES[home]]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        store = open_store(f"redis://127.0.0.1:{port}", timeout=60)
        wait_for(store)
    try:
        yield store
    finally:
        store.close()
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(place)


def wait_for(store: Store) -> None:
    """Until the server answers."""
    for _ in range(100):
        with contextlib.suppress(StoreError):
            store.ping()
            return
        time.sleep(0.1)
    raise SystemExit("the server does not start")


def measure(store: Store, size: int, users: int, seconds: float) -> dict[str, Any]:
    """Fill the store, then steps of each batch size, and reading alone."""
    draw = random.Random(0)
    for start in range(0, users, 256):
        some = range(start, min(start + 256, users))
        store.put_all([Whole(f"user {row}", draw.randbytes(size), b"", 0) for row in some])
    facts = store.report()
    found: dict[str, Any] = {"bytes_per_user": round(facts["bytes"] / users)}
    for batch in BATCHES:
        found[f"write_{batch}"] = pace(store, users, batch, seconds, write=True)
    found["read_1"] = pace(store, users, 1, seconds / 2, write=False)
    return {**found, **({"server": facts["server"].split("(")[-1].rstrip(")")} if "server" in facts else {})}


def pace(store: Store, users: int, batch: int, seconds: float, *, write: bool) -> dict[str, Any]:
    """Users a second, and microseconds of a step."""
    draw, took = random.Random(batch), []
    began = time.perf_counter() + WARM * seconds
    while (now := time.perf_counter()) < began + seconds:
        names = [f"user {row}" for row in draw.sample(range(users), batch)]
        start = time.perf_counter()
        records = store.read(names)
        if write:
            changes = []
            for name, found in zip(names, records, strict=True):
                assert found is not None
                record = bytearray(found.record)
                record[:64] = os.urandom(64)
                changes.append(Change(name, found.version, bytes(record)))
            assert all(store.write(changes))
        if now > began:
            took.append(1e6 * (time.perf_counter() - start))
    return {
        "users_per_second": round(batch * 1e6 * len(took) / sum(took)),
        **{f"p{part}_us": round(float(np.percentile(took, part)), 1) for part in (50, 99)},
    }


def disk_waits(folder: Path, seconds: float) -> int:
    """Appends of 4 kB, each brought to the disk, a second."""
    count, began = 0, time.perf_counter()
    with (folder / "probe").open("wb") as file:
        while time.perf_counter() < began + seconds:
            file.write(bytes(4096))
            file.flush()
            os.fdatasync(file.fileno())
            count += 1
    return round(count / (time.perf_counter() - began))


def table(found: dict[str, Any]) -> str:
    """One line a home and size."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# What a store writes and reads a second",
        "",
        f"{found['users']:,} users; one process, one thread; users a second, read and written again with compare and "
        f"set, in steps of 1, 16 and 64; {found['machine']}; {versions}; the disk takes {found['disk_waits']:,} writes "
        "of 4 kB a second, one by one. Made by `python benchmarks/stores.py`, which says what each home survives.",
        "",
        "| home | record, bytes | 1 a step | p50 / p99, us | 16 a step | 64 a step | reads alone | bytes a user |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for home, sizes in found["homes"].items():
        for size, one in sizes.items():
            took = f"{one['write_1']['p50_us']:,.0f} / {one['write_1']['p99_us']:,.0f}"
            first, *others = (f"{one[f'write_{batch}']['users_per_second']:,}" for batch in BATCHES)
            reads, size_of = f"{one['read_1']['users_per_second']:,}", f"{one['bytes_per_user']:,}"
            lines.append(f"| {' | '.join((home, f'{int(size):,}', first, took, *others, reads, size_of))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
