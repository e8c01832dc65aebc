"""`foretaste store`: what an operator does with a store of users beside the service."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from foretaste.errors import ConfigError
from foretaste.options import Json
from foretaste.serving.homes import open_store
from foretaste.serving.store import Store

store = App(name="store", help_epilogue="A service may have the store open meanwhile, but for `compact`.")

Where = Annotated[str, Parameter(name="STORE", help="A folder, or a redis://, rediss:// or valkey:// URL.")]
Namespace = Annotated[str, Parameter(help="Beginning of every key on a server.")]


@store.command
def report(where: Where, /, *, namespace: Namespace = "foretaste", json: Json = False) -> None:
    """Users, bytes, bytes a user, and what the store says of itself.

    Example: `foretaste store report states`
    """
    from foretaste.cli import show

    with _opened(where, namespace) as home:
        facts = home.report()
        facts["bytes_per_user"] = round(facts["bytes"] / facts["users"], 1) if facts["users"] else None
        facts["facts"] = home.claim({})
    show(facts, _table(facts), json)


@store.command
def export(where: Where, file: Path, /, *, namespace: Namespace = "foretaste", json: Json = False) -> None:
    """Write all users into a file of JSON Lines; the file is there whole or not at all.

    Example: `foretaste store export states users.jsonl`

    Parameters
    ----------
    file
        File to write.
    """
    from foretaste.cli import show
    from foretaste.serving.exports import export_users

    with _opened(where, namespace) as home, _progress() as progress:
        count = export_users(home, file, progress)
    show({"file": str(file), "users": count}, f"{count:,} users written: {file}", json)


@store.command(name="import")
def import_(where: Where, file: Path, /, *, namespace: Namespace = "foretaste", json: Json = False) -> None:
    """Write the users of an export into a store, in place of users of the same names.

    Example: `foretaste store import redis://localhost:6379/0 users.jsonl`

    The whole file is checked first: if a line is bad, nothing is written.

    Parameters
    ----------
    file
        A file written by `foretaste store export`.
    """
    from foretaste.cli import show
    from foretaste.serving.exports import header, import_users

    header(file)  # before a new folder is made
    with _opened(where, namespace, create=True) as home, _progress() as progress:
        count = import_users(home, file, progress)
    show({"file": str(file), "users": count}, f"{count:,} users imported from {file}", json)


@store.command
def compact(where: Where, /, *, json: Json = False) -> None:
    """Give the free pages of a folder back to the disk; no service may have it open.

    Example: `foretaste store compact states`
    """
    from foretaste.cli import show

    if "://" in where:
        raise ConfigError("compact: a server looks after its memory itself; give a folder")
    from foretaste.serving.folder import compact as compact_folder

    before, after = compact_folder(Path(where))
    show({"before": before, "after": after}, f"{before:,} bytes before, {after:,} bytes now", json)


@store.command
def sweep(where: Where, /, *, older_than: str, namespace: Namespace = "foretaste", json: Json = False) -> None:
    """Forget every user without an event for some time.

    Example: `foretaste store sweep states --older-than 90d`

    Parameters
    ----------
    older_than
        How long, such as 12h or 90d.
    """
    from foretaste.cli import show
    from foretaste.words import with_unit

    moment = time.time() - with_unit("--older-than", older_than)
    with _opened(where, namespace) as home:
        gone = home.sweep(moment)
    show({"forgotten": gone}, f"{gone:,} users forgotten", json)


@store.command
def forget(where: Where, /, *users: str, namespace: Namespace = "foretaste", json: Json = False) -> None:
    """Forget users, also one whose record is damaged.

    Example: `foretaste store forget states 42`

    Parameters
    ----------
    users
        Ids. One that begins with a dash comes after `--`.
    """
    from foretaste.cli import show

    if not users:
        raise ConfigError("forget: name at least one user")
    with _opened(where, namespace) as home:
        found = {user: home.delete(user) for user in users}
    lines = [f"{user}: {'forgotten' if there else 'not in the store'}" for user, there in found.items()]
    show({"forgotten": [user for user, there in found.items() if there]}, "\n".join(lines), json)


@contextmanager
def _opened(where: str, namespace: str, *, create: bool = False) -> Iterator[Store]:
    """The store, written so that a power cut beside a service that relies on it loses nothing."""
    if where == "memory":
        raise ConfigError("a store in memory ends with its process; give a folder or a URL")
    home = open_store(where, durability="power", namespace=namespace, create=create, timeout=30.0)
    try:
        yield home
    finally:
        home.close()


@contextmanager
def _progress() -> Iterator[Any]:
    """A live line on a terminal, nothing elsewhere."""
    drawn = 0.0

    def draw(what: str, count: int) -> None:
        nonlocal drawn
        if sys.stderr.isatty() and time.monotonic() - drawn > 0.2:
            drawn = time.monotonic()
            print(f"\r\033[K{count:,} users {what}", end="", file=sys.stderr, flush=True)

    yield draw
    if drawn:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _table(facts: dict[str, Any]) -> str:
    """One fact a line."""
    lines = []
    for name, value in facts.items():
        if name == "facts":
            lines += [f"{key:<18} {fact}" for key, fact in value.items()]
        elif value is not None:
            shown = f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
            lines.append(f"{name.replace('_', ' '):<18} {shown}")
    return "\n".join(lines)
