"""What every store promises, asked of each home: compare and set, versions, bases, batches, sweep, export, claim."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from foretaste.errors import ConfigError
from foretaste.serving.embedded import EmbeddedStore
from foretaste.serving.homes import open_store
from foretaste.serving.networked import NetworkedStore
from foretaste.serving.store import ABSENT, Change, MemoryStore, Store, Whole
from tests.serving.redis_server import Server

HOMES = ("memory", "embedded", "networked")
USERS = ("", "42", "}", "a}b{c", "*?[x]", "two words", "ü", "\ud800", "line\nbreak", "x" * 400, "x" * 401, "ü" * 5000)
"""Texts that a JSON body can hold."""


@pytest.fixture(params=HOMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "networked":
        server: Server = request.getfixturevalue("redis_server")
        home = open_store(server.url, namespace=uuid4().hex)
    else:
        home = open_store("memory" if request.param == "memory" else tmp_path / "store")
    yield home
    home.close()


def version(store: Store, user: str) -> bytes:
    (found,) = store.read([user])
    return ABSENT if found is None else found.version


def record(store: Store, user: str) -> bytes | None:
    (found,) = store.read([user])
    return None if found is None else found.record


def test_a_word_opens_the_home_it_names(tmp_path: Path) -> None:
    assert isinstance(open_store("memory"), MemoryStore)
    for url in ("redis://localhost", "rediss://localhost:1/2", "valkey://[::1]:3", "valkeys://me:word@there"):
        assert isinstance(open_store(url), NetworkedStore)
    with open_store(tmp_path / "s", durability="power") as home:  # type: ignore[attr-defined]
        assert isinstance(home, EmbeddedStore)
        assert home.durability == "power"
    with pytest.raises(ConfigError, match=r"no store is behind reddis://; did you mean 'redis'"):
        open_store("reddis://localhost")


@pytest.mark.parametrize(("package", "where"), [("lmdb", "store"), ("redis", "redis://localhost")])
def test_a_package_that_is_not_installed_is_named(package: str, where: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from foretaste.errors import ForetasteError\n"
        "from foretaste.serving.homes import open_store\n"
        "assert open_store('memory').report()['users'] == 0\n"
        f"try: open_store('{where}')\n"
        "except ForetasteError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.endswith(f"needs {package}, which is not installed: pip install 'foretaste[serve]'\n")


def test_a_write_holds_only_from_the_version_that_was_read(store: Store) -> None:
    assert store.read(["ann"]) == [None]
    assert store.write([Change("ann", b"12345678", b"no")]) == [False]
    assert store.write([Change("ann", ABSENT, b"one")]) == [True]
    first = version(store, "ann")
    assert len(first) == 8
    assert store.write([Change("ann", ABSENT, b"no")]) == [False]
    assert store.write([Change("ann", first, b"two")]) == [True]
    assert version(store, "ann") not in (first, ABSENT)
    assert store.write([Change("ann", first, b"no")]) == [False]
    assert record(store, "ann") == b"two"


def test_who_was_forgotten_and_came_back_is_another(store: Store) -> None:
    store.write([Change("ann", ABSENT, b"one")])
    before = version(store, "ann")
    assert store.delete("ann")
    assert not store.delete("ann")
    assert store.read(["ann"]) == [None]
    assert store.write([Change("ann", before, b"no")]) == [False]
    assert store.write([Change("ann", ABSENT, b"one")]) == [True]
    assert version(store, "ann") != before
    assert store.write([Change("ann", before, b"no")]) == [False]


def test_a_base_stays_until_it_is_replaced_or_removed(store: Store) -> None:
    steps: list[tuple[bytes | None, bytes]] = [(None, b""), (b"base", b"base"), (None, b"base"), (b"new", b"new")]
    for base, expected in [*steps, (b"", b""), (b"again", b"again")]:
        assert store.write([Change("ann", version(store, "ann"), b"record", base)]) == [True]
        assert store.read_base("ann") == expected
    assert store.write([Change("ann", ABSENT, b"lost", b"lost")]) == [False]
    assert store.read_base("ann") == b"again"
    store.delete("ann")
    assert store.read_base("ann") == b""
    store.write([Change("ann", ABSENT, b"record")])
    assert store.read_base("ann") == b""


def test_a_batch_says_of_each_change_whether_it_holds(store: Store) -> None:
    names = [f"user {number}" for number in range(64)]
    assert store.write([]) == []
    assert store.read([]) == []
    store.write([Change(name, ABSENT, b"before") for name in names[::3]])
    done = store.write([Change(name, ABSENT, name.encode(), b"base") for name in names])
    assert done == [number % 3 != 0 for number in range(64)]
    found = store.read([*names, "nobody", names[1], names[1]])
    texts = [None if one is None else one.record for one in found]
    assert texts[:64] == [name.encode() if ok else b"before" for name, ok in zip(names, done, strict=True)]
    assert texts[64:] == [None, b"user 1", b"user 1"]
    assert [store.read_base(name) for name in names] == [b"base" if ok else b"" for ok in done]


def test_any_text_is_a_user_and_any_bytes_a_record(store: Store) -> None:
    random_ = random.Random(3)
    wholes = {
        name: Whole(name, random_.randbytes(size), random_.randbytes(size // 2), 1_700_000_000 + size)
        for size, name in enumerate(USERS)
    }
    wholes["large"] = Whole("large", random_.randbytes(200_000), random_.randbytes(70_000), 1)
    wholes["empty"] = Whole("empty", b"", b"", 0)
    store.write([Change("42", ABSENT, b"gone", b"gone")])
    store.put_all(list(wholes.values())[:4])
    for whole in list(wholes.values())[4:]:
        store.put(whole)
    assert {whole.user: whole for whole in store.everyone()} == wholes
    assert [record(store, name) for name in USERS] == [wholes[name].record for name in USERS]
    assert [store.read_base(name) for name in USERS] == [wholes[name].base for name in USERS]
    store.put(Whole("large", b"small", b"", 5))
    assert (record(store, "large"), store.read_base("large")) == (b"small", b"")
    assert all(store.delete(name) for name in wholes)
    assert list(store.everyone()) == []


def test_a_put_is_a_new_version(store: Store) -> None:
    store.write([Change("ann", ABSENT, b"one")])
    before = version(store, "ann")
    store.put(Whole("ann", b"one", b"", 7))
    assert version(store, "ann") != before
    assert store.write([Change("ann", before, b"no")]) == [False]


def test_a_sweep_forgets_who_was_long_gone(store: Store) -> None:
    store.put_all([Whole(f"user {number}", b"r", b"b", 1000 + number) for number in range(1300)])
    store.write([Change("now", ABSENT, b"r")])
    assert store.sweep(1000) == 0
    assert store.sweep(1900.5) == 901
    left = {whole.user for whole in store.everyone()}
    assert left == {"now", *(f"user {number}" for number in range(901, 1300))}
    assert store.read_base("user 5") == b""
    assert store.sweep(time.time() - 60) == 399
    assert store.sweep(time.time() + 60) == 1


def test_what_was_written_is_touched_now(store: Store) -> None:
    store.put(Whole("ann", b"old", b"", 1000))
    store.write([Change("ann", version(store, "ann"), b"new")])
    (whole,) = store.everyone()
    assert abs(whole.touched - time.time()) < 10


def test_a_store_remembers_whose_it_is(store: Store) -> None:
    assert store.claim({}) == {}
    assert store.claim({"model": "narm", "bytes": 8}) == {"model": "narm", "bytes": 8}
    assert store.claim({"model": "dman"}) == {"model": "narm", "bytes": 8}
    assert store.claim({}) == {"model": "narm", "bytes": 8}
    assert store.claim({"model": "dman"}, replace=True) == {"model": "narm", "bytes": 8}
    assert store.claim({"model": "rum"}) == {"model": "dman"}
    assert list(store.everyone()) == []


def test_a_report_counts_users_and_bytes(store: Store) -> None:
    assert store.report()["users"] == 0
    store.put_all([Whole(f"user {number}", bytes(5000), bytes(1000) if number < 3 else b"", 9) for number in range(10)])
    facts = store.report()
    assert facts["users"] == 10
    assert 53_000 <= facts["bytes"] < 150_000
    store.ping()


def test_it_does_what_a_dictionary_does(store: Store) -> None:
    memory, random_, names = MemoryStore(), random.Random(11), [f"u{number}" for number in range(6)]
    held: dict[str, tuple[bytes, bytes]] = dict.fromkeys(names, (ABSENT, ABSENT))
    for step in range(300):
        some = random_.sample(names, random_.randint(1, 4))
        what = random_.random()
        if what < 0.3:  # remember versions, to be used soon or too late
            held.update({name: (version(store, name), version(memory, name)) for name in some})
        elif what < 0.8:
            changes = []
            for name in some:
                base = random_.choice([None, b"", b"base %d" % step])
                changes.append(Change(name, held[name][0], b"%d" % step, base))
            theirs = [replace(change, version=held[change.user][1]) for change in changes]
            assert store.write(changes) == memory.write(theirs)
        elif what < 0.9:
            assert store.delete(some[0]) == memory.delete(some[0])
        else:
            whole = Whole(some[0], b"put %d" % step, b"base", step)
            store.put(whole)
            memory.put(whole)
        assert [record(store, name) for name in names] == [record(memory, name) for name in names]
        assert [store.read_base(name) for name in names] == [memory.read_base(name) for name in names]


def test_threads_lose_no_update(store: Store) -> None:
    def count(times: int) -> None:
        for _ in range(times):
            while True:
                (found,) = store.read(["counter"])
                now = 0 if found is None else int(found.record)
                if store.write([Change("counter", version_of(found), b"%d" % (now + 1))])[0]:
                    break

    def version_of(found: object) -> bytes:
        return ABSENT if found is None else found.version  # type: ignore[attr-defined,no-any-return]

    threads = [threading.Thread(target=count, args=(40,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert record(store, "counter") == b"240"


COUNT = """
import sys
from foretaste.serving.homes import open_store
from foretaste.serving.store import Change
where, namespace, times = sys.argv[1:]
store = open_store(where, namespace=namespace)
for _ in range(int(times)):
    while True:
        (found,) = store.read(["counter"])
        version, now = (b"", 0) if found is None else (found.version, int(found.record))
        if store.write([Change("counter", version, b"%d" % (now + 1))])[0]:
            break
store.close()
"""


@pytest.mark.parametrize("home", HOMES[1:])
def test_processes_lose_no_update(home: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    where, namespace = str(tmp_path / "store"), uuid4().hex
    if home == "networked":
        where = request.getfixturevalue("redis_server").url
    command = [sys.executable, "-c", COUNT, where, namespace, "300"]
    processes = [subprocess.Popen(command) for _ in range(3)]  # the folder is made by whoever comes first
    assert [process.wait() for process in processes] == [0, 0, 0]
    store = open_store(where, namespace=namespace)
    assert record(store, "counter") == b"900"
    store.close()
