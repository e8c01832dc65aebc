"""The engine against a slow reference: lists of events a user, and one call of the model on them.

Whatever order events come in, however often they are sent, whoever writes in between and whatever the store fails at:
what is kept, what is said of each event, the state and the lists are those of the reference.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.rules import Rules
from foretaste.errors import StoreError
from foretaste.models.contract import Events, State
from foretaste.models.saved import Trained
from foretaste.serving.asks import Ask, Event, Outcome, Told
from foretaste.serving.batcher import Batcher
from foretaste.serving.engine import Engine
from foretaste.serving.planning import EngineConfig
from foretaste.serving.store import Change, MemoryStore, Stored
from tests.serving.test_engine import START, USERS, trained_of

NAMES = ["narm", "lsamn", "rum-item", "vs-knn"]
BOUND = {"float32": 2e-5, "float16": 3e-2}

trained = cache(trained_of)


@dataclass
class Remembered:
    """What the reference keeps of one user: every event ever taken in, in the order that counts."""

    events: list[Event] = field(default_factory=list)
    dropped: int = 0
    """The first so many are no longer kept."""
    unseen: int = 0
    """Of them, what the model of today was never given."""
    beyond: int = 0
    ids: list[str] = field(default_factory=list)
    model: str = ""


class Reference:
    """The promises of the engine in the plainest words."""

    def __init__(self, config: EngineConfig) -> None:
        assert config.rules is not None
        self.config, self.rules, self.users = config, config.rules, dict[str, Remembered]()

    def take_in(self, ask: Ask, model: str) -> tuple[Outcome, ...]:
        """What is to be said of each event of an ask."""
        known = str(ask.user) in self.users
        if not ask.events and not known:
            return ()
        user = self.users.setdefault(str(ask.user), Remembered(model=model))
        if user.model != model:
            user.model, user.unseen = model, user.dropped
        outcomes = [self._one(user, event) for event in ask.events]
        user.ids = user.ids[max(0, len(user.ids) - self.config.window_ids) :]
        if len(user.events) - user.dropped > self.config.history + self.config.slack:
            user.dropped = len(user.events) - self.config.history
        return tuple(outcomes)

    def _one(self, user: Remembered, event: Event) -> Outcome:
        if event.id is not None:
            if event.id in user.ids:
                return "duplicate"
            user.ids.append(event.id)
        assert event.time is not None
        times = [one.time or 0 for one in user.events]
        if not times or event.time >= times[-1]:
            user.events.append(event)
            return "applied"
        if user.dropped and event.time < times[user.dropped]:
            user.beyond += 1
            user.events.append(Event(event.item, times[-1], event.session))
            return "applied"
        place = max([user.dropped, *(n + 1 for n, one in enumerate(times) if one <= event.time)])
        user.events.insert(place, event)
        return "late"

    def sessions(self, events: Sequence[Event]) -> list[int]:
        """The session of each event, counted from 0."""
        out: list[int] = []
        for place, event in enumerate(events):
            before = events[place - 1] if place else None
            out.append(out[-1] + self._begins(before, event, place) if before else 0)
        return out

    def _begins(self, before: Event, event: Event, place: int) -> bool:
        if before.session is not None and event.session is not None:
            return before.session != event.session
        if self.rules.sessions == "none":
            return False
        if self.rules.sessions == "count":
            return place % self.rules.events == 0
        assert before.time is not None
        assert event.time is not None
        if self.rules.sessions == "day":
            shift = self.rules.utc_offset * 3600
            return (before.time + shift) // 86400 != (event.time + shift) // 86400
        return event.time - before.time > self.rules.gap

    def state(self, name: str, of: Trained) -> State:
        """A user's state: one call of the model on all that it is given."""
        user = self.users.get(name, Remembered())
        sessions, given = self.sessions(user.events), []
        for place, event in enumerate(user.events):
            repeat = place and user.events[place - 1].item == event.item and sessions[place - 1] == sessions[place]
            number = of.items.number(event.item)
            current = of.model.scope == "user" or sessions[place] == sessions[-1]
            if place >= user.unseen and number and current and not (repeat and self.rules.repeats == "collapse"):
                given.append((number, sessions[place], int(event.time or 0)))
        starts = [place == 0 or given[place - 1][1] != session for place, (_, session, _) in enumerate(given)]
        items = torch.tensor([[number for number, _, _ in given]], dtype=torch.int64)
        times = torch.tensor([[moment for _, _, moment in given]], dtype=torch.int64)
        number = USERS.index(name) + 1 if of.model.n_users and name in USERS else 0
        with torch.inference_mode():
            state = of.model.initial_state(torch.tensor([number]))
            return of.model(Events(items, items > 0, torch.tensor([starts]), times), state)[1] if given else state

    def check(self, engine: Engine, names: Sequence[str]) -> None:
        """The engine keeps of these users what the reference does."""
        for name in names:
            kept, wanted = engine.user(name), self.users.get(name)
            assert (kept is None) == (wanted is None)
            if kept is None or wanted is None:
                continue
            newest = [(one.item, one.time, one.session) for one in wanted.events[wanted.dropped :]]
            assert [(one.item, one.time, one.session) for one in kept.events] == newest
            assert (kept.seen, kept.beyond) == (len(wanted.events), wanted.beyond)
            assert kept.remembered == len(wanted.ids)
            if wanted.model == engine.trained.name:
                self._close(engine.state(name), self.state(name, engine.trained))

    def _close(self, found: State | None, wanted: State) -> None:
        assert found is not None
        for name, part in wanted.items():
            if part.is_floating_point():
                if self.config.precision == "float16":
                    part = part.clamp(-65504, 65504)
                bound = BOUND[self.config.precision] * part.abs().clamp(min=1)
                assert bool(((found[name] - part).abs() <= bound).all()), name
            else:
                assert torch.equal(found[name], part), name

    def check_list(self, ask: Ask, told: Told, of: Trained) -> None:
        """The list of an ask just answered is the best of what may be recommended."""
        if not ask.k:
            assert told.recommendations is None
            return
        assert told.recommendations is not None
        with torch.inference_mode():
            query = of.model.query(self.state(str(ask.user), of))
            scores = of.model.score(query).flatten().tolist()
        user = self.users.get(str(ask.user), Remembered())
        hidden = {*ask.exclude, *([one.item for one in user.events[user.dropped :]] if ask.leave_out_seen else ())}
        pool = of.items.ids if ask.candidates is None else set(ask.candidates)
        allowed = {item: scores[of.items.number(item) - 1] for item in pool if item not in hidden}
        best = sorted(allowed.values(), reverse=True)[: ask.k]
        bound = 10 * BOUND[self.config.precision]
        assert told.recommendations.scores == pytest.approx(best, abs=bound, rel=bound)
        assert len(set(told.recommendations.ids)) == len(best)
        assert [allowed[item] for item in told.recommendations.ids] == pytest.approx(best, abs=bound, rel=bound)
        assert told.recommendations.skipped == list(told.unknown)


