"""From an event log to flat arrays: divide, filter, number, and write down what came out.

The way of `prepared.prepare`, in its order: order the log, split, filter the training part, drop cold test events, keep
the newest prefixes, take the validation part out of the training part, number.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foretaste import __version__
from foretaste.data import summary
from foretaste.data.arrange import arrange
from foretaste.data.sequences import TEST, TRAIN, VALIDATION, Sequences
from foretaste.data.sessions import FUTURE_COLUMNS, Filters
from foretaste.data.splits import GlobalTime, RecentPrefixes, Split
from foretaste.data.timeline import Ints, Mask, Timeline, count
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, DataError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog

FORMAT, VERSION = "foretaste prepared log", 1

Candidates = Literal["train", "all"]
Cold = Literal["miss", "drop"]

logger = logging.getLogger("foretaste.data")


def lay_out(
    log: EventLog,
    split: Split | None,
    validation: Split | None,
    filters: Filters | None,
    recent: RecentPrefixes | None,
    candidates: Candidates,
    cold: Cold,
) -> tuple[Sequences, dict[str, Vocabulary], dict[str, Any]]:
    """The arrays, the vocabularies and the manifest (see `prepared.prepare`)."""
    for name, value, known in (("candidates", candidates, Candidates), ("cold", cold, Cold)):
        if value not in get_args(known):
            raise ConfigError(f"prepare: {name} = {value!r}; expected one of {', '.join(get_args(known))}")
    for what, chosen in (("split", split), ("validation", validation)):
        if not isinstance(chosen, Split | None):
            raise ConfigError(f"{what} = {chosen!r}: expected a split, such as splits.GlobalTime(days=7), or None")
        if chosen is not None:
            chosen.check(log.has)
            level = logging.INFO if chosen.leaks.startswith("nothing") else logging.WARNING
            logger.log(level, "%s by %s leaks %s", what, chosen, chosen.leaks)
    if filters is not None:
        filters.check(log.has)
    work = Work(log)
    try:
        if split is not None:
            work.divide(split)
        if filters is not None:
            work.filter(filters)
        if cold == "drop":
            work.drop_cold()
        if recent is not None:
            work.keep_recent(recent)
        if validation is not None:
            work.divide_training(validation)
        sequences, vocabularies = work.number(candidates)
    finally:
        work.tables.drop(log.db)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "foretaste": __version__,
        "counts": summary.count_parts(work.line, work.part),
        "items": len(vocabularies["items"]),
        "candidates": candidates,
        "cold": cold,
        "split": _described(split),
        "validation": _described(validation),
        "test_targets": summary.test_targets(work.line, work.part, work.trained()),
        "training_after_test": summary.training_after_test(work.line, work.part),
        "not_causal": sorted(FUTURE_COLUMNS & set(sequences.columns)),
        "has": sorted(log.has),
        "rules": log.rules,
        "arrays": [name for name in ("times", "target") if getattr(sequences, name) is not None],
        "columns": sorted(sequences.columns),
        "vocabularies": {name: len(known) for name, known in vocabularies.items()},
        "steps": [asdict(step) for step in work.steps],
        "sources": log.fingerprint,
    }
    return sequences, vocabularies, json.loads(json.dumps(manifest, default=str))


class Work:
    """A timeline, its parts and its report, as the steps change them."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.line, self.tables = arrange(log)
        self.part = np.full(len(self.line), TRAIN, np.uint8)
        self.steps = list(log.steps)

    def keep(self, mask: Mask) -> None:
        """Only these events go on."""
        self.line, self.part = self.line.select(mask), self.part[mask]

    def said(self, name: str, detail: str, mask: Mask | None = None) -> None:
        """A line of the report, with the counts of all events or of those where `mask`."""
        from foretaste.data.events import Step

        self.steps.append(Step(name, detail, *count(self.line, mask)))

    def trained(self) -> Mask:
        """[N + 1]: which items occur in training or validation."""
        n_items = int(self.line.items.max()) + 1
        return np.bincount(self.line.items[self.part != TEST], minlength=n_items) > 0

    def divide(self, split: Split) -> None:
        """Into training, test and perhaps validation."""
        self.part = _checked(self.line, split)

    def divide_training(self, validation: Split) -> None:
        """Take the validation part out of the training part."""
        if (self.part == VALIDATION).any():
            raise ConfigError(f"the split already makes a validation part; leave out validation = {validation}")
        train = self.part == TRAIN
        chosen = _checked(self.line.select(train), validation, "validation: ")
        self.part[train] = np.where(chosen == TRAIN, TRAIN, VALIDATION)

    def filter(self, filters: Filters) -> None:
        """What is too rare in the training part goes from it."""
        kept = np.ones(len(self.line), bool)
        for name, detail, kept in filters.apply(self.line, self.part != TEST):
            self.said(name, f"{detail}, counted over the training part", kept)
            if not kept[self.part != TEST].any():
                raise DataError(f"filter {name}: {detail}: nothing is left to train on; ask for less")
        self.keep(kept)

    def drop_cold(self) -> None:
        """Test events of unknown items go, and with them what is left of a row that is then too short to ask."""
        line, test = self.line, self.part == TEST
        lost = test & ~self.trained()[line.items]
        gone = line.per_user(lost)
        short = (gone > 0) & (np.diff(line.users) - gone < 2)
        self.keep(~lost & ~(test & short[line.user_of]))
        self.said("cold", "test events of items that training does not know are dropped")
        if not (self.part == TEST).any():
            raise DataError("training knows no item of the test part: nothing is left to ask for; keep cold items")

    def keep_recent(self, recent: RecentPrefixes) -> None:
        """Only the newest training prefixes go on."""
        self.keep(recent.keep(self.line, self.part))
        self.said("recent", f"the newest {recent.fraction:g} of the training prefixes, by {recent.by} of session")

    def number(self, candidates: Candidates) -> tuple[Sequences, dict[str, Vocabulary]]:
        """Number items, users and the values of text columns."""
        line, db, tables = self.line, self.log.db, self.tables
        known = self.part != TEST
        order, numbers = _numbered(line.items, known, unknown_too=candidates == "all")
        about = f"SELECT value FROM {tables.items} v"
        if self.log.items_table:
            about = f"SELECT v.value AS item, t.* EXCLUDE (item) FROM {tables.items} v "
            about += f"LEFT JOIN {self.log.items_table} t ON t.item = v.value"
        vocabularies = {"items": Vocabulary.from_query(db, f"{about} ORDER BY v.number", order - 1)}
        met = line.named & (line.per_user(known) > 0)
        if "users" in self.log.has:
            who = f'SELECT "user" FROM {tables.sessions} WHERE named GROUP BY "user" ORDER BY min(number)'
            vocabularies["users"] = Vocabulary.from_query(db, who, line.name[met])
        columns = dict(line.columns)
        for name in sorted(tables.values.keys() & columns.keys()):
            order, code = _numbered(columns[name], known)
            columns[name] = code[columns[name]]
            values = f"SELECT value FROM {tables.values[name]} ORDER BY number"
            vocabularies[f"values.{name}"] = Vocabulary.from_query(db, values, order - 1)
        sequences = Sequences(
            items=numbers[line.items],
            users=line.users,
            sessions=line.sessions,
            part=self.part,
            user_numbers=np.where(met, np.cumsum(met), 0).astype(np.int32),
            times=None if line.times is None else line.times // 1000,
            target=line.target,
            columns=columns,
        )
        return sequences, vocabularies


