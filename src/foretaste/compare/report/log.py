"""The log that was compared on: its parts in numbers (NARM, Table 1), and what its sessions are like (ASARS, Figure 1).

One pass over the events, as `foretaste inspect` makes it. A log of more than `MOST` events is not read for a report: it
would take longer than all else that a report does, and `foretaste inspect --html` draws the same and more.
"""

from __future__ import annotations

from itertools import chain

from foretaste.data.prepared import Prepared
from foretaste.inspection.drawings import dwell, returns
from foretaste.inspection.log import log_facts
from foretaste.pages.drawings import Gallery
from foretaste.pages.html import Html, join, tag

MOST = 5_000_000
"""Events that are counted for a report."""
COUNTS = ("events", "users", "sessions", "prefixes", "items")
"""Of a part, in the order of the table."""


def the_log(gallery: Gallery, log: Prepared) -> Html:
    """The counts of the parts, and the drawings."""
    if len(log.sequences) > MOST:
        why = f"Drawings are left out, as the log has more than {MOST:,} events; "
        return join(_parts(log), tag("p", why, tag("code", "foretaste inspect --html"), " makes them.", class_="hint"))
    facts = log_facts(log)
    drawn = [
        gallery.show(f"log {title}", figure, title, about)
        for figure, title, about in chain(returns(facts), dwell(facts))
    ]
    return join(_parts(log), tag("div", *drawn, class_="drawings"))


def _parts(log: Prepared) -> Html:
    """One row a part. NARM's Table 1 calls prefixes what it counts as sessions."""
    there = {part: of for part, of in log.manifest["counts"].items() if of["events"]}
    names = [name for name in COUNTS if there["all"][name]]
    head = tag("tr", *(tag("th", name, scope="col") for name in ("part", *names)))
    rows = [
        tag("tr", tag("th", part, scope="row"), *(tag("td", f"{of[name]:,}", class_="number") for name in names))
        for part, of in there.items()
    ]
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    about = "A prefix is an event with another before it in its session: a question that a session model can be asked."
    return join(
        tag("div", table, class_="wide", role="region", aria_label="Parts of the log", tabindex="0"),
        tag("p", about, class_="hint"),
    )