class Rough(MemoryStore):
    """A store into which somebody writes between a read and a write, and that fails now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.between: list[Any] = []
        """Done one after the other, each at the next read of records."""
        self.failures: list[str] = []
        """What the next calls do: "read" fails, "write" fails before or "written" after it has written."""

    def _fails(self, *kinds: str) -> bool:
        return bool(self.failures) and self.failures[0] in kinds and bool(self.failures.pop(0))

    def read(self, users: Sequence[str]) -> list[Stored | None]:
        found = super().read(users)
        if self._fails("read"):
            raise StoreError("no answer")
        if self.between:
            (first, *rest), self.between = self.between, []
            first()
            self.between = rest
        return found

    def read_base(self, user: str) -> bytes:
        if self._fails("base"):
            raise StoreError("no answer")
        return super().read_base(user)

    def write(self, changes: Sequence[Change]) -> list[bool]:
        if self._fails("write"):
            raise StoreError("no answer")
        done = super().write(changes)
        if self._fails("written"):
            raise StoreError("no answer")
        return done


moments = st.integers(0, 40).map(lambda n: START + [0.0, 250.25, 600.5][n % 3] + 601 * (n // 3))
days = st.integers(0, 40).map(lambda n: START + 20_000.0 * n)
items = st.sampled_from(["i1", "i2", "i2", "i3", "i30", "new", 7])
people = st.sampled_from(["u3", "u7", "nobody"])


def events_at(when: st.SearchStrategy[float], ids: st.SearchStrategy[str | None]) -> st.SearchStrategy[Event]:
    """Events at such times; few have a session of their own."""
    return st.builds(Event, items, when, st.sampled_from([None, None, None, "a", "b"]), ids)


def asks_of(events: st.SearchStrategy[Event]) -> st.SearchStrategy[Ask]:
    """What a caller may want."""
    return st.builds(
        Ask,
        people,
        st.lists(events, max_size=5),
        k=st.sampled_from([0, 3, 50]),
        candidates=st.sampled_from([None, None, ["i1", "i2", "i9"], []]),
        exclude=st.sampled_from([(), ["i2"], ["new", "i4"]]),
        leave_out_seen=st.booleans(),
    )


some_id = st.none() | st.integers(0, 12).map(lambda n: f"e{n}")
asks = asks_of(events_at(moments, some_id)) | asks_of(events_at(days, some_id))
configs = st.builds(
    EngineConfig,
    history=st.integers(1, 6) | st.just(9),
    window_ids=st.sampled_from([0, 1, 3, 1000]),
    rules=st.builds(
        Rules,
        sessions=st.sampled_from(["gap", "day", "count", "none", "given"]),
        gap=st.sampled_from([600.0, 250.25]),
        events=st.integers(1, 4),
        utc_offset=st.sampled_from([0.0, -5.5]),
        repeats=st.sampled_from(["keep", "collapse"]),
    ),
    precision=st.sampled_from(["float32", "float32", "float16"]),
)
quick = settings(max_examples=16)


@pytest.mark.parametrize("name", NAMES)
@quick
@given(data=st.data(), config=configs)
def test_any_asks_in_any_order(name: str, data: st.DataObject, config: EngineConfig) -> None:
    """Batches of asks to two engines in turn; others write first, users are forgotten in between."""
    store, reference = Rough(), Reference(config)
    engines = [Engine(trained(name), store, config) for _ in range(2)]

    def both(engine: Engine, ask: Ask) -> None:
        assert engine.ask(ask).outcomes == reference.take_in(ask, name)

    for turn in range(data.draw(st.integers(1, 7))):
        engine, other = engines[turn % 2], engines[1 - turn % 2]
        batch = data.draw(st.lists(asks, min_size=1, max_size=4))
        if data.draw(st.integers(0, 3)) == 0:
            assert engine.forget("u3") == (reference.users.pop("u3", None) is not None)
        if any(event.id is None for event in batch[0].events):  # it writes: if others were faster, it comes after them
            for ask in data.draw(st.lists(asks, max_size=2)):
                store.between.append(partial(both, other, ask))
                batch = batch[:1]
        told = engine.ask_many(batch)
        store.between.clear()
        for ask, answer in zip(batch, told, strict=True):
            assert isinstance(answer, Told)
            assert answer.outcomes == reference.take_in(ask, name)
            assert answer.unknown == tuple(one.item for one in ask.events if one.item in ("new", 7))
            reference.check_list(ask, answer, engine.trained)
    reference.check(engines[0], ["u3", "u7", "nobody"])
    for user, wanted in reference.users.items():
        ask = Ask(user, history=wanted.events, k=50)
        stateless = engines[0].ask(ask)
        reference.check_list(ask, stateless, engines[0].trained)
        assert stateless.unknown == tuple(one.item for one in wanted.events if one.item in ("new", 7))


@quick
@given(batches=st.lists(asks, min_size=2, max_size=10), config=configs, names=st.permutations(NAMES))
def test_any_change_of_models(batches: list[Ask], config: EngineConfig, names: list[str]) -> None:
    """A model takes over what another kept: it begins before the oldest event that is kept."""
    store, reference = MemoryStore(), Reference(config)
    for place, ask in enumerate(batches):
        name = names[place // 3]
        engine = Engine(trained(name), store, config, replay=True)
        told = engine.ask(ask)
        assert told.outcomes == reference.take_in(ask, name)
        reference.check_list(ask, told, engine.trained)
        reference.check(engine, ["u3", "u7", "nobody"])


@pytest.mark.parametrize("name", NAMES)
@quick
@given(data=st.data(), config=configs.filter(lambda config: config.window_ids == 1000))
def test_what_was_not_acknowledged_is_sent_again_and_is_there_once(
    name: str, data: st.DataObject, config: EngineConfig
) -> None:
    store, reference = Rough(), Reference(config)
    engine, count = Engine(trained(name), store, config), 0
    for _ in range(data.draw(st.integers(1, 8))):
        found = data.draw(st.lists(events_at(moments, st.just("")), max_size=4))
        events = [Event(one.item, one.time, one.session, f"e{count + n}") for n, one in enumerate(found)]
        count += len(events)
        ask = Ask(data.draw(people), events, k=3)
        store.failures = data.draw(st.lists(st.sampled_from(["read", "write", "written", "base"]), max_size=4))
        there, told = False, None
        while told is None:
            pending = list(store.failures)
            try:
                told = engine.ask(ask)
            except StoreError:
                assert len(store.failures) < len(pending)
                there = there or ("written" in pending[: len(pending) - len(store.failures)])
            else:
                store.failures.clear()
        wanted = reference.take_in(ask, name)
        assert told.outcomes == (("duplicate",) * len(events) if there and events else wanted)
        reference.check_list(ask, told, engine.trained)
    reference.check(engine, ["u3", "u7", "nobody"])


class Slow(MemoryStore):
    """A store that leaves others time to be faster."""

    def read(self, users: Sequence[str]) -> list[Stored | None]:
        found = super().read(users)
        time.sleep(0.001)
        return found


@pytest.mark.parametrize("name", ["narm", "rum-item"])
def test_threads_that_write_one_user_are_as_one(name: str) -> None:
    """Each event once, in the order of time, whoever wrote it and however often they were in each other's way."""
    config = EngineConfig(history=200, rules=Rules(gap=600))
    store, reference = Slow(), Reference(config)
    moment = [START + [0.0, 250.25, 600.5][n % 3] + 601 * (n // 3) for n in range(90)]
    events = [Event(f"i{1 + n % 29}", moment[n], id=f"e{n}") for n in range(90)]
    reference.take_in(Ask("u3", events), name)
    arrived = [*events, *events[::3]]
    random.Random(1).shuffle(arrived)

    async def send() -> list[Told]:
        batchers = [Batcher(Engine(trained(name), store, config), batch=4) for _ in range(2)]
        told = await asyncio.gather(*(batchers[n % 2].ask(Ask("u3", [one], k=3)) for n, one in enumerate(arrived)))
        for batcher in batchers:
            batcher.close()
        assert sum(batcher.engine.counts["conflicts"] for batcher in batchers) > 0
        return list(told)

    told = asyncio.run(send())
    assert sum(one.outcomes == ("duplicate",) for one in told) == 30
    reference.check(Engine(trained(name), store, config), ["u3"])
