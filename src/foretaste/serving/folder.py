"""The folder of an embedded store: who may use it, what lies in it, and what is said when it cannot be used.

Beside LMDB's own two files lies `in-use`, which every process that has the store open holds locked together with the
others, and `compact` for itself alone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.data.files import to_disk
from foretaste.errors import ForetasteError, StoreError
from foretaste.serving.values import FORMAT, FORMAT_VERSION, check_format

try:
    import lmdb
except ImportError:
    raise ForetasteError(
        "a store in a folder needs lmdb, which is not installed: pip install 'foretaste[serve]'"
    ) from None

DATA, LOCK, IN_USE = "data.mdb", "lock.mdb", "in-use"
COMPACTED = "compacted-"
"""Beginning of the name of a folder in the making."""
ABOUT, FACTS, TRIED = b"format", b"facts", b"tried"
"""Keys of the table that says what the store is; the last holds nothing, and is written to find out if one can."""
LEAST = 65_536
"""Bytes that are then written at least: more than the gaps that a full file may have left."""
READERS = 1024
"""Read transactions of all processes at once."""
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""EIO too: LMDB says so where a write to a full disk ended half-way. It writes such a transaction off."""
_held: set[tuple[int, int, int]] = set()
"""Process and file of every folder that is held: LMDB's locks break where one process opens a folder twice."""
_holding = threading.Lock()
READ_ALL = """
import os, sys, lmdb
with lmdb.open(sys.argv[1], readonly=True) as env:
    env.copyfd(os.open(sys.argv[2], os.O_WRONLY), compact=True)
"""
"""A program that touches every page of a store."""


class Tables(NamedTuple):
    """LMDB's handles."""

    records: Any
    bases: Any
    about: Any


def occupy(folder: Path, create: bool = True, *, alone: bool = False) -> int:
    """Hold the folder, which is made if need be, with the others or `alone`; for `leave` when done."""
    try:
        if create:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
        ours = {name for name in names if name in (DATA, LOCK, IN_USE) or name.startswith(COMPACTED)}
        if not create and DATA not in names:
            raise StoreError(f"{folder}: holds no store of users")
        if names != ours and DATA not in names:
            raise StoreError(
                f"{folder}: holds something that is no store ({min(names - ours)}); give a new or an empty folder"
            )
        held = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise StoreError(f"{folder}: no such folder; expected a store of users") from None
    except (NotADirectoryError, FileExistsError):
        raise StoreError(f"{folder}: a file stands there or on the way to it; give a folder") from None
    except OSError as error:
        raise StoreError(f"{folder}: {_denied(error)}") from None
    with _holding:
        if _name(held) in _held:
            os.close(held)
            raise StoreError(f"{folder}: is already open in this process; use the store that is open")
        _held.add(_name(held))
    try:
        fcntl.flock(held, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        leave(held)
        wait = "a server or command has it open; stop it first" if alone else "it is being compacted; try again later"
        raise StoreError(f"{folder}: {wait}") from None
    return held


def leave(held: int) -> None:
    """Let a folder go."""
    _held.discard(_name(held))
    os.close(held)


def _name(held: int) -> tuple[int, int, int]:
    file = os.fstat(held)
    return os.getpid(), file.st_dev, file.st_ino


def open_tables(folder: Path, map_size: int, *, durable: bool) -> tuple[Any, Tables]:
    """LMDB's environment and its tables, made if they are not there."""
    with told(folder):
        env = _environment(folder, map_size, durable)
        try:
            _check_length(folder, env)
            with env.begin() as step:
                names = {bytes(key) for key in step.cursor().iternext(values=False)}
            if names and names != {name.encode() for name in Tables._fields}:
                check_format(str(folder), None)
            with env.begin(write=True) as step:  # handles outlive no other kind
                made = [env.open_db(name.encode(), txn=step, create=not names) for name in Tables._fields]
                tables = Tables(*made)
                if not names:
                    said = json.dumps({"format": FORMAT, "version": FORMAT_VERSION}).encode()
                    step.put(ABOUT, said, db=tables.about, overwrite=False)
                said = step.get(ABOUT, db=tables.about)
            check_format(str(folder), json.loads(said) if said else None)
            env.reader_check()
        except BaseException:
            env.close()
            raise
    return env, tables


def compact(folder: Path) -> tuple[int, int]:
    """Write the store anew without its free pages; bytes of the file before and after.

    Refused while any process has the store open. What was there stands until the new file is whole and on the disk;
    the disk must have room for both.
    """
    held = occupy(folder, create=False, alone=True)
    made = None
    try:
        for left in folder.glob(f"{COMPACTED}*"):
            shutil.rmtree(left, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=COMPACTED, dir=folder))
        before = (folder / DATA).stat().st_size
        env, tables = open_tables(folder, before + 2**20, durable=True)
        with told(folder):
            try:
                env.copy(str(made), compact=True)
                users = _count(env, tables)
            finally:
                env.close()
        env, tables = open_tables(made, before + 2**20, durable=True)
        there = _count(env, tables)
        env.close()
        if there != users:
            raise StoreError(f"{folder}: {users} users, but {there} in the compacted copy; nothing was changed")
        (made / DATA).chmod(0o600)
        to_disk(made / DATA)
        (made / DATA).replace(folder / DATA)
        (folder / LOCK).unlink(missing_ok=True)
        to_disk(folder)
        return before, (folder / DATA).stat().st_size
    except OSError as error:
        raise StoreError(f"{folder}: {_denied(error)}; the store is as it was") from None
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        leave(held)


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """What LMDB cannot do, as one clear error."""
    try:
        yield
    except lmdb.Error as error:
        raise StoreError(f"{folder}: {_sentence(folder, error)}") from None


