"""Item-KNN by hand, and equal to the formula worked out session by session on random logs."""

import numpy as np
import pytest
import torch
from tests.battery import random_log
from tests.models.test_rules import INF, ask, counted, log_of, order, rows

from foretaste.data.sequences import Sequences
from foretaste.models.baselines.item_knn import ItemKNN


def slow_similarities(log: Sequences, config: ItemKNN.Config, n_items: int) -> np.ndarray:
    """sim [1 + I, 1 + I] from the table of sessions and items."""
    table = np.zeros((0, n_items + 1))
    for row in rows(log, config.scope):
        line = np.zeros(n_items + 1)
        for item in row:
            line[item] = 1 if config.once else line[item] + 1
        table = np.vstack([table, line])
    support, near = table.sum(0), np.zeros((n_items + 1, n_items + 1))
    for i in range(1, n_items + 1):
        for j in range(1, n_items + 1):
            met = sum(line[i] * line[j] for line in table)
            if i != j and met:
                near[i, j] = met / np.sqrt((support[i] + config.shrinkage) * (support[j] + config.shrinkage))
    return near


def knn(n_items: int, log: Sequences, **config: object) -> ItemKNN:
    model = counted(ItemKNN(n_items, ItemKNN.Config(**config)), log)
    assert isinstance(model, ItemKNN)
    return model


def test_by_hand() -> None:
    log = log_of([1, 2, 1], [1, 2], [1, 3])
    once = ask(knn(4, log, shrinkage=0, ties="none"), [1], [2])
    wanted = torch.tensor([[0, 2 / 6**0.5, 1 / 3**0.5, 0], [2 / 6**0.5, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(once, wanted, rtol=0, atol=1e-8)
    events = ask(knn(4, log, shrinkage=1, ties="none", once=False), [1])[0]
    wanted = torch.tensor([0, 3 / 15**0.5, 1 / 10**0.5, 0], dtype=torch.float64)
    torch.testing.assert_close(events, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("shrinkage", [0, 0.5, 20])
@pytest.mark.parametrize(("last", "scope"), [(1, "session"), (3, "user"), (64, "user")])
def test_equal_to_the_formula_on_random_logs(once: bool, shrinkage: float, last: int, scope: str) -> None:
    log = random_log(12, 25)
    log.items[::5] = 0  # not in the catalogue
    model = knn(12, log, shrinkage=shrinkage, once=once, last=last, kept=0, scope=scope, ties="none")
    near = slow_similarities(log, model.config, 12)
    histories = [[4], [1, 2, 3, 4, 5], [7, 7], []]
    for found, history in zip(ask(model, *histories), histories, strict=True):
        wanted = sum((near[item, 1:] for item in history[-last:]), np.zeros(12))
        torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kept", [1, 3, 100])
def test_the_nearest_are_kept_and_more_than_there_are_is_all(kept: int) -> None:
    log = random_log(12, 25)
    whole, short = knn(12, log, kept=0), knn(12, log, kept=kept)
    for item in range(1, 13):
        near = [n for n in order(ask(whole, [item])[0]) if n != item and ask(whole, [item])[0, n - 1] > whole.unit]
        only = ask(short, [item])[0]
        assert [n for n in order(only) if only[n - 1] > short.unit] == near[:kept]


def test_equal_similarities_are_equal_for_certain_and_go_by_popularity() -> None:
    """1 met 2 twice, 3 once: 2 / sqrt(6 * 8) and 1 / sqrt(6 * 2) are one number, which roundings would tear apart."""
    log = log_of([1, 2], [1, 2], *[[2, 9]] * 6, [1, 3], [3], *[[1]] * 3)
    scores = ask(knn(9, log, shrinkage=0, ties="none"), [1])[0]
    assert scores[1] == scores[2] == pytest.approx(12**-0.5, abs=1e-8)
    assert order(ask(knn(9, log, shrinkage=0), [1])[0])[:2] == [2, 3], "2 occurs more often"


def test_more_shrinkage_holds_back_what_met_once() -> None:
    log = log_of(*[[1, 2]] * 6, [2, 4], *[[2, 5]] * 3, [1, 3])
    cosine, shrunk = knn(5, log, shrinkage=0), knn(5, log, shrinkage=20)
    ratio = [float(ask(model, [1])[0, 2] / ask(model, [1])[0, 1]) for model in (cosine, shrunk)]
    assert ratio[1] < ratio[0]


def test_what_is_no_neighbour_follows_by_popularity_or_is_not_shown() -> None:
    log = log_of([1, 2], [3, 3], [4])
    assert order(ask(knn(5, log), [1])[0]) == [2, 3, 4, 1, 5]
    assert ask(knn(5, log, fill=False), [1])[0].tolist()[2:] == [-INF] * 3


def test_an_item_seen_once_a_session_of_one_item_and_two_items() -> None:
    assert order(ask(knn(3, log_of([1, 2], [1, 2], [3])), [3])[0]) == [2, 1, 3]
    assert len(knn(2, log_of([1, 1, 1], [2, 2])).columns) == 0
    pair = ask(knn(2, log_of([1, 2]), shrinkage=0, ties="none", kept=50), [1], [2])
    assert pair.tolist() == [[0, 1], [1, 0]]