def _numbered(codes: NDArray[np.int32], known: Mask, *, unknown_too: bool = False) -> tuple[Ints, NDArray[np.int32]]:
    """The codes that get the numbers 1, 2, ..., and [N + 1] the number of each code.

    By falling count among the known events; ties by code, that is by first occurrence. Then the rest, if asked.
    """
    size = int(codes.max()) + 1
    counts = np.bincount(codes[known], minlength=size)
    found = (np.bincount(codes, minlength=size) if unknown_too else counts) > 0
    found[0] = False
    order = np.flatnonzero(found)
    order = order[np.argsort(-counts[order], kind="stable")]
    numbers = np.zeros(size, np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return order, numbers


def _checked(line: Timeline, split: Split, which: str = "") -> NDArray[np.uint8]:
    part, times = split.parts(line), line.times
    for number, purpose in ((TRAIN, "train on"), (TEST, "ask for")):
        if not (part == number).any():
            inside = isinstance(split, GlobalTime) and split.by != "event"
            more = ", or by=event, which also cuts inside a session" if inside else ""
            if times is not None and len(times) > 1 and times.min() == times.max():
                more = "; every event has the same time: is that the right column and unit?"
            raise DataError(
                f"{which}{split} leaves nothing to {purpose} of {len(part)} events; choose another split or size{more}"
            )
    return part


def _described(split: Split | None) -> dict[str, Any] | None:
    return None if split is None else {"text": str(split), "leaks": split.leaks, "recipe": split.as_dict()}
