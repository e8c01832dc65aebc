"""An inspected log as one HTML page that needs nothing but itself: what follows first, then the numbers, drawn.

What comes from the log (names, ids, titles) is escaped by `tag`; only what is marked as HTML is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any

import foretaste
from foretaste.inspection import drawings
from foretaste.inspection.advice import Advice, percent
from foretaste.inspection.log import LogFacts
from foretaste.inspection.text import NOTHING, Inspected, sections, state
from foretaste.pages.document import document
from foretaste.pages.drawings import drawing, inline, svg_of
from foretaste.pages.html import Html, join, tag

POPULARITY = "Popularity and drift"
DRAWN: dict[str, Callable[[LogFacts], Iterator[drawings.Drawn]]] = {
    "Lengths": drawings.lengths,
    "Time": drawings.times,
    "Repeats": drawings.returns,
    POPULARITY: drawings.crowd,
}
"""By the title of the section."""


def can_draw() -> None:
    """Say before the work if matplotlib is missing."""
    with drawing():
        pass


def page(found: Inspected) -> str:
    """The whole page."""
    facts = found.facts
    parts = {
        "What follows": tag("ul", *(tag("li", one) for one in found.findings or [NOTHING])),
        "Which protocol fits": _protocols(found),
        "What each model could use": _models(found),
    }
    with drawing():
        for title, lines in sections(facts):
            numbers = tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in lines), class_="numbers")
            parts[title] = join(numbers, *_drawn(title, facts), *(_leaders(facts) if title == POPULARITY else ()))
    parts["How the log was made"] = join(_parts(facts), tag("pre", found.report, tabindex=0))
    title = f"What {found.title} is like"
    links = (tag("li", tag("a", name, href=f"#{_id(name)}")) for name in parts)
    return document(
        title,
        tag("header", tag("h1", title), _figures(facts), tag("nav", tag("ul", *links), aria_label="Sections")),
        tag("main", *(tag("section", tag("h2", name, id=_id(name)), part) for name, part in parts.items())),
        tag("p", tag("small", f"Made by foretaste inspect, version {foretaste.__version__}.")),
        style=files("foretaste.inspection").joinpath("style.css").read_text("utf-8"),
    )


def _figures(facts: LogFacts) -> Html:
    """The few numbers that say what kind of log this is."""
    row = facts.lengths[f"events of a {facts.row}"]
    shown = {"events": f"{facts.events:,}", "users": f"{facts.users:,}", "sessions": f"{facts.sessions:,}"}
    shown = {name: value for name, value in shown.items() if value != "0"}
    shown |= {"items": f"{facts.items:,}", f"events of the median {facts.row}": f"{row.median:g}"}
    shown |= {f"repeat an item of their {facts.row}": percent(facts.items_back.inside)}
    return tag("div", *(tag("div", tag("b", value), name) for name, value in shown.items()), class_="figures")


def _protocols(found: Inspected) -> Html:
    cards = []
    for one in found.askings:
        split = tag("p", "after ", tag("code", f"--split {one.split}")) if one.split else None
        cards.append(
            tag(
                "div",
                tag("h3", one.protocol, " ", tag("span", one.verdict)),
                tag("p", one.why),
                split,
                tag("p", tag("b", "Leaks. "), one.leaks, class_="hint") if one.leaks else None,
                class_="card first" if one.verdict == "take this" else "card",
            )
        )
    return tag("div", *cards, class_="cards")


def _models(found: Inspected) -> Html:
    parts = []
    for row, said in found.rows.items():
        there = [_model(one) for one in found.models if one.row == row]
        about = tag("p", tag("b", f"Models whose row is a {row}. "), said)
        head = _head(("model", "has what it needs", "on this log"))
        parts.append(join(about, _table(head, tag("tbody", *there), class_="models")))
    return join(*parts)


def _model(one: Advice) -> Html:
    return tag(
        "tr",
        tag("th", one.model, scope="row"),
        tag("td", state(one)),
        tag("td", one.says or None, tag("small", one.summary)),
        class_="lacks" if one.lacks and not one.instead else None,
    )


def _drawn(title: str, facts: LogFacts) -> Iterator[Html]:
    if title not in DRAWN:
        return
    shown = []
    for number, (figure, name, about) in enumerate(DRAWN[title](facts), 1):
        svg = inline(svg_of(figure, f"{_id(title)}-{number}"), name)
        shown.append(tag("figure", tag("figcaption", tag("b", name), " ", about), svg, class_="drawing"))
    yield tag("div", *shown, class_="drawings")


def _leaders(facts: LogFacts) -> Iterator[Html]:
    """The most popular items by name."""
    titled = any(one.title for one in facts.leaders)
    rows = [
        tag("tr", tag("td", one.item), tag("td", one.title) if titled else None, _number(one.events))
        for one in facts.leaders
    ]
    names = ("item", "title", "events") if titled else ("item", "events")
    yield tag("h3", "The most popular items")
    yield _table(_head(names), tag("tbody", *rows))


def _parts(facts: LogFacts) -> Html | None:
    """NARM's Table 1: what NARM calls sessions are prefixes."""
    if not facts.parts:
        return None
    names = [name for name in ("events", "users", "sessions", "prefixes", "items") if facts.parts["all"][name]]
    rows = [
        tag("tr", tag("th", part, scope="row"), *(_number(of[name]) for name in names))
        for part, of in facts.parts.items()
    ]
    about = tag("p", f"Split by {facts.split_by}.")
    return join(about, _table(_head(("part", *names)), tag("tbody", *rows)))


def _number(value: int) -> Html:
    return tag("td", f"{value:,}", class_="number")


def _head(names: Sequence[str]) -> Html:
    numbers = ("events", "users", "sessions", "prefixes", "items")
    cells = (tag("th", name, scope="col", class_="number" if name in numbers else None) for name in names)
    return tag("thead", tag("tr", *cells))


def _table(*rows: Any, class_: str | None = None) -> Html:
    """A table that is scrolled sideways where it is too wide."""
    return tag("div", tag("table", *rows, class_=class_), class_="wide", tabindex=0)


def _id(title: str) -> str:
    return title.lower().replace(" ", "-")
