"""What a prepared log holds, in numbers and in words: the counts of each part, what is cold, what repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.data.sequences import PARTS, TEST, TRAIN
from foretaste.data.timeline import Ints, Mask, Timeline

OVER_ALL = "counted over the whole log"
"""What is said of a filter that also saw what becomes the test part."""


def count_parts(line: Timeline, part: NDArray[np.uint8]) -> dict[str, dict[str, int]]:
    """Events, users, sessions, items and prefixes of each part and of all.

    A prefix is an event that has another before it in its session: a question that a session model can be asked.
    """
    later = np.ones(len(line), bool)
    later[line.sessions[:-1]] = False
    counts = {}
    for number, name in [*enumerate(PARTS), (None, "all")]:
        here = np.ones(len(line), bool) if number is None else part == number
        counts[name] = {
            "events": int(here.sum()),
            "users": int((line.named & (line.per_user(here) > 0)).sum()),
            "sessions": int((line.per_session(here) > 0).sum()) if line.has_sessions else 0,
            "items": int((np.bincount(line.items[here], minlength=1)[1:] > 0).sum()),
            "prefixes": int((here & later).sum()),
        }
    return counts


def test_targets(line: Timeline, part: NDArray[np.uint8], trained: Mask) -> dict[str, Any]:
    """How many test events can be asked for, and how many of them are cold or repeat an item.

    Asked for are those that may be targets and have an event of the same user before them. `trained` [N + 1] says of
    each item whether it occurs in training or validation.
    """
    asked = part == TEST
    asked[line.users[:-1]] = False
    if line.target is not None:
        asked &= line.target
    known = {"user": _repeats(line.users, line.user_of, line.items, asked)}
    if len(line.sessions) != len(line.users):
        known["session"] = _repeats(line.sessions, line.session_of, line.items, asked)
    return {
        "asked": int(asked.sum()),
        "cold": int((asked & ~trained[line.items]).sum()),
        "repeats": {name: int(repeated.sum()) for name, repeated in known.items()},
    }


def _repeats(offsets: Ints, row_of: NDArray[np.int32], items: NDArray[np.int32], asked: Mask) -> Mask:
    """Which of the asked events have an item that occurs earlier in their row."""
    repeated = np.zeros(len(items), bool)
    if asked.any():
        wanted = np.add.reduceat(asked, offsets[:-1], dtype=np.int64) > 0
        place = np.flatnonzero(wanted[row_of])
        _, first = np.unique(row_of[place].astype(np.int64) << 32 | items[place], return_index=True)
        again = np.ones(len(place), bool)
        again[first] = False
        repeated[place] = again & asked[place]
    return repeated


def training_after_test(line: Timeline, part: NDArray[np.uint8]) -> int:
    """How many training events come after a test event of the same user: only a given split has any."""
    tests = np.cumsum(part == TEST)
    before = np.concatenate([[0], tests])[line.users[:-1]]
    return int(((part == TRAIN) & (tests > before[line.user_of])).sum())


def report(manifest: Mapping[str, Any]) -> str:
    """The whole story of a prepared log, for a person to read."""
    counts, test = manifest["counts"], manifest["test_targets"]
    names = ("events", "users", "sessions", "items")
    steps, previous = [], None
    for step in manifest["steps"]:
        removed = "" if previous is None else f"{step['events'] - previous:+,}" if step["events"] != previous else "0"
        steps.append(
            [step["name"], *(f"{step[name]:,}" if step[name] else "-" for name in names), removed, step["detail"]]
        )
        previous = step["events"]
    parts = [
        [name, *(f"{of[kind]:,}" if of[kind] else "-" for kind in (*names, "prefixes"))]
        for name, of in counts.items()
        if of["events"]
    ]
    lines = [
        *_table(["step", *names, "change", ""], steps),
        "",
        *_table(["part", *names, "prefixes"], parts),
        "",
        *_said("Split", manifest["split"]),
        *_said("Validation", manifest["validation"]),
    ]
    over_all = [step["name"] for step in manifest["steps"] if step["detail"].endswith(OVER_ALL)]
    if manifest["split"] and over_all:
        lines.append(f"Counted over the test part too, which so decides about the rest: {', '.join(over_all)}.")
    if manifest["training_after_test"]:
        lines.append(f"{manifest['training_after_test']:,} training events come after a test event of the same user.")
    candidates = {"train": "those of train and validation", "all": "all of the log, also those only seen in test"}
    lines.append(f"Candidates: {manifest['items']:,} items, {candidates[manifest['candidates']]}.")
    if test["asked"]:
        cold = {"miss": "they stay and count as misses", "drop": "dropped where training does not know them"}
        lines.append(
            f"Cold targets: {_share(test['cold'], test['asked'])} of the test ({manifest['cold']}: "
            f"{cold[manifest['cold']]})."
        )
        for kind, repeats in test["repeats"].items():
            lines.append(f"Targets that repeat an item of the {kind}'s history: {_share(repeats, test['asked'])}.")
    elif manifest["counts"]["test"]["events"]:
        lines.append("No event of the test part may be asked for, so it cannot be evaluated.")
    if "sessions" not in manifest["has"]:
        lines.append("Sessions: none; a user's whole history counts as one. --gap 30m or --per-day makes some.")
    elif not counts["all"]["prefixes"]:
        lines.append("Sessions: every one has one event, so nothing can be learnt or asked inside them.")
    if manifest["not_causal"]:
        lines.append(f"Known only at the next event, so not causal: {', '.join(manifest['not_causal'])}.")
    return "\n".join(lines)


def _said(what: str, split: Mapping[str, str] | None) -> list[str]:
    return [f"{what}: {split['text']}.", f"  It leaks {split['leaks']}."] if split else [f"{what}: none."]


def _share(some: int, of: int) -> str:
    return f"{some:,} of {of:,} ({100 * some / of:.1f} %)"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with numbers on the right, and the first and the unnamed last column on the left."""
    widths = [max(len(row[c]) for row in [head, *rows]) for c in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if c == 0 or not head[c] else cell.rjust(width)
            for c, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
