"""An index over the item matrix: a few hundred candidates for each query without reading the whole catalogue.

It pays from about a million items on; below that the exact product takes a few milliseconds and misses nothing
(`benchmarks/retrieval_speed.py`). The index is faiss' inverted file: the items are put into lists by k-means, each
vector in a byte a dimension, and a query looks into the lists whose centres suit it best. The candidates are then
scored exactly, so a list may lack an item, but no score in it is off.

How many lists are looked into is measured, not guessed: the fewest, doubling, with which the candidates hold `recall`
of the exact best 20 after walks. Those are histories that the model itself thinks likely: from an item drawn by lot,
each next one is drawn from the model's own best 20.

Letters as in contract.py, and: R walks, F candidates found, D' = D, and one more where items have a bias.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foretaste.errors import NeedsError
from foretaste.models.contract import Events, Query, SequenceModel, seeded
from foretaste.models.topk import top_k

RECALL = 0.99
"""Share of the exact best 20 that the index is to find."""
BEST = 20
"""Items of a list whose recall is measured."""
CANDIDATES = 200
"""Candidates that it is measured with, and the fewest that are fetched."""
WALKS, STEPS = 64, 4
"""Walks and their length: R x 4 queries."""
ROWS = 16
"""Queries that are scored over the whole catalogue at once."""


class Approximate:
    """An index for a model whose weights are fixed and whose score is one inner product."""

    def __init__(self, model: SequenceModel, *, recall: float = RECALL, candidates: int = CANDIDATES) -> None:
        try:
            import faiss
        except ModuleNotFoundError:
            raise NeedsError(
                "retrieval = 'approximate' needs faiss; install it with: pip install 'foretaste[ann]'"
            ) from None
        if type(model).score is not SequenceModel.score:
            raise NeedsError(
                f"retrieval = 'approximate': {type(model).__name__} scores each item in its own way, not by one inner "
                "product; leave it at 'exact'"
            )
        began = time.monotonic()
        faiss.omp_set_num_threads(1)
        self.model = model
        with torch.inference_mode():
            self._rows, self._bias = model.item_matrix().detach(), model.item_bias()  # [I, D], [I]
            vectors = self._rows if self._bias is None else torch.cat([self._rows, self._bias[:, None]], 1)  # [I, D']
            self.index = _index(faiss, np.ascontiguousarray(vectors.float().numpy()))
            faiss.cvar.distance_compute_blas_threshold = 2**30  # one way to the same lists, whatever the batch
            queries = walks(model)  # [4 R, D]
            exact = _best(model, queries) + 1  # [4 R, 20]
            self.recall = 0.0
            for probes in (2**power for power in range(self.lists.bit_length() + 1)):
                self.index.nprobe = min(probes, self.lists)
                self.recall = _share(exact, self.search(queries, candidates))
                if self.recall >= recall:
                    break
        self.seconds = time.monotonic() - began

    @property
    def lists(self) -> int:
        """Into so many lists the items are put."""
        return int(self.index.nlist)

    @property
    def facts(self) -> dict[str, Any]:
        """What was made, for the log."""
        return {
            "items": self.model.n_items,
            "lists": self.lists,
            "looked_into": int(self.index.nprobe),
            f"recall@{BEST}": round(self.recall, 4),
            "megabytes": round(self.index.ntotal * (self.index.code_size + 8) / 1e6, 1),
            "seconds": round(self.seconds, 1),
        }

    def search(self, query: Tensor, count: int) -> Tensor:
        """[B, F]: numbers of about the `count` best items for each query [B, D], ascending; 0 where there are fewer."""
        if self._bias is not None:
            query = torch.cat([query, torch.ones_like(query[:, :1])], 1)  # [B, D']
        _, found = self.index.search(np.ascontiguousarray(query.float().numpy()), min(count, self.model.n_items))
        return torch.from_numpy(found + 1).sort(1).values  # [B, F]

    def score(self, query: Query, pool: Tensor | None = None) -> Tensor:
        """Exact scores [B, C] for a query [B, 1, D]: of the items `pool` [C], of own ones [B, C], or [B, I] of all."""
        assert isinstance(query, Tensor)
        if pool is None or pool.dim() == 1:
            return self.model.score(query, pool)[:, 0]  # [B, C] or [B, I]
        place = (pool - 1).clamp(min=0)  # [B, C]
        scores = torch.einsum("bd,bcd->bc", query[:, 0], self._rows[place])  # [B, C]
        scores = scores if self._bias is None else scores + self._bias[place]
        return scores.masked_fill(pool == 0, float("-inf"))


def walks(model: SequenceModel, seed: int = 0) -> Tensor:
    """The queries [4 R, D] after each event of walks through the catalogue, of users drawn by lot."""
    draw = torch.Generator().manual_seed(seed)

    def drawn(high: int) -> Tensor:
        return torch.randint(high, (WALKS, 1), generator=draw)  # [R, 1]

    with seeded(seed):
        state, item, asked = model.initial_state(drawn(1 + model.n_users)[:, 0]), drawn(model.n_items) + 1, []
        for step in range(STEPS):
            one = torch.ones_like(item, dtype=torch.bool)  # [R, 1]
            query, state = model(Events(item, one, one & (step == 0), torch.full_like(item, 60 * step)), state)
            asked.append(query[:, 0])  # [R, D]
            likely = _best(model, asked[-1])  # [R, 20]
            item = likely.gather(1, drawn(likely.shape[1])) + 1  # [R, 1]
    return torch.cat(asked)


def _index(faiss: Any, vectors: Any) -> Any:
    """faiss' index of the vectors [I, D']; the same vectors give the same index."""
    size, width = vectors.shape
    lists = max(1, 2 ** round(math.log2(2 * math.sqrt(size))))
    index = faiss.index_factory(width, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    faiss.cvar.distance_compute_blas_threshold = 20  # its own
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = 10, 64, 1
    index.train(vectors)
    index.add(vectors)
    return index


def _best(model: SequenceModel, queries: Tensor) -> Tensor:
    """The columns of the exact best of each query [B, D]: [B, 20]."""
    blocks = (queries[first : first + ROWS] for first in range(0, len(queries), ROWS))
    return torch.cat([top_k(model.score(block), BEST)[1] for block in blocks])


def _share(exact: Tensor, found: Tensor) -> float:
    """The share of the exact best [B, K] that is among the found [B, F]."""
    return float((exact[:, :, None] == found[:, None, :]).any(-1).float().mean())
