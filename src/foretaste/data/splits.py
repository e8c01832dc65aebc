"""Splits: which events are for training, which for choosing, which for the final question.

Each is a frozen object of plain values, so it can stand in a TOML recipe: `{kind = "global-time", days = 7}`. Each says
what it leaks in one sentence. The validation part is made by an object of the same kinds, applied to the training part.

A session is never cut in two by a split that has a moment in it (`GlobalTime`, `SessionOrder`), unless it is asked to.
Within one user no training event ever follows a test event: from the first test event on, all is test. Only `Given`
takes the log at its word.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from foretaste.config import OneOrMore
from foretaste.data.sequences import TEST, TRAIN, VALIDATION
from foretaste.data.split import Parts, RecentPrefixes, Split, moment, share_of
from foretaste.data.timeline import Ints, Timeline
from foretaste.errors import ConfigError, DataError, nearest

__all__ = [
    "Given",
    "GlobalTime",
    "LastItem",
    "LastSession",
    "LastTwo",
    "Ratio",
    "RecentPrefixes",
    "SessionOrder",
    "Split",
    "WholeUsers",
    "split_of",
]  # fmt: skip

DAY = 86_400_000  # milliseconds
Share = Annotated[float, Field(gt=0, lt=1)]


class GlobalTime(Split):
    """One moment for everyone: what comes after it is test.

    Give one of `days` (test is what is later than the last event minus so many times 24 hours), `at` (a moment: test is
    what is not earlier) or `fraction` (the moment from which on this share of all events lies).
    """

    kind = "global-time"
    needs = frozenset({"times"})

    days: float | None = Field(default=None, gt=0)
    """Length of the test period in days of 24 hours, counted back from the log's last event."""
    at: str | None = None
    """The first moment of the test period, as ISO text; UTC where it names no zone."""
    fraction: Share | None = None
    """Share of the events, by their own time, from which the moment is taken."""
    by: Literal["start", "end", "event"] = "start"
    """A session belongs to the part in which it starts, or ends (as for YOOCHOOSE); or each event goes by its own
    time, and a session may be cut in two. In a log without sessions it is always each event."""

    @field_validator("at", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, datetime.date) else value

    @model_validator(mode="after")
    def _onemoment(self) -> Self:
        if sum(value is not None for value in (self.days, self.at, self.fraction)) != 1:
            raise ValueError("give exactly one of days, at and fraction")
        if self.at is not None:
            moment(self.at)
        return self

    @property
    def leaks(self) -> str:
        """See `Split.leaks`."""
        if self.by == "start":
            return (
                "nothing but the ends of sessions: one that starts before the cut stays in training whole, also with "
                "what it has after the cut (in a log without sessions nothing)"
            )
        if self.by == "end":
            return "next to nothing: no training event is later than the cut, but a test session may begin before it"
        return "nothing: no training event is later than the cut"

    def cut(self, times: Ints) -> int:
        """The last moment of training, in milliseconds."""
        if self.at is not None:
            return moment(self.at) - 1
        if self.days is not None:
            return int(times.max()) - round(self.days * DAY)
        assert self.fraction is not None
        place = len(times) - share_of(self.fraction, len(times))
        return int(np.partition(times, place)[place]) - 1

    def divide(self, line: Timeline) -> Parts:
        """See `Split.divide`."""
        times = line.times
        if times is None:
            raise self.lacks("times")
        late = times > self.cut(times)
        if line.has_sessions and self.by != "event":
            late = late[line.sessions[:-1] if self.by == "start" else line.sessions[1:] - 1][line.session_of]
        return np.where(late, TEST, TRAIN).astype(np.uint8)


