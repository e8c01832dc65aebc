"""An engine that answers from a list at once, for tests of what stands around it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from foretaste.data.vocabulary import Vocabulary
from foretaste.models.choosing import Recommendations
from foretaste.serving.app import make_app
from foretaste.serving.asks import Ask, Kept, Told
from foretaste.serving.gate import Gate
from foretaste.serving.keys import Keys
from foretaste.serving.limits import ServiceConfig
from foretaste.serving.store import MemoryStore

T = TypeVar("T")


@dataclass
class FakeTrained:
    """What the service reads of a recommender."""

    items: Vocabulary
    users: Vocabulary | None = None
    name: str = "fake"


class FakeEngine:
    """The first items of the vocabulary for everybody; keeps each user's events; `wrong` is raised by every ask."""

    def __init__(self, items: Vocabulary) -> None:
        self.trained = FakeTrained(items)
        self.kept: dict[str, list[Any]] = {}
        self.asked: list[Ask] = []
        self.wrong: Exception | None = None
        self.closed = False
        self.counts = Counter[str]()
        self.store = MemoryStore()

    def ask(self, ask: Ask) -> Told:
        self.asked.append(ask)
        if self.wrong is not None:
            raise self.wrong
        outcomes = []
        for event in ask.events:
            mine = self.kept.setdefault(str(ask.user), [])
            outcomes.append("duplicate" if event.id and any(one.id == event.id for one in mine) else "applied")
            if outcomes[-1] == "applied":
                mine.append(event)
        self.counts.update(outcomes)
        ids = self.trained.items.ids[: ask.k]
        unknown = tuple(e.item for e in (*ask.events, *(ask.history or ())) if e.item not in self.trained.items)
        scores = [1.0 / (1 + place) for place in range(len(ids))]
        return Told(tuple(outcomes), unknown, Recommendations(ids, scores, []) if ask.k else None)  # type: ignore[arg-type]

    def user(self, user: Any) -> Kept | None:
        mine = self.kept.get(str(user))
        return None if mine is None else Kept(user, tuple(mine), len(mine), 0, 0, 10, {"h": [4]})

    def forget(self, user: Any) -> bool:
        return self.kept.pop(str(user), None) is not None

    def similar_items(self, item: Any, k: int) -> Recommendations:
        ids = [raw for raw in self.trained.items.ids if raw != item][:k]
        return Recommendations(ids, [0.5] * len(ids), [])

    def explain(self, user: Any = None, history: Any = None, item: Any = None) -> dict[str, Any]:
        events = self.kept[str(user)] if history is None else history
        return {"attention": [(event.item, 1 / len(events)) for event in events], "gate": [0.5, float("nan")]}

    def close(self) -> None:
        self.closed = True


class FakeBatcher:
    """Calls at once, in the loop; `slow` seconds later if so told."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.slow = 0.0
        self.counts = Counter[str]()

    async def ask(self, ask: Ask) -> Told:
        if self.slow:
            await asyncio.sleep(self.slow)
        self.counts["batches"] += 1
        return self.engine.ask(ask)

    async def call(self, work: Callable[[], T]) -> T:
        return work()

    def __len__(self) -> int:
        return 0

    def close(self) -> None:
        self.engine.asked.append(Ask("closed"))


def fake_app(
    items: Vocabulary, config: ServiceConfig | None = None, keys: Keys | None = None
) -> tuple[Gate, FakeEngine, FakeBatcher]:
    """The service over such an engine."""
    engine = FakeEngine(items)
    batcher = FakeBatcher(engine)
    app = make_app(engine, batcher, config or ServiceConfig(), keys or Keys())  # type: ignore[arg-type]
    return app, engine, batcher
