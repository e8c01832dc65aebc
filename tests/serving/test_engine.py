"""The engine against the model itself: what the service knows of a user is what `model.forward` says of the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.data.rules import Rules
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, NeedsError, StoreError, TrainingError
from foretaste.models.contract import Events, State
from foretaste.models.saved import Trained
from foretaste.serving.asks import Ask, Event, Told
from foretaste.serving.engine import Engine
from foretaste.serving.planning import EngineConfig
from foretaste.serving.store import Change, MemoryStore, Stored
from tests.battery import N_ITEMS, N_USERS, every_model, make

ITEMS = [f"i{n}" for n in range(1, N_ITEMS + 1)]
USERS = [f"u{n}" for n in range(1, N_USERS + 1)]
START = 1_600_000_000
GAP = Rules(sessions="gap", gap=600)


def trained_of(name: str, variant: dict[str, Any] | None = None) -> Trained:
    model = make(name, variant or {}, dtype=torch.float32)
    return Trained(name, model, Vocabulary(ITEMS), Vocabulary(USERS), {})


def engine_of(name: str = "narm", store: MemoryStore | None = None, replay: bool = False, **config: Any) -> Engine:
    config = {"rules": GAP, **config}
    return Engine(trained_of(name), store or MemoryStore(), EngineConfig(**config), replay=replay)


def clicks(count: int, seed: int = 0, unknown: float = 0.1) -> list[Event]:
    """Events in order, seconds to half an hour apart, some of unknown items."""
    rng = np.random.default_rng(seed)
    times = START + np.cumsum(rng.choice([5, 60, 599, 600, 601, 1800], count))
    items = [f"new{n}" if rng.random() < unknown else ITEMS[n] for n in rng.integers(0, N_ITEMS, count)]
    return [Event(item, float(time)) for item, time in zip(items, times.tolist(), strict=True)]


def reference(trained: Trained, events: list[Event], user: int, rules: Rules = GAP) -> State:
    """The state after a log, by one call of the model: sessions cut as a whole, unknown items left out."""
    gaps = np.diff([event.time for event in events], prepend=-np.inf)  # type: ignore[list-item]
    session = np.cumsum(gaps > rules.gap)
    known = np.array([trained.items.number(event.item) for event in events])
    if trained.model.scope == "session":
        here = session == session[-1]
        known, session, events = known[here], session[here], [e for e, h in zip(events, here, strict=True) if h]
    kept = known > 0
    session, times = session[kept], np.array([int(e.time or 0) for e in events])[kept]
    starts = np.diff(session, prepend=-1) != 0
    items = torch.from_numpy(known[kept])[None]
    batch = Events(items, items > 0, torch.from_numpy(starts)[None], torch.from_numpy(times)[None])
    with torch.inference_mode():
        state = trained.model.initial_state(torch.tensor([user]))
        return trained.model(batch, state)[1] if batch.shape[1] else state


def assert_state(found: State | None, wanted: State) -> None:
    assert found is not None
    for name, part in wanted.items():
        if part.is_floating_point():
            bound = 1e-5 * part.abs().clamp(min=1)
            assert bool(((found[name] - part).abs() <= bound).all()), name
        else:
            assert torch.equal(found[name], part), name


@every_model
def test_the_service_knows_what_the_model_says_of_the_log(name: str, variant: dict[str, Any]) -> None:
    """Event by event, in batches of users, with unknown items, sessions, dropped events and a known user."""
    trained = trained_of(name, variant)
    if not trained.model.causal:
        with pytest.raises(NeedsError, match="causal"):
            Engine(trained, MemoryStore())
        return
    engine = Engine(trained, MemoryStore(), EngineConfig(rules=GAP, history=12))
    logs = {user: clicks(45, seed) for seed, user in enumerate(["u3", "nobody", "u7"])}
    for first, stop in ((0, 1), (1, 2), (2, 5), (5, 6), (6, 16), (16, 17), (17, 40), (40, 45)):
        told = engine.ask_many([Ask(user=user, events=log[first:stop]) for user, log in logs.items()])
        assert [one.outcomes for one in told if isinstance(one, Told)] == [("applied",) * (stop - first)] * 3
    for user, log in logs.items():
        number = USERS.index(user) + 1 if user in USERS else 0
        assert_state(engine.state(user), reference(trained, log, number))


@pytest.mark.parametrize("name", ["narm", "lsamn", "dman", "rum-feature", "asars", "vs-knn", "sasrec"])
def test_late_events_find_their_place(name: str) -> None:
    """In any order in which they arrive, within what is kept: the state is that of a replay in order."""
    trained, log = trained_of(name), clicks(60, 4)
    engine = Engine(trained, MemoryStore(), EngineConfig(rules=GAP, history=24))
    rng, arrived = np.random.default_rng(0), list(range(60))
    for place in rng.permutation(56)[:20].tolist():  # some events come up to four places late
        arrived.insert(min(place + 4, 59), arrived.pop(place))
    late = 0
    for place in arrived:
        told = engine.ask(Ask(user="u1", events=[log[place]]))
        late += told.outcomes == ("late",)
    assert late > 10
    kept = engine.user("u1")
    assert kept is not None
    assert (kept.seen, kept.beyond) == (60, 0)
    assert [event.item for event in kept.events] == [event.item for event in log[60 - len(kept.events) :]]
    assert 24 <= len(kept.events) <= 30
    number = 1 if trained.model.n_users else 0
    assert_state(engine.state("u1"), reference(trained, log, number))


def test_an_event_older_than_all_that_is_kept_is_the_newest_and_counted() -> None:
    engine, log = engine_of(history=8), clicks(30, 2)
    engine.ask(Ask(user="u1", events=log))
    old = engine.ask(Ask(user="u1", events=[Event("i5", START - 100.0)]))
    kept = engine.user("u1")
    assert kept is not None
    assert old.outcomes == ("applied",)
    assert (kept.seen, kept.beyond, kept.events[-1].item) == (31, 1, "i5")
    assert kept.events[-1].time == log[-1].time
    assert_state(engine.state("u1"), reference(engine.trained, [*log, Event("i5", log[-1].time)], 0))


def test_while_all_is_kept_an_event_may_be_older_than_the_first() -> None:
    engine, log = engine_of("lsamn"), clicks(12, 3)
    engine.ask(Ask(user="u1", events=log[1:]))
    assert engine.ask(Ask(user="u1", events=log[:1])).outcomes == ("late",)
    assert_state(engine.state("u1"), reference(engine.trained, log, 1))


def test_an_event_sent_twice_is_taken_in_once() -> None:
    engine = engine_of(window_ids=3)
    first = [Event("i1", START + n, id=f"e{n}") for n in range(3)]
    assert engine.ask(Ask(user="u1", events=first)).outcomes == ("applied",) * 3
    new = Event("i2", START + 9, id="e9")
    again = engine.ask(Ask(user="u1", events=[first[1], new, new]))
    assert again.outcomes == ("duplicate", "applied", "duplicate")
    assert engine.ask(Ask(user="u1", events=[first[0]])).outcomes == ("late",)  # e0 had left the window of three
    assert engine.ask(Ask(user="u2", events=[first[1]])).outcomes == ("applied",)  # ids are a user's own
    kept = engine.user("u1")
    assert kept is not None
    assert (kept.seen, kept.remembered) == (5, 3)


def test_without_an_id_every_event_counts() -> None:
    engine = engine_of()
    for _ in range(2):
        assert engine.ask(Ask(user="u1", events=[Event("i1", START)])).outcomes == ("applied",)


def test_recommendations_are_those_of_the_recommender() -> None:
    engine, log = engine_of(), clicks(9, 5)
    history, times = [event.item for event in log], [event.time for event in log]
    session = np.cumsum(np.diff(times, prepend=-np.inf) > 600)
    open_one = [item for item, which in zip(history, session, strict=True) if which == session[-1]]
    options: dict[str, Any] = {"exclude": ["i3", "i4"], "candidates": ["i3", "i5", "i6", "i7"]}
    for beside in ({}, {"exclude": options["exclude"]}, options, {"leave_out_seen": True}):
        wanted = engine.trained.recommend(open_one, 7, **beside)
        stateless = engine.ask(Ask(history=log, k=7, **beside))
        engine.forget("u1")
        told = engine.ask(Ask(user="u1", events=log, k=7, **beside))
        if "leave_out_seen" in beside:  # the service knows more than the open session
            assert told.recommendations is not None
            assert not set(told.recommendations.ids) & set(history)
            continue
        for found in (told.recommendations, stateless.recommendations):
            assert found is not None
            assert found.ids == wanted.ids
            assert found.scores == pytest.approx(wanted.scores, abs=1e-5)
            assert found.skipped == [item for item in history if item not in ITEMS]
    assert engine.user("nobody") is None  # an ask for a new user leaves no trace
    assert len(engine.ask(Ask(user="nobody", k=3)).recommendations or ()) == 3
    assert engine.user("nobody") is None


def test_a_batch_is_its_asks_one_by_one() -> None:
    """Many users, several asks of one user in a batch, other wishes in each: the same lists."""
    one, many = engine_of("dman"), engine_of("dman")
    rng = np.random.default_rng(0)
    asks = []
    for n in range(120):
        event = Event(ITEMS[rng.integers(N_ITEMS)], START + 60.0 * n)
        wish: dict[str, Any] = [{}, {"exclude": ["i1"]}, {"candidates": ["i2", "i9"]}, {"leave_out_seen": True}][n % 4]
        asks.append(Ask(user=f"u{rng.integers(12)}", events=[event], k=1 + n % 9, **wish))
    together = many.ask_many(asks)
    for ask, found in zip(asks, together, strict=True):
        alone = one.ask(ask)
        assert isinstance(found, Told)
        assert alone.recommendations is not None
        assert found.recommendations is not None
        assert found.recommendations.ids == alone.recommendations.ids
        assert found.recommendations.scores == pytest.approx(alone.recommendations.scores, abs=1e-5)


def test_one_bad_ask_is_refused_alone() -> None:
    engine = engine_of()
    asks = [
        Ask(user="u1", events=[Event("i1", START)], k=2),
        Ask(user="u2", events=[Event("i1", float("nan"))]),
        Ask(user="u3", events=[Event("i1", 1000.0 * START)]),
        Ask(user="u4", candidates=["nothing"], k=2),
        Ask(events=[Event("i1")]),
        Ask(user="u5", events=[Event(1.5)]),  # type: ignore[arg-type]
        Ask(user="u6", k=-1),
    ]
    told = engine.ask_many(asks)
    assert isinstance(told[0], Told)
    words = ["seconds since 1970", "milliseconds", "'nothing' is not an item", "for a user", "texts or", "whole number"]
    for answer, word in zip(told[1:], words, strict=True):
        assert isinstance(answer, ConfigError)
        assert word in str(answer)
    assert all(engine.user(f"u{n}") is None for n in range(2, 7))


class Hurried(MemoryStore):
    """A store in which somebody else writes first, now and then."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.other: Engine | None = None
        self.times = times

    def read(self, users: Any) -> list[Stored | None]:
        found = super().read(users)
        if self.times and self.other is not None and users:
            self.times, other, self.other = self.times - 1, self.other, None
            other.ask(Ask(user=users[0], events=[Event("i9", START + 1000.0 - self.times)]))
            self.other = other
        return found


