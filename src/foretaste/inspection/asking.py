"""Which protocol fits a log, with which split, why, and what both leak.

The sentences on leaks are those of the protocols and splits themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from foretaste.evaluation.protocols import PROTOCOLS
from foretaste.inspection.advice import percent
from foretaste.inspection.log import LogFacts
from foretaste.words import parts_of

Verdict = Literal["take this", "fits", "to compare", "no"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
NEWEST = {"time": "global-time:fraction=0.1", "order of sessions": "session-order:fraction=0.1", "": ""}
"""The split at one point of the order that all events share."""
PER_USER = "ratio:train=0.7"

BASKET = 0.9
"""Share of steps that take less than a second from which a session is a basket."""
SEVERAL = 0.3
"""Share of the users with two sessions or more from which their past is worth asking."""


@dataclass(frozen=True)
class Asking:
    """What is to be said of one protocol."""

    protocol: str
    """As `--protocol` takes it."""
    verdict: Verdict
    split: str
    """As `--split` takes it; empty where the protocol does not fit."""
    why: str
    leaks: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Nature:
    """What decides which questions a log can be asked."""

    row: str
    users: bool
    several: float
    """Share of the users with two sessions or more."""
    basket: bool
    """The steps inside a session take less than a second."""
    newest: str
    """The split at one point in an order that all events share; empty where there is none."""
    questions: float

    @classmethod
    def of(cls, facts: LogFacts) -> Nature:
        """The nature of this log."""
        visits = facts.lengths.get("sessions of a user")
        return cls(
            facts.row,
            "users" in facts.offers,
            0.0 if visits is None else 1 - visits.bars[0].count / visits.of,
            facts.row == "session" and (facts.same_time or 0.0) >= BASKET,
            NEWEST[facts.clock] + (",by=event" if facts.clock == "time" and facts.sessions == 1 else ""),
            facts.questions,
        )

    @property
    def alone(self) -> bool:
        """Does nothing stand before any event, so that there is nothing to answer from?"""
        return not self.questions and not self.several

    @property
    def best(self) -> str:
        """The protocol to take; empty where none can ask anything."""
        if not self.questions and self.row == "session":
            return "product" if self.newest else "living" if self.several else ""
        if self.basket and self.several:
            return "last-session"
        if self.newest:
            return "product" if self.users and (self.row == "history" or self.several >= SEVERAL) else "per-step"
        return "living" if self.users else "per-step"


def askings(facts: LogFacts) -> list[Asking]:
    """Every protocol, the one to take first."""
    log = Nature.of(facts)
    found = []
    for name, judge in JUDGES.items():
        word = f"last-item:unit={'user' if log.users else 'session'}" if name == "last-item" else name
        verdict, split, why = judge(log)
        if log.alone and name in FROM_BEFORE and verdict != "no":
            verdict, why = "no", f"Every {'user' if log.users else log.row} has one event: nothing stands before any."
        verdict = "take this" if name == log.best else verdict
        leaks = ""
        if verdict != "no":
            chosen, _ = parts_of(split, "none", frozenset())
            assert chosen is not None
            leaks = f"{PROTOCOLS[name].leaks} The split leaks {chosen.leaks}."
        found.append(Asking(word, verdict, split if verdict != "no" else "", why, leaks))
    return sorted(found, key=lambda one: VERDICTS.index(one.verdict))


Judged = tuple[Verdict, str, str]
"""Verdict, split and reason."""


def _product(log: Nature) -> Judged:
    if not log.newest:
        return "no", "", "The log has no order that all its events share, so there is no one point in time to stop at."
    if not log.users:
        why = "There are no users to remember: it only adds the first event of each session, asked from nothing."
        return "to compare", log.newest, why
    why = "As a service is asked: one point in time for everyone, each later event in turn, from a memory that goes on."
    return "fits", log.newest, why


def _per_step(log: Nature) -> Judged:
    share = percent(log.questions)
    asked = f"Every event with another before it in its {log.row}, {share} of them, as session papers ask."
    if not log.questions:
        return "no", "", f"Every {log.row} has one event: nothing stands before any."
    if log.basket:
        return "to compare", log.newest or PER_USER, f"{asked} But the steps of a session have no order here."
    if not log.newest:
        return "to compare", PER_USER, f"{asked} The log has no order that all its events share."
    return "fits", log.newest, asked


def _last_item(log: Nature) -> Judged:
    unit = "user" if log.users else "session"
    why = f"One question a {unit}, as leave-one-out papers ask: for comparison with them, and with nothing else."
    return "to compare", "last-two" if log.users else log.newest or "last-two", why


def _last_session(log: Nature) -> Judged:
    if not log.several:
        return "no", "", "No user has two sessions."
    who = f"{percent(log.several)} of the users have two sessions or more"
    if log.basket:
        why = f"A session has no order inside, so it is asked for as a whole; {who}."
        return "fits", log.newest or "last-session", why
    return "fits" if log.several >= SEVERAL else "to compare", "last-session", f"All of the next visit at once; {who}."


def _frozen(log: Nature) -> Judged:
    if not log.users:
        return "no", "", "There are no users whose later events could be asked."
    return (
        "to compare",
        PER_USER,
        "All later events of a user at once, from a memory that stands still: as RUM was measured.",
    )


def _living(log: Nature) -> Judged:
    if not log.users:
        return "no", "", "There are no users whose memory could live on."
    if log.newest:
        return "to compare", PER_USER, "As product, but each user is cut at another time."
    return "fits", PER_USER, "Each later event of a user in turn, from a memory that goes on: the nearest to a service."


JUDGES: dict[str, Callable[[Nature], Judged]] = {
    "per-step": _per_step,
    "product": _product,
    "last-session": _last_session,
    "last-item": _last_item,
    "living": _living,
    "frozen": _frozen,
}
"""By protocol, in the order of a tie."""
FROM_BEFORE = ("last-item", "living", "frozen")
"""Protocols that ask only what has an event of the same user, or session, before it."""
