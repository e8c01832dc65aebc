"""Figures that were worked out elsewhere, on a real log: DIGINETICA's 60,858 prefixes, as pessimistic to optimistic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from foretaste.data.sequences import TEST, TRAIN, Sequences
from foretaste.evaluation.evaluate import Evaluation, evaluate
from foretaste.evaluation.protocols import PerStep
from foretaste.models import model_class

pytestmark = pytest.mark.slow
RAW, BY_COUNT = {"ties": "none", "fill": False}, {"ties": "popularity", "fill": False}


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


@pytest.mark.parametrize(
    ("name", "settings", "recall", "mrr"),
    [
        ("pop", {}, (0.93, 0.93), (0.21, 0.21)),
        ("s-pop", {"ties": "popularity"}, (21.08, 21.09), (13.65, 13.72)),
        ("markov", BY_COUNT, (34.67, 34.74), (12.91, 12.99)),
        ("markov", RAW, (30.69, 37.76), (10.75, 16.85)),
        ("item-knn", {**RAW, "shrinkage": 20.0}, (37.15, 37.44), (11.91, 12.08)),
    ],
)
def test_counting_models_on_diginetica(
    name: str,
    settings: dict[str, Any],
    recall: tuple[float, float],
    mrr: tuple[float, float],
    diginetica: tuple[Sequences, int],
) -> None:
    log, n_items = diginetica
    cases = PerStep().cases(log)
    assert len(cases) == 60_858
    model = model_class(name)(n_items, model_class(name).Config.of(settings))
    model.count(log.of_part(TRAIN))
    found = evaluate(model.eval(), log, cases)
    assert percent(found) == pytest.approx([*recall, *mrr], abs=0.006)
    assert 100 * found.repeats == pytest.approx(20.5, abs=0.06)
