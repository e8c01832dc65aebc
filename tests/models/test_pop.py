"""POP by hand: counts, and ties by the last occurrence."""

import numpy as np
import torch

from foretaste.data.sequences import Sequences
from foretaste.models.baselines.pop import Pop
from foretaste.models.contract import Events


def test_counts_and_ties() -> None:
    items = np.array([1, 2, 2, 3, 1, 4], dtype=np.int32)
    ends = np.array([0, 6])
    model = Pop(5)
    model.count(Sequences(items, ends, ends, np.zeros(6, np.uint8), np.zeros(1, np.int32)))
    state = model.initial_state(torch.zeros(1, dtype=torch.int64))
    query, _ = model(Events.of([[4]]), state)
    scores = model.score(query)[0, 0]
    assert scores.floor().tolist() == [2, 2, 1, 1, 0]
    assert scores.argsort(descending=True).tolist() == [0, 1, 3, 2, 4], "1 was seen after 2, 4 after 3"


def test_ties_go_by_the_clock_where_there_is_one() -> None:
    items, ends = np.array([1, 2], dtype=np.int32), np.array([0, 1, 2])
    model = Pop(2)
    model.count(Sequences(items, ends, ends, np.zeros(2, np.uint8), np.zeros(2, np.int32), times=np.array([9, 3])))
    assert model.item_matrix()[:, 0].argsort(descending=True).tolist() == [0, 1]


def test_a_count_of_millions_keeps_its_ties_apart() -> None:
    model = Pop(3)
    model.counts = torch.tensor([20_000_000 + 1 / 3, 20_000_000.0, 19_999_999 + 2 / 3], dtype=torch.float64)
    scores = model.score(model.query({"user": torch.zeros(1, dtype=torch.int64)}))[0, 0]
    assert scores.argsort(descending=True).tolist() == [0, 1, 2]
    assert scores.unique().numel() == 3
