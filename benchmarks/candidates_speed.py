"""Scores of each row's own candidates: read off the scores of all items, or taken from their own rows of the matrix?

    python benchmarks/candidates_speed.py [--seconds 60] [--threads 2]

A model whose score is an inner product answers for C candidates a row in one of two ways (`SequenceModel.score`): the
product with all I items, of which C are kept, or a gather of C rows. The first wins while I / C is small; the constant
`DENSE` in models/contract.py is the ratio up to which it is taken. Here both are timed with their gradients, 512 rows
of D = 64 a step, taking turns and keeping the best time; below stands the largest ratio at which the product was the
faster one, for each number of candidates. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretaste.compare.cost import made
from foretaste.data.files import write_text
from foretaste.models.contract import DENSE
from softmax_speed import best_of

ROWS, DEPTH = 512, 64
CANDIDATES = (2, 17, 65, 257)
RATIOS = (8, 16, 32, 64, 128, 256, 512)
RESULT = Path(__file__).parent / "results" / "candidates_speed.json"


def step(items: int, candidates: int, dense: bool) -> Callable[[], object]:
    """Scores and both gradients of one batch."""
    g = torch.Generator().manual_seed(items)
    query = torch.randn(ROWS, DEPTH, generator=g, requires_grad=True)  # [B, D]
    matrix = torch.randn(items, DEPTH, generator=g, requires_grad=True)  # [I, D]
    own = torch.randint(items, (ROWS, candidates), generator=g)  # [B, C]
    up = torch.randn(ROWS, candidates, generator=g)  # [B, C]

    def product() -> Tensor:
        return (query @ matrix.T).gather(-1, own)  # [B, C]

    def gathered() -> Tensor:
        return torch.einsum("bd,bcd->bc", query, matrix[own])  # [B, C]

    scores = product if dense else gathered
    return lambda: torch.autograd.grad(scores(), (query, matrix), up)


def measure(seconds: float) -> dict[str, Any]:
    """Milliseconds of both ways at every size, in `seconds` all together."""
    times: dict[str, dict[str, list[float]]] = {}
    turning: dict[str, int] = {}
    for candidates in CANDIDATES:
        for ratio in RATIOS:
            ways = {way: step(ratio * candidates, candidates, way == "dense") for way in ("dense", "gathered")}
            best = best_of(ways, seconds / len(CANDIDATES) / len(RATIOS))
            row = times.setdefault(f"{candidates} candidates", {})
            row[f"{ratio} items each"] = [round(1e3 * best[way], 3) for way in ways]
            if best["dense"] < best["gathered"]:
                turning[f"{candidates} candidates"] = ratio
    return {"milliseconds, dense and gathered": times, "dense is faster up to": turning, "taken": DENSE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="time to spend, about")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures go")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    load = round(os.getloadavg()[0], 2)
    result = {
        "command": f"python benchmarks/candidates_speed.py --seconds {chosen.seconds:g} --threads {chosen.threads}",
        "what": f"scores and gradients of {ROWS} rows a step, D = {DEPTH}; best of turns",
        **made(),
        "threads": chosen.threads,
        "load before": load,
        **measure(chosen.seconds),
    }
    text = json.dumps(result, indent=2)
    write_text(chosen.out, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
