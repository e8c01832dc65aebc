"""A comparison as text: the table, and below it what a reader must know to believe it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

from foretaste.compare.budget import at_the_end
from foretaste.compare.summary import Line, Summary, machine_of

SHOWN = 10
"""Pairs of rows in another order than the paper's that are named."""
WHY = 400
"""Characters of what made a row fail; all of it lies beside the cells."""


def markdown(summary: Summary) -> str:
    """The table as Markdown."""
    grid, also = summary.grid, summary.grid.also
    names = [*grid.show, *(f"{name}: {metric}" for name in also for metric in grid.show)]
    paper = any(line.published for line in summary.lines)
    heads = ["row", *names, *["paper"] * paper, "difference", "seeds", "passes", "chosen"]
    heads += ["tuning", "training", "memory", "ms an answer"]
    lines = [f"# {grid.title}", "", *([grid.about.strip(), ""] if grid.about else [])]
    lines += [_asked(summary), "", f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    lines += [_row(line, names, paper) for line in summary.lines if line.cells]
    failed = [(line.name, why) for line in summary.lines for why in sorted(set(line.failures.values()))]
    lines += [*[""] * bool(failed), *(f"- {name}: {shorten(why, WHY, placeholder=' ...')}" for name, why in failed)]
    below = [
        *_untested(summary),
        *_seeds(summary),
        *_notes(summary),
        *at_the_end(summary),
        *order(summary),
        *machines(summary),
    ]
    return "\n".join([*lines, *[""] * bool(below), *(f"- {said}" for said in below)]) + "\n"


def _asked(summary: Summary) -> str:
    """What was asked, and how to read the figures."""
    grid = summary.grid
    cell = next((line.cells[0] for line in summary.lines if line.cells), None)
    text = f"Asked: {grid.ask}." if cell is None else f"Asked: {_counted(cell['test'])}."
    if cell is not None and cell["also"]:
        text += " Besides: " + "; ".join(f"{name}: {_counted(one)}" for name, one in cell["also"].items()) + "."
    text += (
        " In percent, means over the seeds; two figures, 1.2-1.4, where ties make a difference: counted against the "
        f"model, and for it. In round brackets the 95 % interval over {summary.units}, the figure of each being the "
        "mean over the seeds; in square ones the least and the greatest seed."
    )
    if grid.also and len(grid.seeds) > 1:
        text += " Of what was asked besides, the interval is the mean of the seeds' own."
    if grid.reference and summary.reference != grid.reference:
        text += f" The row {grid.reference}, with which the others are to be compared, is not there yet."
    if any(line.against is not None for line in summary.lines):
        text += (
            f" Difference: how far {summary.reference} is above the row in {grid.show[0]}, with the interval of the "
            f"paired bootstrap over {summary.units}, and p of the randomisation test after Holm"
            + ("." if summary.reference == grid.reference else ", over all pairs of rows.")
        )
    return text


def _counted(test: Mapping[str, Any]) -> str:
    targets = f" with {test['targets']:,} targets" if test["targets"] != test["cases"] else ""
    if targets and "several_targets" in test:
        targets += f" ({100 * test['several_targets']:.1f} % have two or more)"
    return f"{test['protocol']}, {test['cases']:,} cases{targets} among {test['n_items']:,} items"


def _row(line: Line, names: Sequence[str], paper: bool) -> str:
    figures = [line.figures[name].text() if name in line.figures else "" for name in names]
    pair, cell = line.against, line.cells[0]
    gap = ""
    if pair is not None and line.p is not None:
        gap = f"{100 * pair.difference:+.2f} ({100 * pair.low:+.2f} to {100 * pair.high:+.2f}), p {p_value(line.p)}"
    chosen = ", ".join(f"{name} = {plain(value)}" for name, value in cell["chosen"].items())
    passes = ", ".join(str(one["passes"]) for one in line.cells if one["passes"])
    seconds, answer, memory = ([line.cost(name) for name in ("tuning", "training")], line.cost("median"),
                               line.cost("peak_mb"))  # fmt: skip
    cost = [
        *("" if one is None else f"{one:,.0f} s" for one in seconds),
        "" if memory is None else f"{memory:,.0f} MB",
        "" if answer is None else f"{answer:.1f}",
    ]
    found = [line.name.replace("|", "\\|"), *figures, *[line.published] * paper, gap]
    return f"| {' | '.join([*found, str(len(line.cells)), passes, chosen, *cost])} |"


def _untested(summary: Summary) -> Iterator[str]:
    """Rows that stand without a test beside the reference."""
    tested = [line.name for line in summary.lines if line.against is not None]
    left = [line.name for line in summary.lines if line.cells and line.name not in (*tested, summary.reference)]
    if tested and left:
        yield (
            f"Not tested, for what each case gave is not kept of them or of {summary.reference}: {', '.join(left)}. "
            f"Holm's correction counts the {len(tested)} that were."
        )


def _seeds(summary: Summary) -> Iterator[str]:
    """What intervals and tests do not know."""
    trained = [line for line in summary.lines if line.cells and line.cells[0].get("history")]
    if trained and all(len(line.cells) == 1 for line in trained):
        yield (
            f"One seed was trained: intervals and tests are over {summary.units} alone, and how much another seed "
            "would change is not known."
        )
    elif trained:
        yield (
            f"Tests are over {summary.units}, with the seeds averaged: two rows whose single seeds overlap may differ "
            "by their seeds alone, whatever p is."
        )


def _notes(summary: Summary) -> Iterator[str]:
    """What an evaluation had to say, such as that a row is not causal: of all rows once, of some by name."""
    there = [line for line in summary.lines if line.cells]
    said: dict[str, list[str]] = {}
    for line in there:
        for note in notes_of(line):
            said.setdefault(note, []).append(line.name)
    for note, names in said.items():
        yield note if len(names) == len(there) else f"{', '.join(names)}: {note}"


def notes_of(line: Line) -> list[str]:
    """The notes of a row, each once; of a question asked besides with its name before it."""
    found = [note for cell in line.cells for note in cell["test"]["notes"]]
    besides = [f"{name}: {note}" for cell in line.cells for name, one in cell["also"].items() for note in one["notes"]]
    return list(dict.fromkeys([*found, *besides]))


def order(summary: Summary) -> Iterator[str]:
    """Where the paper has one row above another, and we have not."""
    metric = summary.grid.show[0]
    known = [(line, paper) for line in summary.lines if line.cells and (paper := printed(line.published)) is not None]
    turned = [
        (one, other) if paper > other_paper else (other, one)
        for (one, paper), (other, other_paper) in itertools.combinations(known, 2)
        if (paper - other_paper) * (one.figures[metric].mean - other.figures[metric].mean) < 0
    ]
    if len(known) < 2:
        return
    pairs = len(known) * (len(known) - 1) // 2
    said = f"Order in {metric} against the paper's: {pairs - len(turned)} of {pairs} pairs of rows agree."
    if not turned:
        yield said
        return
    turned.sort(key=lambda pair: pair[0].figures[metric].mean - pair[1].figures[metric].mean)
    told = [f"{above.name} above {below.name} ({_gap(above, below, metric)})" for above, below in turned[:SHOWN]]
    more = f"; and {len(turned) - SHOWN} more" if len(turned) > SHOWN else ""
    yield f"{said} The paper has {'; '.join(told)}{more}."


def _gap(above: Line, below: Line, metric: str) -> str:
    one, other = above.figures[metric], below.figures[metric]
    alike = ", each inside the other's interval" if other.low < one.mean and one.high > other.mean else ""
    return f"ours {100 * one.mean:.2f} and {100 * other.mean:.2f}{alike}"


def printed(published: str) -> float | None:
    """The first figure of "62.58 / 27.35", or of "MovieLens-1M: 1.74 / 10.85"."""
    found = re.match(r"(?:[^:]*: )?(\d+\.?\d*|\.\d+)(?: /|$)", published)
    return None if found is None else float(found[1])


def machines(summary: Summary) -> Iterator[str]:
    """On what the cells were made, and when."""
    days: dict[str, list[str]] = {}
    rows: dict[str, list[str]] = {}
    for line in summary.lines:
        for cell in line.cells:
            if machine := machine_of(cell):
                days.setdefault(machine, []).append(cell["made"])
                rows.setdefault(machine, []).append(line.name)
    spans = {machine: f"{machine} ({' to '.join(sorted({min(when), max(when)}))})" for machine, when in days.items()}
    if len(spans) == 1:
        yield f"Made on: {next(iter(spans.values()))}."
    elif spans:
        each = (f"{span}: {', '.join(dict.fromkeys(rows[machine]))}" for machine, span in spans.items())
        yield f"Made on {len(spans)} machines, whose times and memory do not compare. {'; '.join(each)}."


def p_value(p: float | None) -> str:
    """To three places."""
    return "" if p is None else "< 0.001" if p < 0.0005 else f"{p:.3f}"


def plain(value: Any) -> str:
    """A value of a setting, for a person."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
