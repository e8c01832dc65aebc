"""What the words of the command line mean: settings, splits, protocols, parts, ids."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from foretaste.errors import ConfigError, nearest

if TYPE_CHECKING:
    from foretaste.data.splits import Split
    from foretaste.evaluation.protocols import Protocol

MAKE_VALIDATION = ("last-two", "given")
"""Splits that may come with a validation part of their own."""


def settings(words: Iterable[str]) -> dict[str, Any]:
    """`key=value` words as a dictionary. A value is read as TOML; what is not TOML is text."""
    out: dict[str, Any] = {}
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not key:
            raise ConfigError(f"'{word}': write key=value, such as hidden_size=128")
        try:
            out[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            out[key] = value
    return out


def parts_of(split: str | None, validation: str | None, has: frozenset[str]) -> tuple[Split | None, Split | None]:
    """The test and the validation split of these words: `global-time:days=7`, or `none`.

    Where a word is missing it is the newest tenth: of the events where the log has times, of the sessions elsewhere.
    """
    newest = "global-time:fraction=0.1" if "times" in has else "session-order:fraction=0.1"
    own = split is not None and _named(split)[0] in MAKE_VALIDATION
    return _split(newest if split is None else split), _split(
        ("none" if own else newest) if validation is None else validation
    )


def protocol(word: str) -> Protocol:
    """`last-item:unit=user,mask_seen=true` as a protocol."""
    from foretaste.evaluation import protocols

    name, options = _named(word)
    return protocols.protocol(name, **options)


def part(word: str) -> int:
    """`test` as the number of the part."""
    from foretaste.data.sequences import PARTS

    if word not in PARTS:
        raise ConfigError(f"no part is called '{word}'; {nearest(word, PARTS)}")
    return PARTS.index(word)


def ids(words: Iterable[str], items: Iterable[Any]) -> list[Any]:
    """Words as the raw ids that are written so; a word that means no item stays as it is."""
    written = {str(raw): raw for raw in items}
    return [written.get(word, word) for word in words]


def _named(word: str) -> tuple[str, dict[str, Any]]:
    """`name:key=value,key=value`."""
    name, _, rest = word.partition(":")
    return name.strip(), settings(part for part in rest.split(",") if part.strip())


def _split(word: str) -> Split | None:
    from foretaste.data.splits import split_of

    name, options = _named(word)
    return None if name == "none" and not options else split_of({"kind": name, **options}, beside=("none",))


def with_unit(name: str, length: str) -> float:
    """Seconds of a length of time that a person wrote, who must say its unit: 60 may be meant as seconds or as days."""
    from foretaste.data.sessions import milliseconds

    word = length.strip()
    try:
        found = milliseconds(length) / 1000
    except ConfigError:
        raise ConfigError(f"{name} {length}: expected a length of time such as 90s, 30m, 12h or 90d") from None
    if word.replace(".", "", 1).isdecimal():
        raise ConfigError(f"{name} {word}: {word} of what? Say {word}s, {word}m, {word}h or {word}d")
    return found


def use_threads(count: int) -> None:
    """So many threads for torch."""
    import torch

    if count < 1:
        raise ConfigError(f"threads = {count}; give at least 1")
    torch.set_num_threads(count)
