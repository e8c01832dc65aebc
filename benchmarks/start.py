"""What a new user waits for: `import foretaste`, a command's help, and the demo (its environment apart).

    python benchmarks/start.py [--simulated]

Each runs in a fresh process; import and help five times, of which the median counts (files are in the system's cache,
as after the first call). The demo is `foretaste demo`, which downloads MovieLens 100K; with `--simulated` a shop that
needs no download. Expected: import below 0.3 s, the demo below 180 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from foretaste.compare.cost import made
from foretaste.data.files import write_text

RESULT = Path(__file__).parent / "results" / "start.json"


def seconds(*words: str) -> float:
    """Of one fresh process of Python."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", action="store_true", help="the demo that needs no download")
    demo = ["-m", "foretaste", "demo", *(["--simulated"] if parser.parse_args().simulated else [])]
    calls = {"python": ["-c", "pass"], "import": ["-c", "import foretaste"], "help": ["-m", "foretaste", "--help"]}
    found = {name: statistics.median(seconds(*words) for _ in range(5)) for name, words in calls.items()}
    result = {
        "command": "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        **made(),
        "import_seconds": round(found["import"] - found["python"], 3),
        "help_seconds": round(found["help"], 3),
        "demo_seconds": round(seconds(*demo), 1),
    }
    write_text(RESULT, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