def test_engines_over_one_store_lose_nothing() -> None:
    store = Hurried(times=3)
    mine, other = engine_of("rum-item", store), engine_of("rum-item", store)
    store.other = other
    assert mine.ask(Ask(user="u1", events=[Event("i1", START)])).outcomes == ("late",)
    kept = mine.user("u1")
    assert kept is not None
    assert (kept.seen, mine.counts["conflicts"]) == (4, 3)
    assert_state(mine.state("u1"), reference(mine.trained, [Event(e.item, e.time) for e in kept.events], 1))


def test_an_endless_fight_ends_with_an_error() -> None:
    store = Hurried(times=1000)
    mine, store.other = engine_of("pop", store), engine_of("pop", store)
    with pytest.raises(StoreError, match="written by others 100 times"):
        mine.ask(Ask(user="u1", events=[Event("i1", START)]))


def test_a_new_model_makes_its_states_anew() -> None:
    store, log = MemoryStore(), clicks(50, 7)
    engine_of("narm", store, history=16).ask(Ask(user="u1", events=log[:49]))
    with pytest.raises(StoreError, match=r"another model .*'narm'.*--replay"):
        engine_of("lsamn", store, history=16)
    engine = engine_of("lsamn", store, replay=True, history=16)
    assert len(engine.ask(Ask(user="u1", k=5)).recommendations or ()) == 5
    kept = engine.user("u1")
    assert kept is not None
    assert engine.counts["again"] == 1
    size = len(kept.events)
    assert_state(engine.state("u1"), reference(engine.trained, log[49 - size : 49], 1))
    engine.ask(Ask(user="u1", events=log[49:]))
    late = Event("i3", (log[47].time or 0) + 0.5)
    assert engine.ask(Ask(user="u1", events=[late])).outcomes == ("late",)
    in_order = [*log[49 - size : 48], late, *log[48:]]
    assert_state(engine.state("u1"), reference(engine.trained, in_order, 1))
    engine_of("lsamn", store, history=16)  # it is its own now


