"""An index over the item matrix: a few hundred candidates for each query without reading the whole catalogue.

It is for some hundred thousand items and more; below that the exact product takes a millisecond or two and misses
nothing (`benchmarks/retrieval_speed.py`). The index is faiss' inverted file: the items are put into lists by k-means,
each vector in a byte a dimension, and a query looks into the lists whose centres suit it best. The candidates are then
scored exactly, so a list may lack an item, but no score in it is off.

How many lists are looked into is measured, not guessed, for each of three depths: the fewest, doubling, with which the
candidates hold `recall` of the exact best 20, 100 or 500 after walks. Those are histories that the model itself thinks
likely: from an item drawn by lot, each next one is drawn from the model's own best 20.

Letters as in contract.py, and: R walks, F candidates found, K depth, D' = D, and one more where items have a bias.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foretaste.errors import NeedsError, TrainingError
from foretaste.models.contract import Events, Query, SequenceModel, seeded
from foretaste.models.layers import rows_of
from foretaste.models.topk import top_k

DEPTHS = (20, 100, 500)
"""So many best items are to be found; what is needed beyond the last is scored exactly."""
SPARE, FEWEST = 4, 200
"""Candidates for each of them, and the fewest that are fetched."""
LIKELY = 20
"""A walk goes on with one of so many best items."""
WALKS, STEPS = 64, 4
"""Walks and their length: R x 4 queries."""
ROWS = 16
"""Queries that are scored over the whole catalogue at once."""


@dataclass(frozen=True)
class Depth:
    """How the best `size` items are found."""

    size: int
    probes: int
    """Lists looked into."""
    recall: float
    """Share of the exact best `size` that the candidates held after walks."""

    @property
    def candidates(self) -> int:
        """How many are fetched."""
        return max(FEWEST, SPARE * self.size)


class Approximate:
    """An index for a model whose weights are fixed and whose score is one inner product."""

    def __init__(self, model: SequenceModel, *, recall: float = 0.99) -> None:
        check(model)
        import faiss

        began = time.monotonic()
        faiss.omp_set_num_threads(torch.get_num_threads())  # often one count for both
        self.model = model
        self._faiss: Any = faiss
        with torch.inference_mode():
            self._rows, self._bias = model.item_matrix().detach(), model.item_bias()  # [I, D], [I]
            vectors = self._rows if self._bias is None else torch.cat([self._rows, self._bias[:, None]], 1)  # [I, D']
            if not vectors.isfinite().all():
                raise TrainingError("NaN or infinity is among the vectors of the items: train the model again")
            self.index = _index(faiss, np.ascontiguousarray(vectors.float().numpy()))
            queries = walks(model)  # [4 R, D]
            exact = _best(model, queries, max(DEPTHS)) + 1  # [4 R, K]
            sizes = [size for size in DEPTHS if SPARE * size < model.n_items]
            found = [self._depth(queries, exact[:, :size], size, recall) for size in sizes]
            self.depths = [depth for depth in found if depth is not None]
        self.seconds = time.monotonic() - began

    def _depth(self, queries: Tensor, exact: Tensor, size: int, recall: float) -> Depth | None:
        """The fewest lists with which the candidates hold `recall` of the exact best [4 R, K]; None: all of them."""
        probes = 1
        while probes < self.lists:
            depth = Depth(size, probes, 0.0)
            depth = replace(depth, recall=_share(exact, self.search(queries, depth)))
            if depth.recall >= recall:
                return depth
            probes *= 2
        return None

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
            "looked_into": {str(depth.size): depth.probes for depth in self.depths},
            "recall": {str(depth.size): round(depth.recall, 4) for depth in self.depths},
            "megabytes": round(self.index.ntotal * (self.index.code_size + 8) / 1e6, 1),
            "seconds": round(self.seconds, 1),
        }

    def depth_for(self, needed: int) -> Depth | None:
        """The depth that finds the best `needed`; None: they are to be scored exactly."""
        return next((depth for depth in self.depths if depth.size >= needed), None)

    def search(self, query: Tensor, depth: Depth) -> Tensor:
        """[B, F]: numbers of the candidates of each query [B, D], ascending; 0 where there are fewer."""
        if self._bias is not None:
            query = torch.cat([query, torch.ones_like(query[:, :1])], 1)  # [B, D']
        asked, count = np.ascontiguousarray(query.float().numpy()), min(depth.candidates, self.model.n_items)
        with _blas_from(self._faiss, 2**30):  # one way to a list, whatever the batch
            looking = self._faiss.SearchParametersIVF(nprobe=depth.probes)
            _, found = self.index.search(asked, count, params=looking)
        return torch.from_numpy(found + 1).sort(1).values  # [B, F]

    def score(self, query: Query, pool: Tensor | None = None) -> Tensor:
        """Exact scores [B, C] for a query [B, 1, D]: of the items `pool` [C], of own ones [B, C], or [B, I] of all.

        Own ones as in the model's `score`, from a matrix that is not made again for each answer.
        """
        assert isinstance(query, Tensor)
        if pool is None or pool.dim() == 1:
            return self.model.score(query, pool)[:, 0]  # [B, C] or [B, I]
        place = (pool - 1).clamp(min=0)  # [B, C]
        scores = torch.einsum("bd,bcd->bc", query[:, 0], rows_of(self._rows, place))  # [B, C]
        scores = scores if self._bias is None else scores + rows_of(self._bias, place)
        return scores.masked_fill(pool == 0, float("-inf"))


def check(model: SequenceModel) -> None:
    """Refuse what an index cannot be made for, before the time is spent."""
    if importlib.util.find_spec("faiss") is None:
        raise NeedsError("an index needs faiss; install it with: pip install 'foretaste[ann]', or score every item")
    if type(model).score is not SequenceModel.score:
        raise NeedsError(
            f"no index can be made for {type(model).__name__}: it scores each item in its own way, not by one inner "
            "product; score every item"
        )


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
            likely = _best(model, asked[-1], LIKELY)  # [R, 20]
            item = likely.gather(1, drawn(likely.shape[1])) + 1  # [R, 1]
    return torch.cat(asked)


def _index(faiss: Any, vectors: Any) -> Any:
    """faiss' index of the vectors [I, D']; the same vectors give the same index."""
    size, width = vectors.shape
    lists = min(size, 2 ** round(math.log2(2 * math.sqrt(size))))
    index = faiss.index_factory(width, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = 10, 64, 1
    index.train(vectors)
    index.add(vectors)
    return index


@contextmanager
def _blas_from(faiss: Any, queries: int) -> Iterator[None]:
    """Inside, faiss takes another way from so many queries on."""
    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = queries
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before


def _best(model: SequenceModel, queries: Tensor, k: int) -> Tensor:
    """The columns of the exact best of each query [B, D]: [B, K]."""
    blocks = (queries[first : first + ROWS] for first in range(0, len(queries), ROWS))
    return torch.cat([top_k(model.score(block), k)[1] for block in blocks])


def _share(exact: Tensor, found: Tensor) -> float:
    """The share of the exact best [B, K] that is among the found [B, F], each row ascending."""
    place = torch.searchsorted(found, exact.contiguous()).clamp(max=found.shape[1] - 1)  # [B, K]
    return float((found.gather(1, place) == exact).float().mean())
