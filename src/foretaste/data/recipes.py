"""What a data recipe says: files, columns, steps, split, and the counts that come out. A frozen object of settings.

In TOML every section below is a table of its own name: [read], [sessions], [filter], [split], ... and [[files]].
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from foretaste.config import Config, OneOrMore
from foretaste.data.counted import Counts, Published
from foretaste.data.gather import PART, File, Layout, Lines
from foretaste.data.preparing import Candidates, Cold
from foretaste.data.sessions import Filters
from foretaste.data.splits import RecentPrefixes, Split, split_of

AnySplit = Annotated[
    Split,
    BeforeValidator(lambda value: value if isinstance(value, Split) else split_of(value)),
    PlainSerializer(lambda split: split.as_dict()),
]


MISSING = "missing"
"""In `Read.drop`: a missing value, which TOML cannot write."""


class Read(Config):
    """The columns of the log, as in `EventLog.read`, and how its lines are cut."""

    item: str
    user: str | None = None
    session: str | None = None
    time: str | None = None
    time_plus_ms: str | None = None
    """A column of milliseconds that is added to the time."""
    order: str | None = None
    session_order: str | None = None
    split: str | None = None
    action: str | None = None
    inputs: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    drop: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Column: condition, as in `EventLog.read`; the word "missing" for a missing value."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our name: the source's."""
    item_columns: dict[str, str] = Field(default_factory=dict)
    """Our name: the source's."""
    repeats: Literal["keep", "collapse"] = "keep"
    duplicates: Literal["keep", "drop"] = "keep"
    names: tuple[str, ...] | None = None
    """Of the columns, where the file has no header."""
    delimiter: str | None = None
    encoding: str = "utf-8"
    sorted: bool = True
    """False leaves the events of a session in the order of the file, and gives all of them the session's last time."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.time_plus_ms and not self.time:
            raise ValueError("time_plus_ms is added to the time, and time is not named")
        if not self.sorted and not (self.time and self.session):
            raise ValueError("sorted = false is about the events of a session, so name time and session")
        return self

    def arguments(self) -> dict[str, Any]:
        """As `EventLog.read` takes them."""
        ours = {"time_plus_ms", "sorted"}
        given = {name: value for name, value in self if name not in ours and value is not None}
        given["drop"] = {column: _condition(words) for column, words in self.drop.items()}
        if self.time_plus_ms:
            given["columns"] = {**self.columns, "time_plus_ms": self.time_plus_ms}
        return given


def _condition(words: str | tuple[str, ...]) -> object:
    """What `EventLog.read` takes for these."""
    if isinstance(words, str):
        return None if words == MISSING else words
    return [_condition(word) for word in words]


class Items(Config):
    """A table of what is known of the items; a file that is not there is done without."""

    file: OneOrMore
    """Its usual name, beside the log, or several of which the first that is there is taken."""
    item: str = "item_id"
    columns: dict[str, str]
    """Our name: the source's. Titles are called `title`."""
    names: tuple[str, ...] | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"


class Sessions(Config):
    """How histories are cut into sessions, and which columns of times are added to them."""

    gap: str | float | None = None
    """A new session after a pause longer than this: "30m", "1h", or seconds."""
    per: Literal["day"] | None = None
    """One session a user and calendar day."""
    events: int | None = Field(default=None, ge=1)
    """A new session after so many events of a user."""
    add: tuple[Literal["gap", "dwell"], ...] = ()
    """`gap`: seconds since the session's previous event. `dwell`: seconds until its next, which is not causal; the last
    event of each session goes."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [name for name in ("gap", "per", "events") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"{ways[0]} and {ways[1]} are two ways to cut sessions; name one")
        return self


class LeaveOut(Config):
    """Sessions that end in this span, `begin` <= end < `before`, are in no part; dates or times, UTC."""

    begin: str
    before: str

    @field_validator("begin", "before", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, datetime.date) else value

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        begin, before = self.span
        if begin >= before:
            raise ValueError(f"begin = {self.begin} is not earlier than before = {self.before}")
        return self

    @property
    def span(self) -> tuple[int, int]:
        """Both moments in milliseconds."""
        moments = [datetime.datetime.fromisoformat(value) for value in (self.begin, self.before)]
        moments = [one if one.tzinfo else one.replace(tzinfo=datetime.UTC) for one in moments]
        return round(moments[0].timestamp() * 1000), round(moments[1].timestamp() * 1000)


class Segments(Config):
    """Only the newest `count` segments of `length` events of each user, and the event after them."""

    length: int = Field(ge=1)
    count: int = Field(ge=1)


class DataRecipe(Config):
    """From the files of a data set to a prepared log."""

    name: str
    title: str
    """One line."""
    about: str = ""
    """What the paper did, and where this recipe had to choose."""
    origin: str = ""
    """Where the files are from, and how they were made of what is there."""
    terms: str = ""
    """Under which terms the data may be used, as far as known."""
    files: tuple[File, ...] = Field(min_length=1)
    continued: tuple[str, ...] = ()
    """See `Layout`."""
    lines: Lines | None = None
    """See `Layout`."""
    read: Read
    items: Items | None = None
    sessions: Sessions = Sessions()
    filter: Filters | None = None
    """Counted over the whole log."""
    leave_out: LeaveOut | None = None
    segments: Segments | None = None
    split: AnySplit | None = None
    """None: all is training (files that hold one part only)."""
    training_filter: Filters | None = None
    """Counted over the training part alone."""
    prefixes: RecentPrefixes | None = None
    """Only the newest share of the training prefixes."""
    validation: AnySplit | None = None
    candidates: Candidates = "train"
    cold: Cold = "miss"
    counts: Counts = Counts()
    """Ours, of the files that are meant."""
    published: Published | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        parts = [bool(file.part) for file in self.files]
        if any(parts) != all(parts):
            raise ValueError("some of the files name their part and some do not")
        if any(parts) and self.read.split != PART:
            raise ValueError(f"the files name their parts, so say [read] split = '{PART}'")
        if self.leave_out and not self.read.time:
            raise ValueError("leave_out is about times, and [read] names no time")
        if self.validation and not self.split:
            raise ValueError("there is a validation part and no split")
        return self

    @property
    def layout(self) -> Layout:
        """How its files become one table."""
        read = self.read
        return Layout(
            files=self.files, continued=self.continued, lines=self.lines,
            names=read.names, delimiter=read.delimiter, encoding=read.encoding,
        )  # fmt: skip