def test_other_rules_make_other_states_of_the_same_events() -> None:
    store, log = MemoryStore(), clicks(20, 7)
    engine_of("narm", store, rules=None).ask(Ask(user="u1", events=log))
    engine_of("narm", store, rules=Rules())  # those of the training log: nothing is another
    never = Rules(sessions="none")
    with pytest.raises(StoreError, match=r"another model or rules .*--replay"):
        engine_of("narm", store, rules=never)
    engine = engine_of("narm", store, replay=True, rules=never)
    engine.ask(Ask(user="u1", k=5))
    assert engine.counts["again"] == 1
    assert_state(engine.state("u1"), reference(engine.trained, log, 1, Rules(gap=1e12)))


def test_half_precision_takes_half_the_room() -> None:
    single, half = engine_of("narm"), engine_of("narm", precision="float16")
    for engine in (single, half):
        engine.ask(Ask(user="u1", events=clicks(9, 5)))
    assert single.stepper.layout.bytes - half.stepper.layout.bytes == 2 * (100 + 19 * 100)
    whole, rounded = single.state("u1"), half.state("u1")
    assert whole is not None
    assert rounded is not None
    assert 0 < float((whole["h"] - rounded["h"]).abs().max()) < 5e-3


def test_sessions_by_day_by_name_and_repeats() -> None:
    midnight = 1_600_041_600.0  # a midnight in UTC
    items = [("i1", midnight - 60), ("i2", midnight - 30), ("i3", midnight + 30), ("i3", midnight + 40)]
    events = [Event(item, time) for item, time in items]
    for rules, wanted in [
        (Rules(sessions="day"), ["i3", "i3"]),
        (Rules(sessions="day", repeats="collapse"), ["i3"]),
        (Rules(sessions="none"), ["i1", "i2", "i3", "i3"]),
        (Rules(sessions="day", utc_offset=2), ["i1", "i2", "i3", "i3"]),
        (Rules(sessions="gap", gap=60), ["i1", "i2", "i3", "i3"]),
        (Rules(sessions="gap", gap=59), ["i3", "i3"]),
    ]:
        engine = engine_of(rules=rules)
        for event in events:
            engine.ask(Ask(user="u1", events=[event]))
        told = engine.ask(Ask(user="u1", k=5)).recommendations
        assert told is not None
        assert told.scores == pytest.approx(engine.trained.recommend(wanted, 5).scores, abs=1e-6), rules
    named = engine_of(rules=Rules(sessions="none"))
    named.ask(Ask(user="u1", events=[replace(e, session=s) for e, s in zip(events, "aabb", strict=True)]))
    told = named.ask(Ask(user="u1", k=5)).recommendations
    assert told is not None
    assert told.scores == pytest.approx(named.trained.recommend(["i3", "i3"], 5).scores, abs=1e-6)