class SessionOrder(Split):
    """The newest sessions of all users are test, where the log knows the order of sessions but not their times.

    Newest by start time if there is one, else by `session_order`, else by their place in the log.
    """

    kind = "session-order"

    fraction: Share | None = None
    """Share of all sessions."""
    count: int | None = Field(default=None, ge=1)
    """Number of sessions."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give exactly one of fraction and count")
        return self

    @property
    def leaks(self) -> str:
        """See `Split.leaks`."""
        return (
            "nothing but the ends of sessions, if their order is that in which they begin for all users together; if "
            "it only counts the sessions of each user, other users' future"
        )

    def divide(self, line: Timeline) -> Parts:
        """See `Split.divide`."""
        order = line.order()
        count = share_of(self.fraction, len(order)) if self.count is None else min(self.count, len(order))
        part = np.full(len(order), TRAIN, np.uint8)
        part[order[len(order) - count :]] = TEST
        return part[line.session_of]


class WholeUsers(Split):
    """All events of some users, drawn at random; a session without a user counts as one."""

    kind = "whole-users"

    fraction: Share = 0.1
    """Share of the users."""
    seed: int = Field(default=0, ge=0)
    """Of the draw."""

    @property
    def leaks(self) -> str:
        """See `Split.leaks`."""
        return "other users' future: training users' events may be later than those of the users held out"

    def divide(self, line: Timeline) -> Parts:
        """See `Split.divide`."""
        users = len(line.users) - 1
        drawn = np.random.default_rng(self.seed).choice(users, share_of(self.fraction, users), replace=False)
        part = np.full(users, TRAIN, np.uint8)
        part[drawn] = TEST
        return part[line.user_of]


class LastItem(Split):
    """Leave-one-out: the last event of every user who has two or more is test."""

    kind = "last-item"

    @property
    def leaks(self) -> str:
        """See `Split.leaks`."""
        return "other users' future: one user's test event may be earlier than another user's training events"

    def divide(self, line: Timeline) -> Parts:
        """See `Split.divide`."""
        part = np.full(len(line), TRAIN, np.uint8)
        part[line.users[1:][np.diff(line.users) >= 2] - 1] = TEST
        return part


class LastTwo(LastItem):
    """The last event of every user who has three or more is test, the one before it validation."""

    kind = "last-two"

    def divide(self, line: Timeline) -> Parts:
        """See `Split.divide`."""
        part = np.full(len(line), TRAIN, np.uint8)
        ends = line.users[1:][np.diff(line.users) >= 3]
        part[ends - 1], part[ends - 2] = TEST, VALIDATION
        return part


class LastSession(Split):
    """The last session of every user who has two or more is test."""

    kind = "last-session"
    needs = frozenset({"users", "sessions"})

    @property
    def leaks(self) -> str:
        """See `Split.leaks`."""
        return "other users' future: one user's last session may be earlier than another user's training sessions"

    def divide(self, line: Timeline) -> Parts:
        """See `Split.divide`."""
        user = line.user_of_session
        last = np.append(user[1:] != user[:-1], True)
        several = np.insert(user[1:] == user[:-1], 0, False)
        return np.where((last & several)[line.session_of], TEST, TRAIN).astype(np.uint8)


class Ratio(Split):
    """The first share of every user's events is training, the rest test: floor(train * n) events, and one more."""

    kind = "ratio"

    train: Share = 0.7
    """Share of each user's events."""
    plus_one: bool = True
    """One training event more than the share rounded down, as in RUM's released files: of 10 events, 8 and 2."""

    @property
    def leaks(self) -> str:
        """See `Split.leaks`."""
        return "other users' future: one user's test events may be earlier than another user's training events"

    def divide(self, line: Timeline) -> Parts:
        """See `Split.divide`."""
        size = np.diff(line.users)
        kept = np.floor(self.train * size + 1e-9).astype(np.int64) + self.plus_one
        place = np.arange(len(line)) - line.users[:-1][line.user_of]
        return np.where(place >= kept[line.user_of], TEST, TRAIN).astype(np.uint8)


class Given(Split):
    """The log's own split (`split=` when reading): which values of that column make which part."""

    kind = "given"
    needs = frozenset({"split"})
    forward = False

    train: OneOrMore = ("train",)
    """Values of the training part."""
    validation: OneOrMore = ("validation", "valid", "val", "dev")
    """Values of the validation part."""
    test: OneOrMore = ("test",)
    """Values of the test part."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        values = [*self.train, *self.validation, *self.test]
        if twice := {value for value in values if values.count(value) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} stands in two parts")
        return self

    @property
    def leaks(self) -> str:
        """See `Split.leaks`."""
        return "unknown: whoever made the log's own split decided it"

    def divide(self, line: Timeline) -> Parts:
        """See `Split.divide`."""
        given = line.given
        if given is None:
            raise self.lacks("split")
        meaning = {name: part for part, names in enumerate((self.train, self.validation, self.test)) for name in names}
        if unknown := [name for name in line.given_names if name not in meaning]:
            raise DataError(
                f"the log's split column has the value {unknown[0]!r}, which is neither train {self.train}, validation "
                f"{self.validation} nor test {self.test}; name it, as in Given(test={unknown[0]!r}), or drop these rows"
            )
        if missing := int((given == 0).sum()):
            raise DataError(f"the log's split column is empty in {missing} rows; fill it, or drop these rows")
        meant: Parts = np.array([TRAIN, *(meaning[name] for name in line.given_names)], np.uint8)[given]
        return meant


KINDS: dict[str, type[Split]] = {
    split.kind: split for split in (GlobalTime, SessionOrder, WholeUsers, LastItem, LastTwo, LastSession, Ratio, Given)
}


def split_of(values: Mapping[str, Any], *, beside: tuple[str, ...] = ()) -> Split:
    """The split that a recipe names: `{kind = "global-time", days = 7}`. `beside`: other words the caller takes."""
    rest = dict(values)
    kind = str(rest.pop("kind", "")).replace("_", "-")
    if kind not in KINDS:
        raise ConfigError(f"split: kind = {kind!r} is not known; {nearest(kind, [*KINDS, *beside])}")
    return KINDS[kind].of(rest)
