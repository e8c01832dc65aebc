"""A store as a file, and back: JSON Lines that any program can read.

The first line is a header (format, version, facts of the store), then comes one line a user (user, touched, record and
base as base64, and the CRC-32 of both), and the last line says how many users there were: a file that was cut or
changed is found out. An earlier version wrote no checksums.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from foretaste.data.files import replaced
from foretaste.errors import StoreError
from foretaste.serving.store import Store, Whole

KIND, VERSION = "foretaste-users", 1
BATCH = 256
"""Users written in one step."""

Progress = Callable[[str, int], None]
"""Called with what is done and for how many users so far."""


def export_users(store: Store, path: Path, progress: Progress | None = None) -> int:
    """Write all users into a file, which is there whole or not at all; gives how many.

    Users who are written meanwhile are in it as they were before or as they are after.
    """
    count = 0
    with replaced(path) as file:
        file.write(_line({"format": KIND, "version": VERSION, "facts": store.claim({})}))
        for whole in store.everyone():
            record, base = (base64.b64encode(value).decode() for value in (whole.record, whole.base))
            line = {"user": whole.user, "touched": whole.touched, "record": record, "base": base}
            file.write(_line({**line, "crc": _check(whole.record, whole.base)}))
            count += 1
            if progress is not None:
                progress("written", count)
        file.write(_line({"users": count}))
    return count


def import_users(store: Store, path: Path, progress: Progress | None = None) -> int:
    """Write the users of a file into a store, in place of those that stand there under the same names; gives how many.

    The whole file is checked before the first user is written. A store that says of itself something else than the
    file does is refused: its users were made by another model.
    """
    facts, users = header(path), 0
    for users, _ in enumerate(read_users(path), 1):
        if progress is not None:
            progress("checked", users)
    said = store.claim({})
    if facts and said and _whose(facts) != _whose(said):
        raise StoreError(f"{path}: is of {_brief(facts)}, and the store of {_brief(said)}; import it into a new store")
    store.claim(facts)
    done, every = 0, read_users(path)
    while some := list(islice(every, BATCH)):
        store.put_all(some)
        done += len(some)
        if progress is not None:
            progress("imported", done)
    return done


def header(path: Path) -> dict[str, Any]:
    """The facts of the store that was exported."""
    _, first = next(_lines(path), (1, {}))
    if first.get("format") != KIND:
        raise StoreError(f"{path}, line 1: expected the header of an export of users; found something else")
    if first.get("version") != VERSION:
        raise StoreError(
            f"{path}, line 1: version {first.get('version')!r}, and this Foretaste reads {VERSION}; upgrade it"
        )
    facts = first.get("facts")
    if not isinstance(facts, dict):
        raise StoreError(f"{path}, line 1: no facts of the store; export it again")
    return facts


def read_users(path: Path) -> Iterator[Whole]:
    """The users of a file, each line checked; one error with the number of the first bad one."""
    count, ended = 0, False
    for number, line in islice(_lines(path), 1, None):
        if ended:
            raise StoreError(f"{path}, line {number}: comes after the line that ends the file; export it again")
        if "users" in line:
            ended = True
            if line["users"] != count:
                raise StoreError(f"{path}, line {number}: says {line['users']} users, found {count}; export it again")
            continue
        count += 1
        yield _user(path, number, line)
    if not ended:
        raise StoreError(f"{path}: ends after {count:,} users without its last line, so it was cut; export it again")


def _user(path: Path, number: int, line: dict[str, Any]) -> Whole:
    user, touched = line.get("user"), line.get("touched")
    if not isinstance(user, str) or not isinstance(touched, int) or isinstance(touched, bool):
        raise StoreError(f"{path}, line {number}: expected a user (text) and when it was touched (seconds)")
    try:
        record, base = (base64.b64decode(line[name], validate=True) for name in ("record", "base"))
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise StoreError(f"{path}, line {number}: record and base of user {user!r} are not base64") from None
    if line.get("crc", check := _check(record, base)) != check:
        raise StoreError(f"{path}, line {number}: record or base of user {user!r} was damaged; export it again")
    return Whole(user, record, base, touched)


def _check(record: bytes, base: bytes) -> int:
    return zlib.crc32(base, zlib.crc32(record))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                found = json.loads(text)
                if not isinstance(found, dict):
                    raise ValueError("no object")
                yield number, found
    except FileNotFoundError:
        raise StoreError(f"{path}: no such file") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise StoreError(f"{path}, line {max(number, 1)}: not a line of JSON; export it again") from None


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"


def _whose(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts but for the version of Foretaste that wrote them: users of the same model outlive it."""
    return {name: value for name, value in facts.items() if name != "foretaste"}


def _brief(facts: dict[str, Any]) -> str:
    text = json.dumps(facts, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."
