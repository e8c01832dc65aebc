"""The engine and what ought not to happen: malformed asks, failing stores, clocks that go wrong, ids of odd types."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from foretaste.data.events import EventLog
from foretaste.data.rules import Edge, Happened, Rules, walk
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, DamagedRecordError, StoreError
from foretaste.models.saved import Trained
from foretaste.serving.asks import Ask, Event, Told
from foretaste.serving.engine import Engine
from foretaste.serving.ids import Names
from foretaste.serving.planning import EngineConfig
from foretaste.serving.record import Record, digest
from foretaste.serving.store import Change, MemoryStore, Stored
from tests.battery import N_ITEMS, make
from tests.serving.small import small_app, small_trained
from tests.serving.test_engine import GAP, START, assert_state, clicks, engine_of, reference, trained_of


@pytest.mark.parametrize(
    ("ask", "word"),
    [
        (Ask("", [Event("i1")]), "a user has a name"),
        (Ask("u2", [Event("i1", id=5)]), "the id of an event is a text"),  # type: ignore[arg-type]
        (Ask("u2", [Event("i1", "5")]), "seconds since 1970"),  # type: ignore[arg-type]
        (Ask("u2", [Event("i1", float("inf"))]), "seconds since 1970"),
        (Ask("u2", [Event("i1", 10**400)]), "seconds since 1970"),
        (Ask("u2", [Event(True)]), "texts or whole"),
        (Ask("u2", [Event("i1", session=1.5)]), "texts or whole"),  # type: ignore[arg-type]
        (Ask("u2", [Event("i1")], k=2, now=float("nan")), "now = nan"),
        (Ask("u2", [Event("i1")], k=2, now=1e30), r"now = 1e\+30"),
        (Ask("u2", [Event("i1")], k=2, exclude="i1"), r"write \['i1'\]"),
        (Ask("u2", [Event("i1")], k=2, exclude=[["i1"]]), "cannot be an id"),  # type: ignore[list-item]
    ],
)
def test_what_cannot_be_granted_is_refused_before_anything_is_taken_in(ask: Ask, word: str) -> None:
    engine = engine_of()
    bad, good = engine.ask_many([ask, Ask("u1", [Event("i1")], k=2)])
    assert isinstance(good, Told)
    assert engine.user(str(ask.user)) is None
    with pytest.raises(Exception, match=word) as caught:
        engine.ask(ask)
    assert type(bad) is type(caught.value)


def test_half_a_character_is_an_id_like_others() -> None:
    """Half of a surrogate pair, as JSON can carry it."""
    engine = engine_of()
    event = Event("\ud800", START, session="\udfff", id="\ud801")
    assert engine.ask(Ask("\ud802", [event])).outcomes == ("applied",)
    assert engine.ask(Ask("\ud802", [event])).outcomes == ("duplicate",)
    kept = engine.user("\ud802")
    assert kept is not None
    assert kept.events == (replace(event, id=None),)


def test_an_event_without_a_time_is_the_newest_whatever_comes_with_it() -> None:
    engine, now = engine_of(), time.time()
    engine.ask(Ask("u1", [Event("i1", now + 1000)]))
    assert engine.ask(Ask("u1", [Event("i2", now - 50), Event("i3")])).outcomes == ("late", "applied")
    kept = engine.user("u1")
    assert kept is not None
    assert [event.item for event in kept.events] == ["i2", "i1", "i3"]


def test_a_clock_that_goes_back_forgets_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's clock, ten days ahead of ours, wrote in between."""
    engine = engine_of(window_days=7.0)
    for moment, name in ((20, "a"), (30, "b"), (20, "c"), (20, "d"), (30, "e")):
        monkeypatch.setattr(time, "time", lambda moment=moment: START + 86_400.0 * moment)
        assert engine.ask(Ask("u1", [Event("i1", id=name)])).outcomes == ("applied",)
    told = engine.ask(Ask("u1", [Event("i1", id=name) for name in "bcde"]))
    assert told.outcomes == ("duplicate",) * 4


