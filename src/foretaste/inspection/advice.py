"""What a log's numbers mean: findings in words, and what each model could use of it.

A model is judged by what its class declares (what it needs, what its row is, how it learns), so a new one is judged as
soon as it is registered. A few models have a sentence of their own, in `NOTES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from foretaste.errors import ConfigError
from foretaste.inspection.log import LogFacts
from foretaste.inspection.spread import duration
from foretaste.models import MODELS, model_class
from foretaste.models.contract import SequenceModel

MANY = 10_000
"""Events from which the drift from tenth to tenth is more than chance."""


@dataclass(frozen=True)
class Advice:
    """What one model could use."""

    model: str
    summary: str
    row: str
    """What one row is to it: session or user."""
    lacks: tuple[str, ...]
    """What it needs, as it comes, and the log does not have."""
    instead: str
    """A setting with which the log has all it needs; empty if there is none, or nothing is lacking."""
    says: str
    """What holds for it and not for every model of its row; empty if there is nothing."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def models(facts: LogFacts) -> list[Advice]:
    """What each registered model could use."""
    return [advice(name, model_class(name), facts) for name in MODELS]


def advice(name: str, kind: type[SequenceModel], facts: LogFacts) -> Advice:
    """What this model could use."""
    offers = frozenset(facts.offers)
    lacks = tuple(sorted(kind.needs_of(kind.Config()) - offers))
    instead = _instead(kind, offers) if lacks else ""
    says = NOTES[name](facts) if name in NOTES and (instead or not lacks) else ""
    return Advice(name, kind.summary, kind.scope, lacks, instead, says)


def findings(facts: LogFacts) -> list[str]:
    """What a person should know of this log before choosing a model or a question."""
    return list(_findings(facts))


def percent(share: float) -> str:
    """12 %, 1.2 %, 0.12 %."""
    return f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _instead(kind: type[SequenceModel], offers: frozenset[str]) -> str:
    """The first single setting that leaves nothing lacking."""
    for name, field in kind.Config.model_fields.items():
        kinds = get_origin(field.annotation), field.annotation
        choices = get_args(field.annotation) if kinds[0] is Literal else (True, False) if kinds[1] is bool else ()
        for choice in choices:
            if choice == field.default:
                continue
            try:
                config = kind.Config(**{name: choice})
            except (ConfigError, ValidationError):
                continue
            if kind.needs_of(config) <= offers:
                return f"{name}={str(choice).lower() if isinstance(choice, bool) else choice}"
    return ""


def rows(facts: LogFacts) -> dict[str, str]:
    """What the log is to the models whose row is a session, and to those whose row is a user."""
    return {"session": " ".join(_session_row(facts)), "user": " ".join(_user_row(facts))}


def _session_row(facts: LogFacts) -> Iterator[str]:
    if facts.row == "history":
        yield "The log has no sessions: a user's whole history is one."
    yield f"Such a model has something to go by in {percent(facts.questions)} of the events."
    if facts.lonely > 0.5:
        yield f"{percent(facts.lonely)} of the {facts.row}s have one event, and it sees nothing there."
    if facts.items_back.earlier > 0.05:
        yield (
            "It forgets the user's earlier sessions, where the items of "
            f"{percent(facts.items_back.earlier)} of the events come from."
        )


def _user_row(facts: LogFacts) -> Iterator[str]:
    past = facts.lengths.get("events of a user", facts.lengths[f"events of a {facts.row}"])
    visits = facts.lengths.get("sessions of a user")
    visited = "" if visits is None else f" in {visits.median:.0f} session{'s' * (visits.median >= 1.5)}"
    if "users" not in facts.offers:
        yield "The log has no users: a session is all that such a model has, and it carries nothing over."
        return
    yield f"The median user has {past.median:.0f} events{visited} to go by."
    if visits is not None and visits.median < 2:
        yield "Most users come once: such a model sees little more than a session."
    elif past.median < 5:
        yield "That is too little to know a taste by."


def _pop(facts: LogFacts) -> str:
    if facts.drift is None:
        return ""
    hit = sum(facts.drift.hit) / len(facts.drift.hit)
    return f"A slice's 20 most popular items are {percent(hit)} of the next slice's events: about its Recall@20."


def _s_pop(facts: LogFacts) -> str:
    if facts.items_back.inside == 0:
        return f"No {facts.row} has an item twice: it has nothing right to say."
    if facts.targets < 1:
        return (
            f"{percent(facts.items_back.inside)} of the events, asked for or not, have an item that their {facts.row} "
            "had before."
        )
    share = facts.items_back.inside / max(facts.questions, 1e-9)
    return f"{percent(share)} of the questions have an item of their {facts.row} as answer: it cannot get more right."


