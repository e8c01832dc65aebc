"""How many of the sessions that LSAMN reads can tell its item attention from a mean: those of two items and more.

    python benchmarks/session_sizes.py [--data FOLDER]

Of each log of its tables that can be had: the sessions before each user's last, and the share of them with two
different items or more. The tables' first lines say these numbers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from foretaste.data import datasets
from foretaste.data.files import write_text
from foretaste.data.sequences import TRAIN, VALIDATION

LOGS = ("instacart-sample", "lsamn-musical-instruments", "lsamn-online-retail", "tmall-shan")
RESULT = Path(__file__).parent / "results" / "session_sizes.json"


def main() -> None:
    """Count each log and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    folder = parser.parse_args().data
    result: dict[str, dict[str, float]] = {}
    for name in LOGS:
        log = datasets.apply(datasets.recipe(name), folder).sequences.of_part(TRAIN, VALIDATION)
        session = np.repeat(np.arange(log.n_sessions), np.diff(log.sessions))
        different = np.bincount(np.unique(np.stack([session, log.items]), axis=1)[0])
        share = round(100 * float((different > 1).mean()), 1)
        result[name] = {"sessions before the last": len(different), "of two items and more, %": share}
        print(name, result[name], flush=True)
    write_text(RESULT, json.dumps({"command": "python benchmarks/session_sizes.py", **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