def test_items_of_other_types_are_kept_as_texts() -> None:
    """The ids of a log may be UUIDs: they come as such or as the service's names for them."""
    raw = [UUID(int=n) for n in range(1, N_ITEMS + 1)]
    trained = Trained("narm", make("narm", {}, dtype=torch.float32), Vocabulary(raw), None, {})
    engine, plain = Engine(trained, MemoryStore(), EngineConfig(rules=GAP)), engine_of()
    events = [Event(raw[n], START + n) for n in (4, 2, 9)]  # type: ignore[arg-type]
    events[1] = Event(str(raw[2]), START + 2)
    assert Names(trained.items).meant(str(raw[2])) == raw[2]
    wish: dict[str, Any] = {"k": N_ITEMS, "leave_out_seen": True}
    told = engine.ask(Ask("u1", [events[0], events[2], events[1]], exclude=[raw[0]], **wish))  # type: ignore[list-item]
    wanted = plain.ask(Ask("u1", [Event(f"i{n + 1}", START + n) for n in (4, 2, 9)], exclude=["i1"], **wish))
    assert (told.outcomes, told.unknown) == (("applied", "applied", "late"), ())
    assert told.recommendations is not None
    assert wanted.recommendations is not None
    assert [f"i{one.int}" for one in told.recommendations.ids] == wanted.recommendations.ids
    assert told.recommendations.scores == pytest.approx(wanted.recommendations.scores, abs=1e-6)
    kept = engine.user("u1")
    assert kept is not None
    assert [event.item for event in kept.events] == [str(raw[n]) for n in (2, 4, 9)]
    assert engine.explain("u1")["attention"][-1][0] == raw[9]
    with pytest.raises(ConfigError, match="texts or whole"):
        engine.ask(Ask("u1", [Event(UUID(int=99))]))  # type: ignore[arg-type]


@pytest.mark.parametrize("before", [int, str])
def test_a_new_model_knows_the_items_that_its_log_writes_otherwise(before: type) -> None:
    """One item "A1" in a log of numbers, and its next reading has texts."""
    after = str if before is int else int
    store, config = MemoryStore(), EngineConfig(history=4, rules=GAP)
    sent = [Event(before(n % 5 + 1), START + n) for n in range(12)]
    Engine(small_trained([before(n) for n in range(1, 8)]), store, config).ask(Ask("u1", sent))
    trained = small_trained([after(n) for n in range(1, 8)])
    engine = Engine(trained, store, config, replay=True)
    kept = engine.user("u1")
    assert kept is not None
    events = [Event(after(one.item), one.time) for one in kept.events]
    assert [item for item, _ in engine.explain("u1")["attention"]] == [one.item for one in events]
    wanted = Engine(trained, MemoryStore(), config).ask(Ask(history=events, k=7))
    assert engine.ask(Ask("u1", k=7)).recommendations == wanted.recommendations
    kept = engine.user("u1")
    assert kept is not None
    assert [one.item for one in kept.events] == [one.item for one in events]


def test_only_a_number_written_as_numbers_are_is_the_user_of_that_number() -> None:
    model = make("rum-item", {}, dtype=torch.float32)
    planner = Engine(
        Trained("rum-item", model, Vocabulary(range(N_ITEMS)), Vocabulary(range(1, 10)), {}), MemoryStore()
    ).planner
    assert [planner.number(user) for user in ("7", "07", "-07", "\u0667", "7" * 5000)] == [7, 0, 0, 0, 0]


