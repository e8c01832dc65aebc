"""How fast one step of the full softmax is: loss and both gradients, rows a second.

    python benchmarks/softmax_speed.py [--seconds 40] [--threads 2]

Rows of D = 64 against catalogues of the sizes of DIGINETICA (43,000 items), YOOCHOOSE 1/64 (17,400) and MovieLens-100K
(1,700), 512 rows a step. Ways that give the same float32 numbers: PyTorch's own cross-entropy on the product, ours, and
ours with the products of PyTorch's default (MKL) and of oneDNN; and ours with products of bfloat16. Below them the
sizes of blocks and tiles that were tried for the largest catalogue.

The ways take turns, round after round, and each keeps its best time: a passing load then slows all of them or none.
Run it on an idle machine all the same; threads that fight for a core cost far more than they add. The load is noted in
`results/softmax_speed.json`. `ceiling` is what 6 I D operations a row would allow at the speed of a 2048-cubed product,
by the default and by oneDNN.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from foretaste.data.files import write_text
from foretaste.models import products
from foretaste.training.softmax import catalogue_cross_entropy

ROWS, DEPTH = 512, 64
CATALOGUES = {"diginetica": 43_000, "yoochoose 1/64": 17_400, "ml-100k": 1_700}
BLOCKS, TILES = (64, 128, 256, 512), (1024, 2048, 4096, 8192)
RESULT = Path(__file__).parent / "results" / "softmax_speed.json"

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def best_of(ways: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Best time of each, in seconds, when they take turns for that long (and three times at least).

    In its turn each runs twice and the second is timed, as in training, where the step before was of the same way: what
    another way left in caches and in the allocator is worth up to 20 %.
    """
    best = dict.fromkeys(ways, float("inf"))
    end, rounds = time.monotonic() + seconds, 0
    while rounds < 3 or time.monotonic() < end:
        rounds += 1
        for name, way in ways.items():
            way()
            start = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def step(way: Way, items: int) -> Callable[[], None]:
    """Loss and gradients of one batch, as training takes them."""
    g = torch.Generator().manual_seed(items)
    queries = torch.randn(ROWS, DEPTH, generator=g, requires_grad=True)
    matrix = (0.1 * torch.randn(items, DEPTH, generator=g)).requires_grad_()
    targets = torch.randint(items, (ROWS,), generator=g)

    def run() -> None:
        torch.autograd.grad(way(queries, matrix, targets), (queries, matrix))

    return run


def plain(queries: Tensor, matrix: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(queries @ matrix.T, targets)


def made_by(product: products.Product | None) -> Way:
    """With this product in place of the one that the processor's maker decides."""

    def run(queries: Tensor, matrix: Tensor, targets: Tensor) -> Tensor:
        with patch.object(products, "onednn_product", lambda: product):
            return catalogue_cross_entropy(queries, matrix, targets)

    return run


def onednn() -> products.Product | None:
    """oneDNN's product, whoever made the processor."""
    with patch.object(products, "made_by_intel", lambda: False):
        return products.onednn_product.__wrapped__()


def rounded(queries: Tensor, matrix: Tensor, targets: Tensor) -> Tensor:
    return catalogue_cross_entropy(queries, matrix, targets, precision="bfloat16")


def blocked(rows: int, tile: int) -> Way:
    return lambda q, e, t: catalogue_cross_entropy(q, e, t, block_rows=rows, block_items=tile)


def measure(seconds: float) -> dict[str, Any]:
    """Everything, in `seconds` all together."""
    result: dict[str, Any] = {"rows_per_second": {}}
    for name, items in CATALOGUES.items():
        ways = {"plain": plain, "blocked": catalogue_cross_entropy, "blocked, default product": made_by(None)}
        ways["blocked, oneDNN"] = made_by(onednn())
        ways["blocked, bfloat16"] = rounded
        times = best_of({way: step(run, items) for way, run in ways.items()}, seconds / 5)
        result["rows_per_second"][f"{name}, {items} items"] = {way: round(ROWS / t) for way, t in times.items()}
    sizes = {f"{rows} x {tile}": step(blocked(rows, tile), 43_000) for rows in BLOCKS for tile in TILES}
    times = best_of(sizes, seconds / 3)
    result["rows x items of a tile, 43000 items"] = {size: round(ROWS / t) for size, t in times.items()}
    a = torch.randn(2048, 2048)
    times = best_of({"default": lambda: a @ a, "ours": lambda: products.product(a, a)}, seconds / 20)
    speed = {name: 2 * 2048**3 / t for name, t in times.items()}
    result["gigaflops of a 2048-cubed product"] = {name: round(s / 1e9) for name, s in speed.items()}
    result["ceiling, 43000 items"] = {name: round(s / (6 * 43_000 * DEPTH)) for name, s in speed.items()}
    return result


def processor() -> str:
    """The processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40, help="time to spend, about")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures go")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    machine = {
        "processor": processor(),
        "threads": chosen.threads,
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "load before": round(os.getloadavg()[0], 2),
    }
    result = {
        "command": f"python benchmarks/softmax_speed.py --seconds {chosen.seconds:g} --threads {chosen.threads}",
        "what": f"loss and gradients of {ROWS} rows a step, D = {DEPTH}; best of turns, rows a second",
        "machine": machine,
        **measure(chosen.seconds),
    }
    machine["load after"] = round(os.getloadavg()[0], 2)
    text = json.dumps(result, indent=2)
    write_text(chosen.out, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
