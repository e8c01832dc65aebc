"""S-POP by hand: the session first, then the log."""

import numpy as np
import pytest
import torch
from tests.battery import random_log
from tests.models.test_rules import ask, counted, log_of, order

from foretaste.models.baselines.pop import Pop
from foretaste.models.baselines.spop import SPop


def test_by_hand() -> None:
    model = counted(SPop(5), log_of([1, 2, 1], [1, 3, 2, 4]))
    assert ask(model, [4, 3, 4], [])[0].floor().tolist() == [0, 0, 1, 2, 0]
    lists = [order(row) for row in ask(model, [4, 3, 4], [5], [])]
    assert lists == [[4, 3, 1, 2, 5], [5, 1, 2, 4, 3], [1, 2, 4, 3, 5]]


def test_only_the_last_w_events_count() -> None:
    model = counted(SPop(4, SPop.Config(window=2, ties="none")), log_of([1, 2, 3]))
    assert ask(model, [4, 4, 4, 1, 2])[0].tolist() == [1, 1, 0, 0]
    assert ask(counted(SPop(4, SPop.Config(ties="none")), log_of([1])), [4] * 200)[0].tolist() == [0, 0, 0, 64]


@pytest.mark.parametrize("ties", ["latest", "popularity", "none"])
def test_equal_to_counting_one_by_one(ties: str) -> None:
    """Ties: by the count in the training log, and then the later occurrence; by the count alone; or left."""
    log, rng = random_log(12, 25), np.random.default_rng(0)
    model = counted(SPop(12, SPop.Config(window=9, ties=ties)), log)
    seen = [np.flatnonzero(log.items == item) for item in range(1, 13)]
    key = [(len(own) if ties != "none" else 0, own.max() if ties == "latest" else 0) for own in seen]
    place = [sorted(set(key)).index(one) for one in key]
    for length in (0, 1, 5, 30):
        history = rng.integers(1, 13, length).tolist()
        wanted = [history[-9:].count(item) + place[item - 1] / 16 for item in range(1, 13)]
        assert ask(model, history)[0].tolist() == wanted


def test_an_empty_session_is_pop() -> None:
    log = random_log(12, 25)
    pop = Pop(12)
    pop.count(log)
    assert order(ask(counted(SPop(12), log), [])[0]) == order(pop.item_matrix()[:, 0])


def test_identical_items_and_two_items() -> None:
    model = counted(SPop(2), log_of([2, 2, 2], [2]))
    assert order(ask(model, [1, 1])[0]) == [1, 2]
    assert order(ask(model, [])[0]) == [2, 1]
    assert torch.equal(ask(model, [1, 1]).floor(), torch.tensor([[2.0, 0.0]]).double())