class Failing(MemoryStore):
    """A store that counts what is asked of it, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.fails, self.damaged = 0, "", ""

    def read(self, users: Sequence[str]) -> list[Stored | None]:
        self.reads += 1
        if self.fails == "read":
            raise StoreError("no answer")
        if self.damaged in users:
            raise DamagedRecordError(f"the record of {self.damaged} is damaged", self.damaged)
        return super().read(users)

    def write(self, changes: Sequence[Change]) -> list[bool]:
        if self.fails == "write":
            raise StoreError("no answer")
        return super().write(changes)


ASKS = [Ask("u1", [Event("i1", START)], k=2), Ask("u2", k=2), Ask(history=[Event("i3", START)], k=2), Ask("u4", k=2)]


@pytest.mark.parametrize(
    ("fails", "damaged", "refused", "reads"),
    [("read", "", [0, 1, 3], 1), ("write", "", [0], 1), ("", "u2", [1], 2), ("", "nobody", [], 1)],
)
def test_a_store_that_fails_hurts_those_who_need_it(fails: str, damaged: str, refused: list[int], reads: int) -> None:
    """And it is not asked again for each one: a server that is gone would be waited for each time."""
    store = Failing()
    engine, store.fails, store.damaged = engine_of("narm", store), fails, damaged
    wanted = engine_of().ask_many(ASKS)
    for place, told in enumerate(engine.ask_many(ASKS)):
        if place in refused:
            assert isinstance(told, StoreError)
        else:
            answer = wanted[place]
            assert isinstance(told, Told)
            assert isinstance(answer, Told)
            assert told.recommendations is not None
            assert answer.recommendations is not None
            assert told.recommendations.ids == answer.recommendations.ids
    assert store.reads == reads


def test_an_answer_does_not_depend_on_the_clock_of_the_one_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of()
    query, given = engine.trained.model.query, []

    def spied(state: Any, now: Any = None) -> Any:
        given.append(None if now is None else now.tolist())
        return query(state, now)

    monkeypatch.setattr(engine.trained.model, "query", spied)
    told = engine.ask_many([Ask("u1", k=2, now=START + 0.5), Ask("u2", k=3), Ask("u3", k=4, now=0.0)])
    assert [len(one.recommendations or ()) for one in told if isinstance(one, Told)] == [2, 3, 4]
    assert given == [[START, 0], None]


def test_reasons_are_of_one_moment() -> None:
    """Somebody writes between the two reads of record and base: both are read again."""

    class Overtaken(MemoryStore):
        other: Engine | None = None

        def read_base(self, user: str) -> bytes:
            if self.other is not None:
                other, self.other = self.other, None
                other.ask(Ask(user, log[20:]))
            return super().read_base(user)

    store, log = Overtaken(), clicks(60, 3, unknown=0)
    engine, other = engine_of("rum-item", store, history=8), engine_of("rum-item", store, history=8)
    engine.ask(Ask("u1", log[:20]))
    store.other = other
    found = engine.explain("u1", item="i4")
    assert found == engine.explain("u1", item="i4")
    kept = engine.user("u1")
    assert kept is not None
    assert kept.seen == 60
    assert_state(engine.state("u1"), reference(engine.trained, log, 1))


def test_items_of_other_types_over_http() -> None:
    raw = [UUID(int=n) for n in range(1, 4)]
    small = small_trained(raw)
    titled = replace(small, items=Vocabulary(raw, {"title": ["Tea", "Milk", "Rum"]}))
    app, _ = small_app(trained=titled)
    with TestClient(app, base_url="http://localhost") as client:
        sent = {"user": "ann", "item": str(raw[1]), "time": START, "recommend": {"k": 3, "leave_out_seen": True}}
        answer = client.post("/events", json=sent).json()
        assert (answer["outcomes"], answer["unknown"]) == (["applied"], [])
        assert {one["item"] for one in answer["recommendations"]} == {str(raw[0]), str(raw[2])}
        (kept,) = client.get("/users/ann").json()["events"]
        assert (kept["item"], kept["title"]) == (str(raw[1]), "Milk")


def test_half_precision_keeps_what_is_as_low_as_can_be_finite() -> None:
    """The level of LSAMN's sums before the first known event."""
    engine = engine_of("lsamn", precision="float16")
    engine.ask(Ask("u1", [Event("never seen", START)]))
    state = engine.state("u1")
    assert state is not None
    assert all(bool(part.isfinite().all()) for part in state.values())
    assert float(state["level"]) == -65504


def test_ids_leave_the_window_by_number_and_by_age() -> None:
    record = Record(b"m" * 16, b"")
    for now, name in ((100, "a"), (200, "b"), (201, "c"), (299, "d")):
        record.remember([digest(name)], now, 3, 100.0)
    assert [record.knows(digest(name)) for name in "abcd"] == [False, True, True, True]
    record.remember([digest("e")], 301, 3, 100.0)
    assert [record.knows(digest(name)) for name in "abcde"] == [False, False, True, True, True]
    record.remember([digest("f"), digest("g")], 350, 9, 50.0)
    assert [record.knows(digest(name)) for name in "cdefg"] == [False, False, True, True, True]
    assert (len(record.digests), len(record.arrivals)) == (24, 12)
    assert Record.unpack(record.pack()) == record
    for size in (1, 20, len(record.pack()) - 7):
        with pytest.raises(DamagedRecordError, match=r"the record of user 'ann' has .* it is damaged"):
            Record.unpack(record.pack()[:size], "ann")


