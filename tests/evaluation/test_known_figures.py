"""Figures that were worked out elsewhere, on a real log: DIGINETICA's 60,858 prefixes, as pessimistic to optimistic."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste.data.sequences import TEST, TRAIN, Sequences
from foretaste.evaluation.evaluate import Evaluation, evaluate
from foretaste.evaluation.protocols import PerStep
from foretaste.models.contract import Events, Query, SequenceModel, State

pytestmark = pytest.mark.slow


class Markov(SequenceModel):
    """How often the item followed the latest one in training; one that never did is no candidate. With `ties`,
    popularity decides between equal counts."""

    def __init__(self, log: Sequences, n_items: int, ties: bool) -> None:
        super().__init__(n_items)
        train, items = log.part == TRAIN, log.items.astype(np.int64)
        follows = train[1:].copy()
        follows[log.sessions[1:-1] - 1] = False
        pairs = items[:-1][follows] * (n_items + 1) + items[1:][follows]
        keys, counts = np.unique(pairs, return_counts=True)
        self.columns, self.counts = keys % (n_items + 1), counts
        self.rows = np.searchsorted(keys, np.arange(n_items + 2) * (n_items + 1))
        popularity = np.bincount(items[train], minlength=n_items + 1)[1:]
        self.floor = torch.from_numpy(popularity / 1e7 if ties else np.zeros(n_items))

    def initial_state(self, users: Tensor) -> State:
        return {"last": torch.zeros(len(users), dtype=torch.int64)}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        asked = events.items if at is None else events.items[at]
        return asked[..., None], {"last": events.items[:, -1]}

    def query(self, state: State, now: Tensor | None = None) -> Query:
        return state["last"][:, None, None]

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        assert isinstance(query, Tensor)
        assert items is not None
        first, last = int(items[0]), int(items[-1])
        scores = self.floor[first - 1 : last].repeat(len(query), 1)
        for row, item in enumerate(query[:, 0].tolist()):
            mine = slice(*self.rows[[item, item + 1]])
            some = (self.columns[mine] >= first) & (self.columns[mine] <= last)
            scores[row, torch.from_numpy(self.columns[mine][some] - first)] += torch.from_numpy(self.counts[mine][some])
        return scores.masked_fill_(scores < 1, -torch.inf)


class Popular(Markov):
    """Popularity alone."""

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        assert isinstance(query, Tensor)
        assert items is not None
        return self.floor[items - 1].repeat(len(query), 1)


@pytest.fixture(scope="module")
def diginetica(shared: Path) -> tuple[Sequences, int]:
    parts = [
        duckdb.sql(
            f"select sequence_id, item_id from '{shared}/diginetica.{part}.parquet' order by sequence_id, position"
        ).fetchnumpy()
        for part in ("train", "test")
    ]
    known, numbers = np.unique(parts[0]["item_id"], return_inverse=True)
    place = np.searchsorted(known, parts[1]["item_id"]).clip(max=len(known) - 1)
    cold = known[place] != parts[1]["item_id"]
    items = np.concatenate([numbers + 1, np.where(cold, 0, place + 1)]).astype(np.int32)
    ids = np.concatenate([parts[0]["sequence_id"], parts[1]["sequence_id"] + 10**9])
    sessions = np.concatenate([[0], np.flatnonzero(np.diff(ids)) + 1, [len(ids)]])
    part = np.repeat([TRAIN, TEST], [len(parts[0]["item_id"]), len(cold)]).astype(np.uint8)
    nobody = np.zeros(len(sessions) - 1, np.int32)
    return Sequences(items, sessions, sessions, part, nobody), len(known)


def percent(found: Evaluation) -> list[float]:
    """Recall@20 and MRR@20, pessimistic and optimistic."""
    worst, best = found.means(), found.means(optimistic=True)
    return [100 * part[name] for name in ("recall@20", "mrr@20") for part in (worst, best)]


def test_first_order_markov_and_popularity_on_diginetica(diginetica: tuple[Sequences, int]) -> None:
    log, n_items = diginetica
    cases = PerStep().cases(log)
    assert len(cases) == 60_858
    found = evaluate(Markov(log, n_items, ties=False), log, cases)
    assert percent(found) == pytest.approx([30.69, 37.76, 10.75, 16.85], abs=0.006)
    assert 100 * found.repeats == pytest.approx(20.5, abs=0.06)
    found = evaluate(Markov(log, n_items, ties=True), log, cases)
    assert percent(found) == pytest.approx([34.67, 34.74, 12.91, 12.99], abs=0.006)
    found = evaluate(Popular(log, n_items, ties=True), log, cases)
    assert percent(found)[0::2] == pytest.approx([0.93, 0.21], abs=0.006)
