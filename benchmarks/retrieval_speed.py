"""What an index gains over scoring every item, and what it misses, by the size of the catalogue.

    python benchmarks/retrieval_speed.py [--items 40000 400000 4000000] [--trained FOLDER --prepared FOLDER]

One thread, lists of 20 and 100, each query alone and 64 at once; `exact` is what the service does by default, `index`
what it does with `retrieval=approximate`. Generated items of 64 dimensions lie in clusters of about a hundred, of every
length from a half to three halves; queries come after walks through them, other ones than the index was chosen by. How
well an index does hangs on how the items lie, so `--trained` and `--prepared` measure a saved recommender too, with the
per-step questions of the validation part of its log. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import VALIDATION
from foretaste.evaluation.feeding import opening
from foretaste.evaluation.protocols import PerStep
from foretaste.models import model_class
from foretaste.models.contract import Events, SequenceModel, seeded
from foretaste.models.products import processor
from foretaste.models.saved import Trained
from foretaste.models.topk import top_k
from foretaste.retrieval.approximate import ROWS, Approximate, walks
from foretaste.retrieval.exact import Exact

LENGTHS, DIM, QUERIES = (20, 100), 64, 1000
RESULT = Path(__file__).parent / "results" / "retrieval_speed.json"


def generated(items: int) -> SequenceModel:
    """First-order Markov in vectors: a query is an item's vector, and the items' own lie in clusters."""
    kind = model_class("fmc")
    with seeded(0), torch.inference_mode():
        model = kind(items, kind.Config.of({"embedding_size": DIM})).eval()
        centres = torch.randn(max(1, items // 100), DIM)
        vectors = centres[torch.randint(len(centres), (items,))].add_(0.5 * torch.randn(items, DIM))
        vectors *= 0.5 + torch.rand(items, 1)
        for table in model.state_dict().values():
            if table.dim() == 2:
                table[-items:] = vectors
    return model


def asked(trained: Trained, data: Prepared) -> Tensor:
    """Queries [n, D] of a model without users and times, from validation cases spread evenly over the log."""
    log = data.sequences
    cut = PerStep().cases(log, VALIDATION).cut
    cut = cut[np.linspace(0, len(cut) - 1, QUERIES).astype(int)]  # [n]
    begins = opening(log, trained.model.scope, cut - 1)  # [n]
    histories = [np.asarray(log.items[first:last]).tolist() for first, last in zip(begins, cut, strict=True)]
    with torch.inference_mode():
        nobody = torch.zeros(len(histories), dtype=torch.int64)
        state = trained.advance(Events.of(histories), trained.model.initial_state(nobody))
        query = trained.model.query(state)  # [n, 1, D]
    assert isinstance(query, Tensor)
    return query[:, 0]


def milliseconds(one: Callable[[Tensor], Any], queries: Tensor, size: int, seconds: float = 3.0) -> dict[str, float]:
    """The median and the 99th percentile of a query's time, where `size` are asked at once."""
    parts, took = list(queries.split(size)), []
    one(parts[0])
    stop = time.perf_counter() + seconds
    for part in _around(parts):
        began = time.perf_counter()
        one(part)
        took.append((time.perf_counter() - began) / len(part))
        if time.perf_counter() > stop and len(took) >= 5:
            break
    return {"p50": round(1e3 * float(np.median(took)), 4), "p99": round(1e3 * float(np.quantile(took, 0.99)), 4)}


def _around(parts: list[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from parts


def measured(model: SequenceModel, queries: Tensor) -> dict[str, Any]:
    """The figures of one catalogue."""
    with torch.inference_mode():
        exact = Exact(model)
        index = Approximate(model)
        figures = {str(k): compared(exact, index, queries, k) for k in LENGTHS}
        return {**index.facts, "lists of": figures}


def compared(exact: Exact, index: Approximate, queries: Tensor, k: int) -> dict[str, Any]:
    """Lists of k both ways: what the index's lack, and milliseconds a query, one and 64 at once."""
    depth = index.depth_for(k)
    assert depth is not None

    def by_index(part: Tensor) -> Tensor:
        pool = index.search(part, depth)
        return pool.gather(1, top_k(index.score(part[:, None], pool), k)[1])

    def by_all(part: Tensor) -> Tensor:
        return torch.cat([top_k(exact.score(few[:, None]), k)[1] + 1 for few in part.split(ROWS)])

    wanted, got = by_all(queries), by_index(queries)
    share = float((wanted[:, :, None] == got[:, None, :]).any(-1).float().mean())
    times = {
        name: {str(size): milliseconds(one, queries, size) for size in (1, 64)}
        for name, one in (("exact", by_all), ("index", by_index))
    }
    return {"recall of the queries asked here": round(share, 4), "ms": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="*", default=[40_000, 400_000, 4_000_000])
    parser.add_argument("--trained", type=Path, help="a saved recommender")
    parser.add_argument("--prepared", type=Path, help="the folder it was trained from")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    if args.trained:
        trained = Trained.load(args.trained)
        found[f"{trained.name}, trained"] = measured(trained.model, asked(trained, Prepared.open(args.prepared)))
        print(json.dumps(found, indent=2), flush=True)
    for items in args.items:
        model = generated(items)
        with torch.inference_mode():
            queries = torch.cat([walks(model, seed=seed) for seed in range(1, 1 + max(1, QUERIES // 256))])
        found[f"{items} generated"] = measured(model, queries)
        print(json.dumps({items: found[f"{items} generated"]}, indent=2), flush=True)
    facts = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{processor() or platform.machine()}, 1 of {os.cpu_count()} cores, torch {torch.__version__}",
        "catalogues": found,
    }
    write_text(args.out, json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
