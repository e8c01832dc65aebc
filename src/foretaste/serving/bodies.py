"""What is sent to the service and what it answers, as OpenAPI describes them.

Only what comes in is checked against these; what goes out is made here and needs no second look.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from foretaste.serving.asks import Id
from foretaste.serving.ids import LONGEST, WHOLE, checked
from foretaste.serving.problems import AN_EVENT, AN_ID

FARTHEST = 1e11
"""Seconds from 1970, the year 5138: a larger number is a time in milliseconds."""

_TEXT = {"type": "string", "minLength": 1, "maxLength": LONGEST}
_WHOLE = {"type": "integer", "minimum": -WHOLE, "maximum": WHOLE - 1}

Given = Annotated[Id, BeforeValidator(checked), WithJsonSchema({"anyOf": [_TEXT, _WHOLE]})]
"""An id: text or a whole number."""

FIRST = Field(fail_fast=True)
"""Of a list: its first bad element is told. To gather those of a hostile body would keep a worker busy."""


def moment(value: Any) -> float:
    """Seconds since 1970 of a number or an ISO 8601 text; a text without an offset is UTC."""
    if type(value) is str:
        try:
            read = datetime.fromisoformat(value)
            value = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise ValueError("expected seconds since 1970 or a text such as 2026-05-01T12:00:00Z") from None
    elif type(value) not in (int, float):
        raise ValueError("expected seconds since 1970 or a text such as 2026-05-01T12:00:00Z")
    if not 0 <= value < FARTHEST:
        raise ValueError("not a time in seconds since 1970; milliseconds are divided by 1000")
    return float(value)


Moment = Annotated[
    float,
    BeforeValidator(moment),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "exclusiveMaximum": FARTHEST},
                {"type": "string", "format": "date-time"},
            ]
        }
    ),
]
"""Seconds since 1970, or ISO 8601 text."""


class Body(BaseModel):
    """Base of what is sent: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Choice(Body):
    """Which items to recommend."""

    k: Annotated[int, Field(ge=1)] | None = None
    """How many items; left out: 20, or as many as are allowed."""
    candidates: Annotated[list[Given], FIRST] | None = None
    """The only items to choose from."""
    exclude: Annotated[list[Given], FIRST] = Field(default_factory=list)
    """Items that never appear."""
    leave_out_seen: bool = False
    """Leave out the items of the history; of a user, of the events kept (the newest 200, unless set otherwise)."""
    now: Moment | None = None
    """The moment of the question, for models that read the clock."""


class Happened(Body):
    """An event of a history that is sent along."""

    item: Given
    time: Moment | None = None
    session: Given | None = None


History = Annotated[
    list[
        Annotated[
            Annotated[Given, Tag(AN_ID)] | Annotated[Happened, Tag(AN_EVENT)],
            Discriminator(lambda one: AN_EVENT if isinstance(one, dict) else AN_ID),
        ]
    ],
    FIRST,
]
"""Ids or events, the oldest first."""


class OneEvent(Happened):
    """A user touched an item."""

    user: Given
    id: Annotated[str, Field(min_length=1, max_length=LONGEST)] | None = None
    """A name that no other event of this user has: an event sent twice is taken in once."""


class EventBody(OneEvent):
    """One event, and whether to answer with recommendations after it."""

    recommend: Choice | None = None
    """What the user wants after it."""


class EventsBody(Body):
    """Several events, each user's in the order given."""

    events: Annotated[list[OneEvent], Field(min_length=1, fail_fast=True)]
    recommend: Choice | None = None
    """What the user wants after them; all events must be of one user."""


class RecommendBody(Choice):
    """Recommendations for a user, or after a history that leaves no trace."""

    user: Given | None = None
    history: History | None = None
    """The oldest first: ids, or events."""


class ExplainBody(Body):
    """What the answer after a history rests on."""

    user: Given | None = None
    history: History
    item: Given | None = None
    """The item to explain, for models whose weights depend on it; left out: the one recommended first."""


class Shown(BaseModel):
    """An item in an answer."""

    item: str | int
    title: str | None = None


class Recommended(Shown):
    """A recommended item."""

    score: float
    """Only comparable with the others of the same list."""


class EventsAnswer(BaseModel):
    """What became of the events."""

    outcomes: list[Literal["applied", "late", "duplicate"]]
    """One an event, in the order sent."""
    unknown: list[str | int]
    """Items that the model does not know: kept, and skipped by it."""
    recommendations: list[Recommended] | None = None


class RecommendAnswer(BaseModel):
    """The best items, the best first."""

    recommendations: list[Recommended]
    unknown: list[str | int]


class KeptEvent(Shown):
    """An event as it is kept."""

    time: float | None
    session: str | int | None = None


class UserAnswer(BaseModel):
    """What the service holds of a user."""

    user: str | int
    events: list[KeptEvent]
    """The newest, the oldest first."""
    seen: int
    beyond: int
    remembered: int
    bytes: int
    state: dict[str, Any]


class Weighed(Shown):
    """An event of the history and its weight."""

    weight: float


class ExplainAnswer(BaseModel):
    """What an answer rests on; beside the attention, gates and memories under the model's own names."""

    attention: list[Weighed] | None = None
    parts: dict[str, Any]


class ItemsAnswer(BaseModel):
    """Items that were found."""

    items: list[Shown]


class SimilarAnswer(BaseModel):
    """The items nearest to one."""

    items: list[Recommended]


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request: str
    """The request's id, as in the log."""
    outcomes: list[str | None] | None = None
    """Of several events of which some were not taken in: what became of each, null for these."""