def _sentence(folder: Path, error: Any) -> str:
    text = str(error)
    code = next((code for code in (*NO_ROOM, *DENIED, errno.ENOMEM) if os.strerror(code) in text), 0)
    if isinstance(error, lmdb.MapFullError):
        return (
            "the store is full: it has grown to its map_size. Nothing of this step was written. Forget users with "
            "`foretaste store sweep`, or free pages with `foretaste store compact`"
        )
    if code in NO_ROOM:
        with suppress(OSError):
            free = shutil.disk_usage(folder).free // 2**20
            return (
                f"the disk is full or fails ({os.strerror(code)}; {free:,} MB free). Nothing of this step was written. "
                "Make room, then try again"
            )
    if isinstance(error, lmdb.MapResizedError):
        return "another process opened it with a larger map_size; give the same to all"
    if isinstance(error, lmdb.VersionMismatchError):
        return "written by another version of LMDB; export it with the one that wrote it"
    if isinstance(error, (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError)):
        return f"{DATA} is damaged, or no store at all; import the last export into a new folder"
    if isinstance(error, lmdb.ReadersFullError):
        return f"more than {READERS} readers at once; stop some processes"
    if isinstance(error, lmdb.MemoryError) or code == errno.ENOMEM:
        return "no room for its map of addresses, 1 TB unless map_size says less; raise the limit (ulimit -v)"
    if isinstance(error, lmdb.ReadonlyError) or code in DENIED:
        return "may not be read and written by this user; mend the rights of the folder and the files in it"
    return f"cannot be used: {text}"


def _denied(error: OSError) -> str:
    if error.errno in DENIED:
        return "may not be read and written by this user; mend the rights of the folder and the files in it"
    return f"cannot be used: {error.strerror or error}"


def _count(env: Any, tables: Tables) -> int:
    with env.begin() as step:
        return int(step.stat(tables.records)["entries"])


def _environment(folder: Path, map_size: int, durable: bool) -> Any:
    return lmdb.open(
        str(folder),
        map_size=map_size,
        max_dbs=len(Tables._fields),
        max_readers=READERS,
        max_spare_txns=8,
        mode=0o600,
        sync=durable,
        metasync=durable,
    )


def _check_length(folder: Path, env: Any) -> None:
    """A page beyond the end of the file would end the process that touches it.

    LMDB itself leaves a file short now and then, of pages that nothing points to. So where the end is missing, another
    process reads all the pages, as a copy does; a store of whole length costs nothing.
    """
    expected = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if (folder / DATA).stat().st_size < expected:
        command = [sys.executable, "-c", READ_ALL, str(folder), os.devnull]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0:
            raise StoreError(f"{folder}: {DATA} is damaged, it was cut; import the last export into a new folder")
