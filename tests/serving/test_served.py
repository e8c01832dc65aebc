"""What is evaluated is what is served: the product protocol against an engine that is asked before every event."""

from __future__ import annotations

import itertools

import pytest

from foretaste import EventLog, Recommender, shop, splits
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TEST
from foretaste.evaluation.protocols import Product
from foretaste.serving.asks import Ask, Event
from foretaste.serving.engine import Engine
from foretaste.serving.store import MemoryStore


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    columns = {"user": "user", "item": "item", "time": "time"}
    log = EventLog.read(shop(n_users=40, n_items=30, seed=2).columns, **columns).sessions(gap="30m")
    return log.prepare(splits.GlobalTime(fraction=0.2, by="event"))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("narm", {"epochs": 1}), ("dman", {"epochs": 1}), ("lsamn", {"epochs": 1}), ("asars", {"epochs": 1}), ("sr", {})],
)
def test_every_rank_is_that_of_the_served_list(prepared: Prepared, name: str, settings: dict[str, int]) -> None:
    """Sessions begin among them, users too. The list is of all items; where scores tie, it lies between both ends."""
    recommender = Recommender(name, **settings).fit(prepared)
    found = recommender.evaluate(prepared, protocol=Product())
    engine, log, users = Engine(recommender.trained, MemoryStore()), prepared.sequences, prepared.users
    assert users is not None
    assert log.times is not None
    items = [prepared.items.ids[number - 1] if number else "never seen" for number in log.items.tolist()]
    begins, case, from_before = set(log.sessions.tolist()) - set(log.users.tolist()), 0, 0
    for row, (start, stop) in enumerate(itertools.pairwise(log.users.tolist())):
        number = int(log.user_numbers[row])
        user = users.ids[number - 1] if number else f"new {row}"
        for place in range(start, stop):
            event = Event(items[place], int(log.times[place]))
            if log.part[place] == TEST:
                told = engine.ask(Ask(user=user, k=len(prepared.items), now=event.time)).recommendations
                assert told is not None
                rank = told.ids.index(event.item) + 1 if log.items[place] else found.pessimistic[case]
                assert found.optimistic[case] <= rank <= found.pessimistic[case], f"event {place}"
                from_before += place in begins and found.history[case] > 0
                case += 1
            engine.ask(Ask(user=user, events=[event]))
    assert case == len(found.pessimistic)
    assert from_before > 10


@pytest.mark.parametrize("name", ["narm", "lsamn", "dman"])
def test_a_history_is_cut_and_cleaned_as_the_service_does(name: str) -> None:
    """Two days apart, repeats, an item that nobody knows: by the rules of the log, unless sessions are named."""
    columns = {"user": "user", "item": "item", "time": "time", "repeats": "collapse"}
    log = EventLog.read(shop(n_users=40, n_items=30, seed=2).columns, **columns).sessions(gap="30m")
    recommender = Recommender(name, epochs=1).fit(log.prepare())
    engine = Engine(recommender.trained, MemoryStore())
    one, two, three = recommender.trained.items.ids[:3]
    history, times = [one, one, "?", two, two, three, two], [0, 5, 9, 200_000, 200_005, 200_010, 200_020]
    told = engine.ask(Ask(history=[Event(item, time) for item, time in zip(history, times, strict=True)], k=9))
    assert told.recommendations is not None
    found = recommender.recommend(history, 9, times=times)
    assert found.ids == told.recommendations.ids
    assert found.scores == pytest.approx(told.recommendations.scores, abs=1e-6)
    named = recommender.recommend(history, 9, times=times, sessions=[1, 1, 1, 2, 2, 2, 2])
    assert (named.ids, named.skipped) == (found.ids, ["?"])
    whole = recommender.recommend(history, 9, times=times, sessions=[1] * 7)
    assert (whole.scores == named.scores) == (name == "dman")  # a row of which is a user
    bare = engine.ask(Ask(history=[Event(item) for item in history], k=9)).recommendations if name != "lsamn" else None
    assert bare is None or bare.ids == recommender.recommend(history, 9).ids