CUTS: list[dict[str, Any]] = [{"gap": 600}, {"per": "day", "utc_offset": 5.5}, {"events": 7}, {}]


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("repeats", ["keep", "collapse"])
def test_the_service_cuts_as_the_log_was_cut(cut: dict[str, Any], repeats: Any) -> None:
    """The rules that a log writes down are read by the service, and give the sessions of the log."""
    rng = np.random.default_rng(0)
    items = [f"i{n}" for n in rng.integers(1, 4, 60)]
    times = (START + np.cumsum(rng.choice([5, 600, 601, 40_000], 60))).tolist()
    log = EventLog.read(
        {"user": ["u1"] * 60, "item": items, "time": times}, user="user", item="item", time="time", repeats=repeats
    )
    log = log.sessions(**cut) if cut else log.collapsed()
    found = log.db.execute(f'SELECT row, "session" FROM {log.table} ORDER BY row').fetchall()
    assert (len(found) < 60) == (repeats == "collapse")
    rules = Rules.of_recommender({"data": {"rules": log.rules}})
    events = [Happened(item, 1000 * time) for item, time in zip(items, times, strict=True)]
    steps = [step for step, _ in walk(rules, Vocabulary(["i1", "i2", "i3"]), Edge(), events)]
    first = found[0][0]
    assert [place for place, step in enumerate(steps) if step.number] == [row - first for row, _ in found]
    begins = [n == 0 or found[n - 1][1] != session for n, (_, session) in enumerate(found)]
    assert [step.start for step in steps if step.number] == begins


class Lost(MemoryStore):
    """Somebody else is always faster with the user of the hour."""

    def __init__(self, users: list[str]) -> None:
        super().__init__()
        self.users = users

    def write(self, changes: Sequence[Change]) -> list[bool]:
        behind = self.users.pop(0) if self.users else ""
        done = iter(super().write([change for change in changes if change.user != behind]))
        return [change.user != behind and next(done) for change in changes]


def test_each_ask_has_its_own_tries() -> None:
    engine = engine_of("pop", Lost(["u1"] * 60 + ["u2"] * 60))
    asks = [Ask(user, [Event("i1", START)]) for user in ["u1", *["u2"] * 62]]
    assert all(isinstance(one, Told) for one in engine.ask_many(asks))
    assert engine.counts["conflicts"] == 120


@pytest.mark.parametrize("name", ["lsamn", "asars", "narm"])
def test_a_session_that_opens_with_unknown_items_begins_with_the_first_known_one(name: str) -> None:
    """Each event in an ask of its own: what the model was given so far is in the record."""
    variant = {"temporal": True} if name == "asars" else {}
    trained = trained_of(name, variant)
    engine = Engine(trained, MemoryStore(), EngineConfig(rules=GAP, history=3))
    log = [Event(item, START + time) for item, time in (("i1", 0), ("i2", 9), ("new", 700), ("new", 705), ("i3", 710))]
    log += [Event("i4", START + 720.0), Event("new", START + 2000.0), Event("i5", START + 2001.0)]
    for event in log:
        engine.ask(Ask("u1", [event]))
    assert_state(engine.state("u1"), reference(trained, log, 1))


def test_a_session_is_the_same_as_number_and_as_text() -> None:
    engine = Engine(small_trained(), MemoryStore())
    for when, session in enumerate((5, "5", 5)):
        engine.ask(Ask("ann", [Event("tea", 1.7e9 + when, session)]))
    state = engine.state("ann")
    other = Engine(small_trained(), MemoryStore())
    other.ask(Ask("ann", [Event("tea", 1.7e9 + when, "s") for when in range(3)]))
    wanted = other.state("ann")
    assert state is not None
    assert wanted is not None
    torch.testing.assert_close(state, wanted)
