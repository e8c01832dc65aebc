"""From what was sent to what is asked, and from what is told to what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import from_json, to_json

import foretaste
from foretaste.models.choosing import Recommendations
from foretaste.serving.asks import Ask, Event, Id, Kept, Outcome, Told
from foretaste.serving.bodies import (
    Body,
    Choice,
    EventBody,
    EventsBody,
    ExplainBody,
    Happened,
    OneEvent,
    RecommendBody,
)
from foretaste.serving.ids import Names, checked, sent
from foretaste.serving.limits import ServiceConfig
from foretaste.serving.metrics import Metrics
from foretaste.serving.problems import Refused, invalid, refused
from foretaste.serving.search import Search

if TYPE_CHECKING:
    from foretaste.serving.batcher import Batcher
    from foretaste.serving.engine import Engine

WAVE = 64
"""Users of one request who are asked at a time, so that a large request leaves room in the queue for others."""
USUAL = 20
"""Items in an answer where the request says no number."""

B = TypeVar("B", bound=Body)


class Service:
    """The answers of one worker process. Bytes of JSON come in and go out."""

    def __init__(self, engine: Engine, batcher: Batcher, config: ServiceConfig, metrics: Metrics) -> None:
        self.engine = engine
        self.batcher = batcher
        self.config = config
        self.metrics = metrics
        self.items = Names(engine.trained.items)
        self.users = Names(engine.trained.users)
        self.search = Search(engine.trained.items)

    async def events(self, raw: bytes) -> bytes:
        """Take in what users did; one user's may be answered with recommendations in the same breath."""
        values = _read(raw)
        if "events" in values:
            many = _checked(EventsBody, values)
            events, choice = many.events, many.recommend
        else:
            one = _checked(EventBody, values)
            events, choice = [one], one.recommend
        self._allow("events", len(events), self.config.events)
        places: dict[str, list[int]] = {}
        for place, event in enumerate(events):
            places.setdefault(str(event.user), []).append(place)
        if choice is not None and len(places) > 1:
            raise Refused(422, "recommend: the events are of several users; ask for one user at a time")
        asks = [
            Ask(
                user=self.users.meant(events[mine[0]].user),
                events=[self._event(events[place]) for place in mine],
                **self._chosen(choice),
            )
            for mine in places.values()
        ]
        try:
            told = await self._told(asks, list(places.values()), len(events))
        finally:
            self.follow()  # at once: a process that is killed before the next look would take the counts with it
        outcomes: list[Any] = [None] * len(events)
        for mine, one_told in zip(places.values(), told, strict=True):
            for place, outcome in zip(mine, one_told.outcomes, strict=True):
                outcomes[place] = outcome
        unknown = [sent(raw_id) for one_told in told for raw_id in one_told.unknown]
        answer = _json({"outcomes": outcomes, "unknown": unknown})
        return answer if choice is None else self._with(answer, "recommendations", told[0].recommendations)

    async def recommendations(self, raw: bytes) -> bytes:
        """The best items for a user, or after a history that leaves no trace."""
        body = _checked(RecommendBody, _read(raw))
        if body.user is None and body.history is None:
            raise Refused(422, "give a user, or a history (which may be empty)")
        user = None if body.user is None else self.users.meant(body.user)
        history = None if body.history is None else self._history(body.history)
        told = await self.batcher.ask(Ask(user=user, history=history, **self._chosen(body)))
        unknown = [sent(raw_id) for raw_id in told.unknown]
        return self._with(_json({"unknown": unknown}), "recommendations", told.recommendations)

    async def explained(self, raw: bytes) -> bytes:
        """What the answer after a history rests on."""
        body = _checked(ExplainBody, _read(raw))
        user = None if body.user is None else self.users.meant(body.user)
        return await self._explained(user=user, history=self._history(body.history), item=self._item(body.item))

    async def explained_user(self, user: str, item: str | None) -> bytes:
        """What the answer for a user rests on."""
        await self._kept(user)
        return await self._explained(user=self._user(user), item=self._item(item))

    async def user(self, user: str) -> bytes:
        """What is held of a user."""
        kept = await self._kept(user)
        events = [
            self.items.shown(self.items.meant(event.item), time=event.time, session=event.session)
            for event in kept.events
        ]
        facts = {name: getattr(kept, name) for name in ("seen", "beyond", "remembered", "bytes", "state")}
        return _json({"user": sent(kept.user), "events": events, **facts})

    async def forget(self, user: str) -> None:
        """Forget a user."""
        name = self._user(user)
        if not await self.batcher.call(lambda: self.engine.forget(name)):
            raise _no_user()

    async def similar(self, item: str, wanted: int | None) -> bytes:
        """The items nearest to one."""
        k = self._count(wanted)
        raw = self._item(item)
        return self._with(b"{}", "items", await self.batcher.call(lambda: self.engine.similar_items(raw, k)))

    def found(self, query: str, wanted: int | None) -> bytes:
        """Items by a piece of their id or title."""
        found = self.search.find(query, self._count(wanted))
        return _json({"items": [self.items.shown(raw) for raw in found]})

    def about(self) -> bytes:
        """What is served."""
        trained = self.engine.trained
        facts = {"service": "foretaste", "version": foretaste.__version__, "model": trained.name}
        return _json({**facts, "items": len(trained.items), "api": "/openapi.json"})

    def metered(self) -> bytes:
        """The metrics."""
        self.follow()
        return self.metrics.told()

    def follow(self) -> None:
        """Take over the counts of the engine and its batches into the metrics."""
        counts = self.engine.counts
        outcomes = {name: counts[name] for name in get_args(Outcome)}
        of_asks = ("conflicts", "again", "indexed", "exact", "checked", "found")
        work = {**self.batcher.counts, **{name: counts[name] for name in of_asks}}
        self.metrics.follow(outcomes, work, len(self.batcher))

    async def _told(self, asks: Sequence[Ask], places: Sequence[Sequence[int]], count: int) -> list[Told]:
        """The answers to all asks; if some got none, an error that says which events were taken in."""
        if len(asks) == 1:
            return [await self.batcher.ask(asks[0])]
        told: list[Told | BaseException] = []
        for first in range(0, len(asks), WAVE):
            wave = asks[first : first + WAVE]
            told += await asyncio.gather(*map(self.batcher.ask, wave), return_exceptions=True)
        wrong = next((one for one in told if isinstance(one, BaseException)), None)
        if wrong is None:
            return [one for one in told if isinstance(one, Told)]
        answer = refused(wrong, self.config.retry_after) if isinstance(wrong, Exception) else None
        if answer is None:
            raise wrong
        outcomes: list[str | None] = [None] * count
        for mine, one in zip(places, told, strict=True):
            for place, outcome in zip(mine, one.outcomes if isinstance(one, Told) else (), strict=False):
                outcomes[place] = outcome
        raise Refused(answer.status, answer.detail, answer.headers, outcomes=outcomes) from wrong

    async def _explained(self, **asked: Any) -> bytes:
        parts = dict(await self.batcher.call(lambda: self.engine.explain(**asked)))
        attention = parts.pop("attention", None)
        shown = None if attention is None else [self.items.shown(raw, weight=weight) for raw, weight in attention]
        return _json({"attention": shown, "parts": parts})

    async def _kept(self, user: str) -> Kept:
        name = self._user(user)
        kept = await self.batcher.call(lambda: self.engine.user(name))
        if kept is None:
            raise _no_user()
        return kept

    def _event(self, event: OneEvent | Happened) -> Event:
        name = event.id if isinstance(event, OneEvent) else None
        return Event(self.items.meant(event.item), event.time, event.session, name)

    def _history(self, history: Sequence[Id | Happened]) -> list[Event]:
        self._allow("history", len(history), self.config.history)
        return [self._event(one) if isinstance(one, Happened) else Event(self.items.meant(one)) for one in history]

    def _chosen(self, choice: Choice | None) -> dict[str, Any]:
        if choice is None:
            return {}
        self._allow("exclude", len(choice.exclude), self.config.candidates)
        candidates = choice.candidates
        if candidates is not None:
            self._allow("candidates", len(candidates), self.config.candidates)
            candidates = self.items.all_meant(candidates)
        return {
            "k": self._count(choice.k),
            "candidates": candidates,
            "exclude": self.items.all_meant(choice.exclude),
            "leave_out_seen": choice.leave_out_seen,
            "now": choice.now,
        }

    def _count(self, wanted: int | None) -> int:
        """How many items to answer with."""
        if wanted is None:
            return min(USUAL, self.config.k)
        self._allow("k", wanted, self.config.k)
        return wanted

    def _with(self, answer: bytes, name: str, found: Recommendations | None) -> bytes:
        """A JSON object with one more field, a list of recommended items."""
        comma = b"," if len(answer) > 2 else b""
        return b'%s%s"%s":%s}' % (answer[:-1], comma, name.encode(), self.items.listed(found or ()))

    def _item(self, given: Id | None) -> Any:
        """An item that must be known."""
        if given is None:
            return None
        if not self.items.knows(_an_id("item", given)):
            raise Refused(404, "this item is not known to the model; GET /items?q= searches those that are")
        return self.items.meant(given)

    def _user(self, given: str) -> Any:
        return self.users.meant(_an_id("user", given))

    @staticmethod
    def _allow(name: str, found: int, limit: int) -> None:
        if found > limit:
            raise Refused(422, f"{name}: {found:,}, at most {limit:,} in one request")


def _read(raw: bytes) -> dict[str, Any]:
    try:
        values = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise Refused(422, "the body: expected a JSON object")
    return values


def _checked(kind: type[B], values: dict[str, Any]) -> B:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise invalid(error, kind) from None


def _json(answer: Any) -> bytes:
    return to_json(answer, inf_nan_mode="null", fallback=str)


def _an_id(name: str, given: Id) -> Id:
    try:
        return checked(given)
    except ValueError as error:
        raise Refused(422, f"{name}: {error}") from None


def _no_user() -> Refused:
    return Refused(404, "nothing is held of this user")