def _memory(facts: LogFacts) -> str:
    """Of models whose memory holds about twenty events."""
    beyond = facts.later.get("user, 20", facts.later.get(f"{facts.row}, 20", 0.0))
    if beyond < 0.1:
        return f"{percent(beyond)} of the events have more than 20 before them: its memory is hardly ever full."
    return f"{percent(beyond)} of the events have more than 20 before them: what its memory keeps will matter."


def _long(facts: LogFacts) -> str:
    """Of models for histories of hundreds of events."""
    beyond = facts.later.get("user, 50", facts.later.get(f"{facts.row}, 50", 0.0))
    if beyond < 0.1:
        return f"Made for long histories; {percent(beyond)} of the events have more than 50 before them."
    return f"Made for long histories, and {percent(beyond)} of the events have more than 50 before them."


def _sessions(facts: LogFacts) -> str:
    """Of models that set the last session against those before."""
    back = facts.items_back
    if not back.past:
        return "No user has two sessions: its long-term part has nothing to read."
    return f"{percent(back.past / max(facts.sessions, 1))} of the sessions have one before them for its long-term part."


def _dwell(facts: LogFacts) -> str:
    if facts.dwell is None or facts.same_time is None:
        return ""
    if facts.same_time > 0.5:
        return f"{percent(facts.same_time)} of the steps take less than a second: dwell says little here."
    seconds = facts.times["to the next event"].median
    return f"Half of the events last {duration(seconds)} or more: its {facts.dwell.bins} time bins can tell them apart."


def _last_item(facts: LogFacts) -> str:
    """Of models that read the last event alone."""
    if facts.immediate > 0.1:
        return f"{percent(facts.immediate)} of the steps stay on the item: much of what it learns is that."
    return ""


NOTES: dict[str, Callable[[LogFacts], str]] = {
    "pop": _pop,
    "s-pop": _s_pop,
    "markov": _last_item,
    "sr": _last_item,
    "fmc": _last_item,
    "fpmc": _last_item,
    "rum-item": _memory,
    "rum-feature": _memory,
    "lsamn": _sessions,
    "shan": _sessions,
    "sdm": _sessions,
    "dman": _long,
    "hpmn": _long,
    "asars": _dwell,
}
"""What else is to be said of a model."""


def _findings(facts: LogFacts) -> Iterator[str]:
    back, row = facts.items_back, facts.row
    if facts.lonely > 0.2:
        yield f"{percent(facts.lonely)} of the {row}s have one event: nothing can be asked inside them."
    if back.inside > 0.05:
        yield (
            f"{percent(back.inside)} of the events repeat an item of their {row}. Read every number with its share of "
            "repeats; a model may do nothing but remember (s-pop is the one to beat)."
        )
    if facts.immediate > 0.05:
        yield (
            f"{percent(facts.immediate)} of the steps stay on the same item. If that is a page that was loaded again, "
            'read the log with repeats="collapse".'
        )
    if back.earlier > 0.02:
        beaten = " What a user has had most often (s-pop with scope=user) is the one to beat." * (back.earlier > 0.2)
        yield (
            f"{percent(back.earlier)} of the events return to an item of the user's earlier sessions: memory beyond "
            f"the session pays.{beaten}"
        )
    visits = facts.lengths.get("sessions of a user")
    if visits is not None:
        alone = visits.bars[0].count / visits.of
        if alone > 0.5:
            yield f"{percent(alone)} of the users have one session: what is learnt of a user serves few of them again."
    if facts.same_time is not None and facts.same_time > 0.05:
        then = f"a {row} is a basket more than a sequence" if facts.same_time > 0.5 else "see that it means something"
        yield f"{percent(facts.same_time)} of the steps take less than a second (or none): {then}."
    if facts.cuts:
        sizes = ", ".join(f"{n:,} with --gap {name}" for name, n in facts.cuts.items())
        yield f"The log has times and no sessions. A pause can make them: {sizes}."
    if facts.drift is not None and facts.events >= MANY:
        kept = sum(facts.drift.kept) / len(facts.drift.kept)
        if kept < 0.5:
            yield (
                f"The log moves fast: of a tenth's {facts.drift.top} most popular items, {percent(kept)} are among the "
                "next tenth's. Train on what is recent, and often."
            )
    if facts.unknown is not None and facts.unknown.share > 0.02:
        yield (
            f"{percent(facts.unknown.share)} of the test ({facts.unknown.how}) are items that training has never "
            "seen: no model here can name them, and they count as misses."
        )
    if facts.popularity.top_1 > 0.3 and facts.items >= 100:
        yield (
            f"The most popular 1 % of the items have {percent(facts.popularity.top_1)} of the events: pop is hard to "
            "beat, and recall says little of the rest. Look at the breakdown by popularity."
        )
    if facts.others_future is not None and facts.others_future > 0.2:
        whose = "user" if "users" in facts.offers else row
        yield (
            f"Asking each {whose}'s last event lets a model learn from others' future: "
            f"{percent(facts.others_future)} of the other events are later than the first question."
        )