def test_a_session_is_closed_by_the_first_later_event_even_an_unknown_one() -> None:
    engine = engine_of()
    engine.ask(Ask(user="u1", events=[Event("i1", START), Event("i2", START + 5)]))
    open_one = engine.ask(Ask(user="u1", k=3, now=START + 10.0**6)).recommendations
    engine.ask(Ask(user="u1", events=[Event("never seen", START + 5000)]))
    empty = engine.ask(Ask(user="u1", k=3)).recommendations
    assert open_one is not None
    assert empty is not None
    assert open_one.scores == pytest.approx(engine.trained.recommend(["i1", "i2"], 3).scores, abs=1e-6)
    assert empty.scores == pytest.approx(engine.trained.recommend([], 3).scores, abs=1e-6)


@pytest.mark.parametrize("name", ["narm", "rum-item", "lsamn", "dman", "asars"])
def test_reasons_after_a_users_events_are_the_recommenders(name: str) -> None:
    engine, log = engine_of(name, history=12), clicks(20, 1, unknown=0)
    engine.ask(Ask(user="u1", events=log))
    found = engine.explain(user="u1", item="i4")
    session = np.cumsum(np.diff([e.time or 0.0 for e in log], prepend=-np.inf) > 600)
    beside: dict[str, Any] = {"times": [int(e.time or 0) for e in log], "sessions": session.tolist()}
    history = [e.item for e in log]
    if engine.trained.model.scope == "session":
        last = [n for n, which in enumerate(session) if which == session[-1]]
        history, beside = [history[n] for n in last], {k: [v[n] for n in last] for k, v in beside.items()}
    wanted = engine.trained.explain(history, user="u1", item="i4", **beside)
    assert found.keys() == wanted.keys()
    kept = found["attention"]
    assert [item for item, _ in kept] == [item for item, _ in wanted["attention"]][-len(kept) :]
    assert [w for _, w in kept] == pytest.approx([w for _, w in wanted["attention"]][-len(kept) :], abs=1e-5)
    assert engine.explain(user="nobody") == {}
    with pytest.raises(ConfigError, match="a user or a history"):
        engine.explain()


