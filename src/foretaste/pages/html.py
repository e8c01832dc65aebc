"""HTML from Python values: what comes from data is escaped, what is marked as HTML is not."""

from __future__ import annotations

import html
import json
import math
from typing import Any

EMPTY = ("br", "hr", "img", "meta", "link", "col")
"""Elements without an end."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: Any) -> Html:
    """A value as HTML; HTML stays as it is, None is nothing."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else html.escape(str(value)))


def join(*children: Any, by: str = "") -> Html:
    """One after another."""
    return Html(by.join(escaped(child) for child in children if child is not None))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """`tag("th", "p", scope="col", aria_sort="none", class_="number")`; False and None leave an attribute out."""
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{html.escape(str(value))}"')
    begin = f"<{' '.join(parts)}>"
    return Html(begin if name in EMPTY else f"{begin}{join(*children)}</{name}>")


def listed(words: list[Any], last: str = "and") -> Html:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return join(*words)
    return join(join(*words[:-1], by=", "), f" {last} ", words[-1])


def data(value: Any, name: str) -> Html:
    """Plain values as JSON that the page carries along; what is not a number is null."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Html(f'<script type="application/json" id="{html.escape(name)}">{text}</script>')


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
