"""POP by hand: counts, and ties by the last occurrence."""

import numpy as np
import pytest
import torch
from tests.battery import random_log

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError, NeedsError
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


def clocked(items: list[int], days: list[float]) -> Sequences:
    """One user with an event on each of these days."""
    ends, times = np.array([0, len(items)]), (np.array(days) * 86_400).astype(np.int64)
    numbers = np.array(items, dtype=np.int32)
    return Sequences(numbers, ends, ends, np.zeros(len(items), np.uint8), np.zeros(1, np.int32), times=times)


def test_the_last_days_count_and_the_whole_log_settles_their_ties() -> None:
    log = clocked([1, 1, 1, 2, 2, 3, 4, 3, 4, 5], [0, 1, 2, 3, 4, 5, 9, 9.5, 10, 10])
    recent = Pop(6, Pop.Config(days=2))
    recent.count(log)
    found = recent.item_matrix()[:, 0]
    assert found.floor().tolist() == [0, 0, 1, 2, 1, 0]
    assert found.argsort(descending=True).tolist() == [3, 2, 4, 0, 1, 5], "3 before 5 and 1 before 2: by count"
    whole = Pop(6, Pop.Config(days=1000))
    whole.count(log)
    plain = Pop(6)
    plain.count(log)
    assert torch.equal(whole.counts, plain.counts)
    assert plain.counts.floor().tolist() == [3, 2, 2, 2, 1, 0]


@pytest.mark.parametrize("days", [0, 0.01, 0.1, 0.5, 3])
def test_equal_to_counting_one_by_one(days: float) -> None:
    """By the count of the last days, then the count of all, then the latest event, on random logs."""
    for seed in range(5):
        log, model = random_log(12, 25, seed), Pop(12, Pop.Config(days=days))
        log.items[::7] = 0  # not in the catalogue
        model.count(log)
        since = log.times.max() - days * 86_400
        seen = [[int(time) for item, time in zip(log.items, log.times, strict=True) if item == i] for i in range(1, 13)]
        key = [(sum(time > since for time in own) if days else 0, len(own), max(own, default=-1)) for own in seen]
        wanted = sorted(range(12), key=lambda i: key[i], reverse=True)
        assert model.counts.argsort(descending=True).tolist() == wanted


def test_the_days_end_with_the_newest_event_and_reach_back_to_the_second() -> None:
    model = Pop(2, Pop.Config(days=1))
    model.count(clocked([1, 2], [0, 1]))
    assert model.counts.floor().tolist() == [0, 1], "exactly a day ago is no longer within a day"
    model.count(clocked([1, 2], [0.001, 1]))
    assert model.counts.floor().tolist() == [1, 1]


def test_days_need_a_clock_in_training_and_none_when_asked() -> None:
    assert Pop.needs_of(Pop.Config(days=7)) == {"times"}
    assert Pop.needs_of(Pop.Config()) == set()
    assert Pop(3, Pop.Config(days=7)).needs == set()
    ends = np.array([0, 1])
    log = Sequences(np.array([1], dtype=np.int32), ends, ends, np.zeros(1, np.uint8), np.zeros(1, np.int32))
    with pytest.raises(NeedsError, match="days needs times"):
        Pop(1, Pop.Config(days=7)).count(log)
    with pytest.raises(ConfigError, match="days"):
        Pop.Config(days=-1)


def test_what_ties_for_good_ties() -> None:
    model = Pop(3)
    model.count(clocked([1, 2], [4, 4]))
    assert model.counts[0] == model.counts[1] > model.counts[2]