def test_forgetting_leaves_nothing() -> None:
    engine = engine_of(history=8)
    engine.ask(Ask(user="u1", events=clicks(30)))
    assert engine.forget("u1")
    assert not engine.forget("u1")
    assert engine.user("u1") is None
    assert engine.store.report()["users"] == 0
    assert engine.store.read_base("u1") == b""


def test_users_are_told_apart_by_their_text() -> None:
    engine = engine_of()
    engine.ask(Ask(user=7, events=[Event("i1", START)]))
    engine.ask(Ask(user="7", events=[Event("i2", START + 1)]))
    kept = engine.user("7")
    assert kept is not None
    assert [event.item for event in kept.events] == ["i1", "i2"]
    known = Trained(
        "rum-item", make("rum-item", {}, dtype=torch.float32), Vocabulary(ITEMS), Vocabulary(range(1, 10)), {}
    )
    numbers = Engine(known, MemoryStore()).planner
    assert [numbers.number(user) for user in (7, "7", "8", "07x", None)] == [7, 7, 8, 0, 0]


def test_a_damaged_record_hurts_nobody_else() -> None:
    engine = engine_of()
    engine.ask_many([Ask(user=f"u{n}", events=[Event("i1", START)]) for n in (1, 2)])
    (stored,) = engine.store.read(["u1"])
    assert stored is not None
    engine.store.write([Change("u1", stored.version, stored.record[:-3])])
    told = engine.ask_many([Ask(user="u1", k=2), Ask(user="u2", k=2)])
    assert isinstance(told[0], StoreError)
    assert "damaged" in str(told[0])
    assert isinstance(told[1], Told)


def test_weights_that_give_nan_are_said() -> None:
    trained = trained_of("narm")
    with torch.no_grad():
        trained.model.get_parameter("item.weight")[3] = float("nan")
    engine = Engine(trained, MemoryStore())
    told = engine.ask_many([Ask(user="u1", k=2), Ask(user="u2", k=2)])
    assert all(isinstance(one, TrainingError) for one in told)


def test_an_event_costs_the_same_after_a_long_history() -> None:
    """What is read and written does not grow: the record of 3,000 events is that of 232."""
    engine = engine_of("rum-item", window_ids=100)
    sizes = []
    for first in range(0, 3000, 500):
        log = [Event(ITEMS[n % N_ITEMS], START + 60.0 * n, id=f"e{n}") for n in range(first, first + 500)]
        for piece in range(0, 500, 25):
            engine.ask(Ask(user="u1", events=log[piece : piece + 25]))
        (stored,) = engine.store.read(["u1"])
        assert stored is not None
        sizes.append(len(stored.record))
    assert max(sizes) - min(sizes) < 32 * 20
    assert max(sizes) < 200 * 20 + 32 * 20 + 12 * 100 + 200
