"""The engine: a trained recommender over a store of user states. It takes in events and answers, many users at a time.

    engine = Engine(Trained.load("clicks-narm"), MemoryStore())
    engine.ask(Ask(user="ann", events=[Event("tea", time=1_700_000_000, id="e1")], k=10)).recommendations

What it promises, for every model and every store:

- One user's events are applied in the order of their times; equal times in the order of arrival. An event earlier than
  the newest is put in its place among those kept, and the state is made again from them: the result equals a replay in
  order. One older than all that is kept, when older ones are gone, is applied as the newest, and counted.
- An event with an id is taken in once, within the window of the newest `window_ids` ids of the last `window_days`.
- A session is closed by the first later event, never by a timer.
- What an ask took in is in the store when it returns.
- Engines over one store never lose each other's updates: whoever was slower reads again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch

import foretaste
from foretaste.data.rules import Rules
from foretaste.errors import ConfigError, DamagedRecordError, ForetasteError, StoreError
from foretaste.models.choosing import Recommendations
from foretaste.models.contract import State
from foretaste.models.saved import Trained
from foretaste.retrieval.approximate import Approximate
from foretaste.serving.answering import Asked, Chooser
from foretaste.serving.asks import Ask, Event, Id, Kept, Told
from foretaste.serving.logs import LOGGER
from foretaste.serving.planning import EngineConfig, Plan, Planner
from foretaste.serving.record import Base, Record
from foretaste.serving.stepping import Row, Stepper
from foretaste.serving.store import Change, Store, Stored

QUIET = 10.0
"""Seconds between two lines of the log about the store."""
TRIES = 100
"""How often an ask is begun again because somebody else wrote the user first."""

Answers = list[Told | ForetasteError]


class Engine:
    """See the first lines of this file. To be used by one thread at a time."""

    def __init__(
        self, trained: Trained, store: Store, config: EngineConfig | None = None, *, replay: bool = False
    ) -> None:
        """`replay` takes over a store that another model wrote: each user's state is made anew from the events kept."""
        self.trained = trained
        self.store = store
        self.config = config if config is not None else EngineConfig()
        self.stepper = Stepper(trained, self.config.precision, self.config.rules)
        rules = self.config.rules or Rules.of_recommender(trained.facts)
        self.planner = Planner(self.stepper, rules, self.config, store.read_base)
        self.counts: Counter[str] = Counter()
        """Asks, events by outcome, states made again ("again"), and asks begun again because another engine was faster
        ("conflicts"); and what `Chooser` counts of an index."""
        self._quiet = 0.0
        self._claim(replay)
        self.chooser = Chooser(trained, self._index(), self.counts)

    def ask(self, ask: Ask) -> Told:
        """One ask, or its error raised."""
        told = self.ask_many([ask])[0]
        if isinstance(told, ForetasteError):
            raise told
        return told

    def ask_many(self, asks: Sequence[Ask]) -> Answers:
        """Many asks in few calls of the model; each one's answer, or the error that concerns it alone.

        Asks of one user are answered one after the other, in the order given. After a `StoreError` the events of an ask
        may be in the store or not, and where the scores are at fault they are: sent again with their ids, they are
        there once.
        """
        answers: Answers = [StoreError("not answered")] * len(asks)
        waiting, tries = list(range(len(asks))), Counter[int]()
        while waiting:
            now: list[int] = []
            later: list[int] = []
            users: set[str] = set()
            for place in waiting:
                key = _key(asks[place])
                (later if key in users else now).append(place)
                if key:
                    users.add(key)
            lost = self._round(now, asks, answers)
            tries.update(lost)
            self.counts["conflicts"] += len(lost)
            for place in lost:
                if tries[place] > TRIES:
                    answers[place] = StoreError(f"the user was written by others {TRIES} times in between; try again")
            waiting = [place for place in lost if tries[place] <= TRIES] + later
        self.counts["asks"] += len(asks)
        return answers

    def user(self, user: Id) -> Kept | None:
        """What is kept of a user, or None."""
        (stored,) = self.store.read([str(user)])
        if stored is None:
            return None
        record = Record.unpack(stored.record, str(user))
        return Kept(
            user=user,
            events=tuple(Event(one.item, one.time / 1000, one.session) for one in record.events()),
            seen=record.seen,
            beyond=record.beyond,
            remembered=len(record.digests) // 8,
            bytes=len(stored.record) + len(self.store.read_base(str(user))),
            state=self.stepper.layout.summary(),
        )

    def state(self, user: Id) -> State | None:
        """The model's state of a user, [1, ...], or None: for looking into, and for tests."""
        (stored,) = self.store.read([str(user)])
        return None if stored is None else self.stepper.layout.unpack([Record.unpack(stored.record, str(user)).state])

    def forget(self, user: Id) -> bool:
        """Erase all that is kept of a user; False if there was nothing."""
        return self.store.delete(str(user))

    def similar_items(self, item: Hashable, k: int = 10) -> Recommendations:
        """The items whose vectors point the way of this one."""
        return self.trained.similar_items(item, k)

    def explain(
        self, user: Id | None = None, history: Sequence[Event] | None = None, item: Hashable | None = None
    ) -> dict[str, Any]:
        """What the answer after a user's events, or after a history, rests on; as `Trained.explain`."""
        if history is not None:
            row = self.planner.of_history(Ask(user=user, history=history)).row
        elif user is not None:
            stored, row = self._replayed(user)
            if stored is None:
                return {}
        else:
            raise ConfigError("explain: give a user or a history")
        if not row.steps:
            return {}
        with torch.inference_mode():
            before = self.stepper.advance([replace(row, steps=[])])  # [1, ...]
            return self.trained.reasons(self.stepper.events([row.steps]), before, item)

    def _index(self) -> Approximate | None:
        """What finds candidates, where the configuration wants it; it takes a minute for some million items."""
        if self.config.retrieval == "exact":
            return None
        index = Approximate(self.trained.model, recall=self.config.recall)
        if index.depths:
            LOGGER.info("the index is made", extra={"facts": index.facts})
        else:
            said = "an index gains nothing with these items: every list is made exactly"
            LOGGER.warning(said, extra={"facts": index.facts})
        return index

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def _claim(self, replay: bool) -> None:
        """Write into a new store whose it is; refuse one of another model, or take it over."""
        ours = {"model": self.stepper.fingerprint.hex(), "name": self.trained.name, "foretaste": foretaste.__version__}
        found = self.store.claim(ours)
        if found.get("model") == ours["model"]:
            return
        if not replay:
            raise StoreError(
                f"the store holds states of another model or rules ('{found.get('name')}', "
                f"{str(found.get('model'))[:8]}; this is '{self.trained.name}', {ours['model'][:8]}); to make every "
                "user's state anew from the events "
                "kept, start with replay (--replay), or give another store"
            )
        self.store.claim(ours, replace=True)

    def _round(self, places: Sequence[int], asks: Sequence[Ask], answers: Answers) -> list[int]:
        """Answer asks of different users; gives those whose user was written by somebody else in between."""
        plans = self._plans(places, asks, answers)
        if not plans:
            return []
        with torch.inference_mode():
            state = self.stepper.advance([plan.row for plan in plans.values()])
            lost, failed = set[int](), set[int]()
            try:
                lost = self._write(plans, state)
            except ForetasteError as error:  # of the store: nothing of these is acknowledged
                self._note(error)
                failed = {place for place, plan in plans.items() if plan.record is not None}
                answers[:] = [error if place in failed else answer for place, answer in enumerate(answers)]
            done = [(row, place) for row, place in enumerate(plans) if place not in lost and place not in failed]
            for _, place in done:
                self.counts.update(plans[place].outcomes)
                self.counts["again"] += plans[place].again
            wishes = [Asked(row, asks[place], plans[place].seen) for row, place in done if asks[place].k]
            lists = self.chooser.best(state, wishes)
        for row, place in done:
            plan = plans[place]
            found = lists.get(row)
            if isinstance(found, ForetasteError):
                answers[place] = found
            else:
                if found is not None and plan.unknown:
                    found = replace(found, skipped=list(plan.unknown))
                answers[place] = Told(plan.outcomes, plan.unknown, found)
        return [place for place in plans if place in lost]

    def _plans(self, places: Sequence[int], asks: Sequence[Ask], answers: Answers) -> dict[int, Plan]:
        """What to do for each ask; one that cannot be granted has its error for an answer."""
        plans: dict[int, Plan] = {}
        stored = self._read([key for place in places if (key := _key(asks[place]))])
        for place in places:
            ask, key = asks[place], _key(asks[place])
            try:
                self.chooser.check(ask)
                if ask.events and (ask.user is None or ask.history is not None):
                    raise ConfigError("events are taken in for a user, and not beside a history without state")
                if ask.user == "":
                    raise ConfigError("user = ''; a user has a name")
                found = stored.get(key)
                if isinstance(found, ForetasteError):
                    raise found
                plan = self.planner.of_user(ask, key, found) if key else self.planner.of_history(ask)
                if plan.row.state is not None and len(plan.row.state) != self.stepper.layout.bytes:
                    raise DamagedRecordError(
                        f"the state of user {key!r} has {len(plan.row.state)} bytes: it is damaged", key
                    )
                plans[place] = plan
            except ForetasteError as error:
                answers[place] = error
        return plans

    def _read(self, keys: Sequence[str]) -> dict[str, Stored | ForetasteError | None]:
        """Each user's record, or why it cannot be had."""
        try:
            return dict(zip(keys, self.store.read(keys), strict=True)) if keys else {}
        except DamagedRecordError as error:  # the others are not to suffer
            self._note(error)
            if error.user in keys:
                return {error.user: error, **self._read([key for key in keys if key != error.user])}
            return dict.fromkeys(keys, error)
        except ForetasteError as error:
            self._note(error)
            return dict.fromkeys(keys, error)

    def _note(self, error: ForetasteError) -> None:
        """Tell the log what the store could not do, now and then, and never of whom."""
        if time.monotonic() >= self._quiet:
            self._quiet = time.monotonic() + QUIET
            LOGGER.warning("the store: %s", "a record is damaged" if isinstance(error, DamagedRecordError) else error)

    def _replayed(self, user: Id) -> tuple[Stored | None, Row]:
        """A user's record and the row that leads to its state. Record and base are two reads: of one version both."""
        row = Row(None, 0, [])
        for _ in range(TRIES):
            (stored,) = self.store.read([str(user)])
            if stored is None:
                return None, row
            row = self.planner.replayed(str(user), Record.unpack(stored.record, str(user)), user)
            (again,) = self.store.read([str(user)])
            if again == stored:
                return stored, row
        raise StoreError(f"the user was written by others {TRIES} times in between; try again")

    def _write(self, plans: dict[int, Plan], state: State) -> set[int]:
        """Write the new records; gives the asks that somebody else was faster than."""
        changed = [(row, place) for row, place in enumerate(plans) if plans[place].record is not None]
        if not changed:
            return set()
        if len(changed) < len(plans):
            rows = torch.tensor([row for row, _ in changed])
            state = {name: part[rows] for name, part in state.items()}
        states = self.stepper.layout.pack(state)
        based = [place for _, place in changed if plans[place].base is not None]
        bases = dict(zip(based, self.stepper.packed([b for p in based if (b := plans[p].base)]), strict=True))
        changes = []
        for (_, place), value in zip(changed, states, strict=True):
            plan, base = plans[place], bases.get(place)
            assert plan.record is not None
            plan.record.state = value
            whole = None if base is None else Base(self.stepper.fingerprint, base, plan.edge).pack()
            changes.append(Change(plan.key, plan.version, plan.record.pack(), whole))
        done = self.store.write(changes)
        return {place for (_, place), well in zip(changed, done, strict=True) if not well}


def _key(ask: Ask) -> str:
    """The user in the store, "" for an ask without state."""
    return "" if ask.user is None or ask.history is not None else str(ask.user)
