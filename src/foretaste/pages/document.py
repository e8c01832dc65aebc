"""A whole HTML file: its head, its style sheet, its body. It loads nothing from anywhere."""

from __future__ import annotations

from importlib.resources import files

from foretaste.pages.drawings import COLOURS
from foretaste.pages.html import Html, tag


def document(title: str, *body: Html, style: str = "", script: str = "") -> str:
    """The text of a page with the shared style sheet; `style` and `script` are what a page has of its own."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(shared("style.css").replace("/* colours */", colours()) + style)),
    )
    scripts = [tag("script", Html(script))] if script else []
    return f"<!doctype html>\n{tag('html', head, tag('body', *body, *scripts), lang='en')}\n"


def shared(name: str) -> str:
    """A file that comes with this package."""
    return files("foretaste.pages").joinpath(name).read_text(encoding="utf-8")


def colours() -> str:
    """The drawings' colours on light paper; the style sheet has those on dark."""
    return " ".join(f"--c{number}: {colour};" for number, colour in enumerate(COLOURS))
