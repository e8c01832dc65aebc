"""Options that several commands of the command line share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token

from foretaste import words
from foretaste.errors import ConfigError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog
    from foretaste.data.vocabulary import Vocabulary

Flag = Annotated[bool, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json", help="Print one JSON object instead of text.", show_default=False)]
Count = Annotated[int, Parameter(name=["-k", "--k"])]
Threads = Annotated[
    int, Parameter(help="Threads for PyTorch. More than one helps only from some ten thousand items on.")
]
AnyThreads = Annotated[int | None, Parameter(help="Threads for PyTorch. Default: as many as there are cores.")]
Device = Annotated[str, Parameter(help="cpu, cuda, cuda:1, ...")]
Track = Annotated[
    str | None,
    Parameter(
        help="Keep metrics and files in mlflow:FOLDER, mlflow:URI or tensorboard:FOLDER too.", show_default=False
    ),
]


def whole_numbers(_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """`5 10 20`, `5,10,20`, or both."""
    parts = [part for token in tokens for part in token.value.replace(",", " ").split()]
    wrong = next((part for part in parts if not part.isdecimal()), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is not a whole number; give list lengths such as 10 20, or 10,20")
    return tuple(map(int, parts))


Cutoffs = Annotated[tuple[int, ...], Parameter(consume_multiple=True, n_tokens=-1, converter=whole_numbers)]
Settings = Annotated[tuple[str, ...], Parameter(name="--set", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class Basics:
    """Which column of a log is what, as far as every reader of events must know, and how a CSV is written."""

    item: str | None = None
    """Column of item ids."""
    user: str | None = None
    """Column of user ids; a log has this one, --session, or both."""
    session: str | None = None
    """Column of session ids."""
    time: str | None = None
    """Column of times: numbers (s, ms, us or ns), dates, or ISO text such as 2024-05-01 10:00."""
    order: str | None = None
    """Column of positions, for a log without times or to break their ties."""
    names: str | None = None
    """Names of the columns of a CSV without a header, as session_id,item_id,timestamp."""
    delimiter: str | None = None
    """What stands between the cells of a CSV, where it is not found: a character or two, or the word tab."""
    encoding: str = "utf-8"
    """Of a CSV that is not UTF-8, such as latin-1."""

    def read(self, source: str, **options: Any) -> EventLog:
        """The log of one source."""
        from foretaste.data.events import EventLog

        if self.item is None:
            known = Path(source).exists() or "*" in source
            missing = (
                "name its column of item ids with --item, and the others (see --help)" if known else "no such file"
            )
            raise ConfigError(f"{source}: {missing}")
        given = {name: getattr(self, name) for name in ("item", "user", "session", "time", "order", "encoding")}
        names = None if self.names is None else self.names.split(",")
        delimiter = "\t" if self.delimiter == "tab" else self.delimiter
        return EventLog.read(source, **given, names=names, delimiter=delimiter, **options)


NO_BASICS = Basics()


@Parameter(name="*")
@dataclass(frozen=True)
class Columns(Basics):
    """Which column of a log is what."""

    session_order: str | None = None
    """Column that orders the sessions of a log without times."""
    split_column: str | None = None
    """Column of the log's own split, for --split given."""
    title: str | None = None
    """Column of item titles, shown with recommendations; a column of the log, or of --items where that is given."""
    category: str | None = None
    """Column of categories, of the event or its item; `foretaste inspect` counts repeats of them too."""
    items: str | None = None
    """A table of the items beside the log, with a column of ids called as in --item. Of its other columns --title is
    kept, or without that all."""

    def read(self, source: str, **options: Any) -> EventLog:
        """The log of one source, with what is known of its items."""
        columns = {} if self.title is None else {"title": self.title}
        log = super().read(
            source,
            session_order=self.session_order,
            split=self.split_column,
            item_columns=columns if self.items is None else {},
            columns={} if self.category is None else {"category": self.category},
            **options,
        )
        if self.items is None:
            return log
        assert self.item is not None
        return log.with_items(self.items, item=self.item, encoding=self.encoding, **columns)


NO_COLUMNS = Columns()


@Parameter(name="*")
@dataclass(frozen=True)
class Steps:
    """What is done to a log before it is split."""

    duplicates: Literal["keep", "drop"] = "keep"
    """drop leaves out exact copies of earlier rows."""
    repeats: Literal["keep", "collapse"] = "keep"
    """collapse keeps the first of immediate repeats of an item."""
    gap: str | None = None
    """Begin a new session after a pause longer than this, with its unit: 90s, 30m, 1h or 2d."""
    per_day: Flag = False
    """One session a user and calendar day."""
    item_support: int = 0
    """Drop items with fewer events."""
    session_length: int = 0
    """Drop sessions with fewer events."""
    user_events: int = 0
    """Drop users with fewer events."""

    def read(self, columns: Columns, source: str, *, filtered: bool = True, **options: Any) -> EventLog:
        """The log of one source after these steps; where not `filtered`, what is rare is left to its training part."""
        if self.gap is not None:
            words.with_unit("--gap", self.gap)
        log = columns.read(source, duplicates=self.duplicates, repeats=self.repeats, **options)
        if self.gap is not None or self.per_day:
            log = log.sessions(gap=self.gap, per="day" if self.per_day else None)
        least = self.least
        return log.filter(**least) if least and filtered else log

    @property
    def least(self) -> dict[str, int]:
        """What an item, a session, a user must have to be kept; nothing where nothing is asked."""
        names = ("item_support", "session_length", "user_events")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


NO_STEPS = Steps()


@Parameter(name="*")
@dataclass(frozen=True)
class Room:
    """What reading a log may take of the machine."""

    memory_limit: str = "4GB"
    """Memory for reading and ordering the log; what does not fit goes to temporary files, where TMPDIR says."""
    threads: int | None = None
    """For reading and ordering the log. Default: as many as there are cores."""


USUAL_ROOM = Room()


@Parameter(name="*")
@dataclass(frozen=True)
class Beside:
    """What stands beside a history, for the models that need it."""

    user: str | None = None
    """Whose history it is."""
    times: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = ()
    """Seconds, one an event."""
    sessions: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
    """The session of each event, any words: where the word changes, a session begins."""

    def given(self, history: Sequence[str], users: Vocabulary | None) -> dict[str, Any]:
        """As `Recommender.recommend` takes them, beside this history."""
        for name, beside in (("times", self.times), ("sessions", self.sessions)):
            if beside and len(beside) != len(history):
                raise ConfigError(
                    f"--{name}: {len(beside)} given, and the history has {len(history)} items; one for each"
                )
        user = None if self.user is None else words.ids([self.user], users or ())[0]
        return {"user": user, "times": self.times or None, "sessions": self.sessions or None}


ALONE = Beside()
