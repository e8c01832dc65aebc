"""Attention as heat maps, one a history; and how much the open session counts, over a user's sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from foretaste.compare.report.histories import Moment, Seen, Witnesses, followed, moments
from foretaste.compare.report.table import named
from foretaste.pages.drawings import COLOURS, INK, PAPER, RULE, Gallery, Look, canvas, name_ends, short
from foretaste.pages.html import Html, join, tag

NUMBERED = 4
"""Up to so many models, the weights are written into the map."""


def attention(gallery: Gallery, witnesses: Witnesses, names: dict[str, Look]) -> Iterator[Html]:
    """For each sampled history a map, and below it what came and what each model would have recommended."""
    for number, moment in enumerate(moments(witnesses.log), 1):
        found = [seen for row in list(witnesses.models) if (seen := witnesses.ask(row, moment)) is not None]
        attends = [seen for seen in found if seen.weights]
        if attends:
            yield tag("div", _map(gallery, witnesses, number, moment, attends), _lists(witnesses, moment, found, names))


def _map(gallery: Gallery, witnesses: Witnesses, number: int, moment: Moment, attends: Sequence[Seen]) -> Html:
    from matplotlib.patches import Rectangle

    titles = [short(witnesses.title(raw), 28) for raw in witnesses.shown(moment)]
    older = any(seen.older > 0.005 for seen in attends)
    rows = (["(older events)"] if older else []) + titles
    figure, axes = canvas(1.2 + 0.24 * len(rows) + (0.4 if len(attends) > NUMBERED else 0))
    for column, seen in enumerate(attends):
        weights = ([seen.older] if older else []) + seen.weights
        most = max(max(weights), 1e-9)
        for row, weight in enumerate(weights):
            axes.add_patch(Rectangle((column, row), 1, 1, fc="none", ec=RULE, lw=0.6))
            if (strength := weight / most) > 0.01:
                axes.add_patch(Rectangle((column, row), 1, 1, fc=COLOURS[0], ec="none", alpha=strength))
            if len(attends) <= NUMBERED:
                colour = PAPER if strength > 0.85 else INK
                axes.text(column + 0.5, row + 0.52, f"{weight:.0%}", ha="center", va="center", color=colour, fontsize=9)
    axes.set(xlim=(0, len(attends)), ylim=(len(rows), 0))
    turned = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if len(attends) > NUMBERED else {}
    axes.set_xticks([column + 0.5 for column in range(len(attends))], [short(s.row, 14) for s in attends], **turned)
    axes.xaxis.tick_top()
    axes.set_yticks([row + 0.5 for row in range(len(rows))], rows)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return gallery.show(
        f"attention {number}", figure, f"History {number}.",
        "The newest event is the lowest. The darkest cell of a column is what that model looked at most.",
    )  # fmt: skip


def _lists(witnesses: Witnesses, moment: Moment, found: Sequence[Seen], names: dict[str, Look]) -> Html:
    """What came, and where each model had it."""
    rows = [
        tag(
            "tr",
            tag("th", named(seen.row, names), scope="row"),
            tag("td", seen.place if seen.place is not None else "not in 20", class_="number"),
            tag("td", "; ".join(witnesses.title(raw) for raw in seen.first)),
        )
        for seen in found
    ]
    head = tag("tr", *(tag("th", text, scope="col") for text in ("model", "its place", "recommended first")))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    came = tag("p", "Then came: ", tag("b", witnesses.title(witnesses.came(moment))), ".")
    return join(came, tag("details", tag("summary", "Where each model had it"), table))


def shares(gallery: Gallery, witnesses: Witnesses, names: dict[str, Look]) -> Iterator[Html]:
    """The share of the open session in the answer at the end of each of a user's sessions."""
    for number, ends in enumerate(followed(witnesses.log), 1):
        found: dict[str, list[float]] = {}
        for row in list(witnesses.models):
            known = [value for moment in ends if (value := witnesses.share(row, moment)) is not None]
            if len(known) == len(ends):
                found[row] = known
        if not found:
            continue
        figure, axes = canvas(2.9)
        x = list(range(1, len(ends) + 1))
        for row, values in found.items():
            look = names[row]
            y = [100 * value for value in values]
            axes.plot(x, y, color=look.colour, ls=look.dashes, marker=look.mark, mec=PAPER, mew=0.6)
            if len(found) == 1:
                axes.fill_between(x, y, color=look.colour, alpha=0.18, lw=0)
        axes.set_ylim(0, 103)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("the user's session")
        axes.set_ylabel("share of the short term, %")
        name_ends(axes, {row: 100 * values[-1] for row, values in found.items()}, names)
        yield gallery.show(
            f"shares {number}", figure, f"User {number}: short against long term.",
            "At the end of each session; what is above the line is the long term.",
        )  # fmt: skip
