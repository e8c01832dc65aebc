"""Whether the service loses an acknowledged event or takes one in twice when it is killed (kill -9) under load.

    python benchmarks/serving_kills.py [--model narm dman] [--kills 200] [--seed 0] [--json FILE]

`foretaste serve` runs with two worker processes over the embedded store. Threads send events one by one, each with an
id, and after whatever error the same again until it is acknowledged; now and then an acknowledged one once more (it has
to be a duplicate), and one event late. At random moments, once events are being acknowledged again, one of three is
killed and, where nobody else does it, started again: a worker, the supervisor alone, the supervisor and all workers. No
user meets an item twice, so every event can be found afterwards. All users are read over HTTP and compared event by
event with what was sent; then the model's state of each is compared with an engine's that took in what is kept, in
order, in a new memory store. The kills are split among the models, which are small and untrained. Linux only (it reads
/proc). Any machine load will do: a busy machine only makes it longer (about 4 s a kill).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from foretaste.data.files import write_text

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.serving.killing import CONFIGS, KINDS, THREADS, measure

RESULT = Path(__file__).parent / "results" / "serving_kills.json"


def main() -> None:
    """Kill each model's service, compare, write the files; exit status 1 if anything was lost or taken in twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": arguments.seed,
        "models": {},
    }
    for place, name in enumerate(arguments.model):
        kills = arguments.kills // len(arguments.model) + (place < arguments.kills % len(arguments.model))
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            found["models"][name] = one = measure(name, kills, arguments.seed + place, Path(folder))
        print(name, json.dumps(one), flush=True)
    write_text(arguments.json, json.dumps(found, indent=1) + "\n")
    write_text(arguments.json.with_suffix(".md"), table(found))
    sys.exit(any(one["wrong"] for one in found["models"].values()))


def table(found: Mapping[str, Any]) -> str:
    """One line a model."""
    lines = [
        "# The service killed under load",
        "",
        f"`foretaste serve` with two worker processes over the embedded store, {THREADS} threads that send single "
        "events, `kill -9` at random moments; then every event compared with what is kept, and every state with a "
        f"replay. {found['machine']}. Made by `python benchmarks/serving_kills.py`.",
        "",
        "| model | kills | of a worker, the supervisor, all | users | acknowledged events | tries without an answer "
        "| found taken in when sent again | acknowledged between kills, median | lost, twice, or otherwise wrong |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found["models"].items():
        killed = [one["kills"].get(kind, 0) for kind in KINDS]
        lost = sum(count for what, count in one["answers"].items() if what[0].isupper())
        cells = [name, f"{sum(killed)}", ", ".join(map(str, killed)), f"{one['users']:,}", f"{one['events']:,}"]
        cells += [f"{lost:,}", str(one["answers"].get("duplicate", 0))]
        cells += [f"{one['acknowledged_before_a_kill']['median']:,}", str(len(one["wrong"]))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
