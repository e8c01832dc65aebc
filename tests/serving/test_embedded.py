"""The embedded store where it may break: killed writers, a full disk, damaged bytes, foreign folders, compaction."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.errors import DamagedRecordError, StoreError
from foretaste.serving.embedded import EmbeddedStore
from foretaste.serving.folder import DATA, compact
from foretaste.serving.store import ABSENT, Change, Stored, Whole
from foretaste.serving.values import key_of, pack, pack_base, unpack, unpack_base
from tests.serving.writer import filled

WRITER = Path(__file__).with_name("writer.py")


def begin(folder: Path, name: str, durability: str = "process", **options: Any) -> subprocess.Popen[str]:
    """A process that writes and says what it has written."""
    command = [sys.executable, str(WRITER), str(folder), name, durability]
    return subprocess.Popen(command, text=True, **{"stdout": subprocess.DEVNULL, **options})


def written(store: EmbeddedStore, number: int) -> None:
    """What the batch `number` wrote is there: whole, and nothing older or half as new."""
    for user in (f"w {number % 7}", f"w {7 + number % 5}"):
        (found,) = store.read([user])
        assert found is not None, (user, number)
        there = int(found.record.split(b"\n", 1)[0])
        assert there >= number
        assert found.record == filled(user, there)
        assert int(store.read_base(user)) == there


def kill_writers(folder: Path, kills: int, durability: str, seed: int) -> int:
    """Begin a writer and kill it at a random moment, again and again; gives how many batches it acknowledged."""
    random_, acknowledged = random.Random(seed), 0
    for _ in range(kills):
        with begin(folder, "w", durability, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline()]
            time.sleep(random_.random() * 0.1)
            writer.kill()
            lines += writer.stdout.readlines()
        said = [int(line) for line in lines if line.endswith("\n")]
        assert said == list(range(len(said)))
        acknowledged += len(said)
        with EmbeddedStore(folder) as store:
            for number in said[-7:]:
                written(store, number)
            assert len(list(store.everyone())) == min(7, len(said)) + min(5, len(said)) or len(said) < 7
            for user in range(12):  # the next writer begins at 0
                store.delete(f"w {user}")
    return acknowledged


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_killed_writer_loses_nothing_acknowledged(tmp_path: Path, durability: str) -> None:
    assert kill_writers(tmp_path / "store", 6, durability, seed=1) > 20


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    assert kill_writers(tmp_path / "store", 200, "process", seed=2) > 2000


def test_a_killed_writer_holds_nobody_up(tmp_path: Path) -> None:
    folder = tmp_path / "store"

    def number(store: EmbeddedStore, user: str) -> int:
        (found,) = store.read([user])
        return -1 if found is None else int(found.record.split(b"\n", 1)[0])

    def waited(store: EmbeddedStore, user: str, more: int) -> None:
        end = time.monotonic() + 20
        while number(store, user) < more:
            assert time.monotonic() < end, f"{user} does not get on"
            time.sleep(0.01)

    with EmbeddedStore(folder) as store:
        survivor = begin(folder, "survivor")
        for _ in range(4):
            victim = begin(folder, "victim")
            waited(store, "victim 3", 10)
            victim.kill()
            victim.wait()
            waited(store, "survivor 3", number(store, "survivor 3") + 70)
            assert store.write([Change("me", ABSENT, b"me")]) == [True]
            assert store.delete("me")
            store.delete("victim 3")
        survivor.kill()
        survivor.wait()


# Room


def test_a_full_map_is_one_error_and_nothing_half_written(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "store", map_size=2**20) as store:
        batches, said = 0, ""
        while not said:
            try:
                store.write([Change(f"{batches} {row}", ABSENT, bytes(3000), b"base") for row in range(10)])
                batches += 1
            except StoreError as error:
                said = str(error)
        assert "the store is full" in said
        assert "map_size" in said
        whole = {f"{batch} {row}" for batch in range(batches) for row in range(10)}
        assert batches > 5
        assert {one.user for one in store.everyone()} == whole
        assert store.delete("0 0")
    with EmbeddedStore(tmp_path / "store", map_size=2**22) as store:
        assert store.write([Change(f"{batches} {row}", ABSENT, bytes(3000)) for row in range(10)]) == [True] * 10
        assert store.report()["users"] == len(whole) + 9


FULL_DISK = """
import json, resource, sys
from foretaste.errors import StoreError
from foretaste.serving.embedded import EmbeddedStore
from foretaste.serving.store import Change
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
store, done = EmbeddedStore(sys.argv[1], sys.argv[2]), 0
try:
    while True:
        store.write([Change(f"{done} {row}", b"", bytes(3000), b"base") for row in range(10)])
        done += 1
except StoreError as error:
    said = str(error)
users = sorted(one.user for one in store.everyone())
try:
    store.ping()
    said = "ready, though nothing can be written"
except StoreError as error:
    assert str(error) == said
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.ping()
again = store.write([Change("later", b"", b"record")])
store.close()
print(json.dumps([said, done, users, again]))
"""


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_full_disk_is_one_error_and_nothing_half_written(tmp_path: Path, durability: str) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "store"), durability]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    said, done, users, again = json.loads(ran.stdout)
    assert "the disk is full or fails" in said
    assert "Make room" in said
    assert done > 5
    assert users == sorted(f"{batch} {row}" for batch in range(done) for row in range(10))
    assert again == [True]  # the same store goes on once there is room
    with EmbeddedStore(tmp_path / "store") as store:
        assert store.report()["users"] == 10 * done + 1


# What may not be opened


@contextmanager
def nobody() -> Iterator[None]:
    """As a user without rights; root may open everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("locked", [".", DATA, "in-use"])
def test_a_folder_without_permission(tmp_path: Path, locked: str) -> None:
    folder = tmp_path / "store"
    EmbeddedStore(folder).close()
    for path in (*tmp_path.parents[:2], tmp_path, folder):
        path.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o666)
    (folder / locked).chmod(0)
    try:
        with nobody(), pytest.raises(StoreError, match=r"store: may not be read and written by this user; mend"):
            EmbeddedStore(folder)
    finally:
        (folder / locked).chmod(0o755)
    EmbeddedStore(folder).close()


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match="a file stands there or on the way to it"):
            EmbeddedStore(place)
    with pytest.raises(StoreError, match="no such folder"):
        EmbeddedStore(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="holds no store of users"):
        EmbeddedStore(tmp_path / "empty", create=False)


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(StoreError, match=r"holds something that is no store \(cat.jpg\)"):
        EmbeddedStore(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / DATA).write_bytes(b"garbage" * 5000)
    with pytest.raises(StoreError, match=r"data.mdb is damaged, or no store at all"):
        EmbeddedStore(tmp_path / "garbage")
    with lmdb.open(str(tmp_path / "theirs")) as env, env.begin(write=True) as step:
        step.put(b"their", b"key")
    with pytest.raises(StoreError, match="holds something that is no store of Foretaste"):
        EmbeddedStore(tmp_path / "theirs")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"format": "foretaste-store", "version": 2}, r"format version 2, and this Foretaste reads up to 1; upgrade"),
        ({"format": "foretaste-store", "version": "1"}, r"format version '1'"),
        ({"format": "another"}, "no store of Foretaste"),
        ([], "no store of Foretaste"),
    ],
)
def test_a_store_of_another_format(tmp_path: Path, said: object, message: str) -> None:
    EmbeddedStore(tmp_path / "store").close()
    with lmdb.open(str(tmp_path / "store"), max_dbs=3) as env, env.begin(write=True) as step:
        step.put(b"format", json.dumps(said).encode(), db=env.open_db(b"about", txn=step))
    with pytest.raises(StoreError, match=message):
        EmbeddedStore(tmp_path / "store")


def test_one_process_opens_a_folder_once_and_no_fork_inherits_it(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store")
    with pytest.raises(StoreError, match="already open in this process; use the store that is open"):
        EmbeddedStore(tmp_path / "store")
    store.write([Change("ann", ABSENT, b"record")])
    child = os.fork()
    if child == 0:
        try:
            store.read(["ann"])
        except StoreError as error:
            os._exit(7 if "opened before a fork" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert store.report()["users"] == 1
    store.close()
    store.close()
    with pytest.raises(StoreError, match="this store was closed"):
        store.read(["ann"])


def test_power_waits_for_the_disk_and_process_does_not(tmp_path: Path) -> None:
    for durability, waits in (("power", True), ("process", False)):
        store = EmbeddedStore(tmp_path / durability, durability, sync_every=0.01)  # type: ignore[arg-type]
        assert store._env.flags()["sync"] is waits
        assert store._env.flags()["metasync"] is waits
        store.write([Change("ann", ABSENT, b"record")])
        end = time.monotonic() + 10
        while store._dirty.is_set() and not waits:  # the thread brings it to the disk soon
            assert time.monotonic() < end
            time.sleep(0.01)
        store.close()


def test_after_the_disk_has_failed_nothing_is_taken_in_and_a_ping_says_why(tmp_path: Path) -> None:
    class Failing:
        """The environment on a disk that does not take what it is given."""

        def __init__(self, env: Any) -> None:
            self.env = env

        def __getattr__(self, name: str) -> Any:
            return getattr(self.env, name)

        def sync(self, force: bool) -> None:
            raise lmdb.DiskError(os.strerror(errno.EIO))

    store = EmbeddedStore(tmp_path / "store", sync_every=0.01)
    store.ping()
    env, store._env = store._env, Failing(store._env)
    store.write([Change("ann", ABSENT, b"record")])
    store._syncing.join(60)
    for ask in (store.ping, lambda: store.write([Change("bob", ABSENT, b"record")])):
        with pytest.raises(StoreError, match=r"the disk is full or fails .*then start the service again"):
            ask()
    assert store.read(["ann", "bob"])[1] is None
    store._env = env
    store.close()


# Damage


def flip(folder: Path, marker: bytes) -> None:
    """Change one bit in every place of the file where `marker` stands."""
    data = bytearray((folder / DATA).read_bytes())
    at, count = data.find(marker), 0
    while at >= 0:
        data[at + len(marker) // 2] ^= 4
        at, count = data.find(marker), count + 1
    assert count
    (folder / DATA).write_bytes(data)


@pytest.mark.parametrize("size", [50, 9000])
@pytest.mark.parametrize("user", ["ann", "a" * 1000])
def test_a_damaged_record_is_never_loaded(tmp_path: Path, size: int, user: str) -> None:
    marker = b"0123456789abcdef"
    with EmbeddedStore(tmp_path / "store") as store:
        store.write([Change(user, ABSENT, marker + bytes(size)), Change("bob", ABSENT, b"well", b"fedcba9876543210")])
    flip(tmp_path / "store", marker)
    with EmbeddedStore(tmp_path / "store") as store:
        with pytest.raises(
            DamagedRecordError, match=r"the record of user .* is damaged .*foretaste store forget"
        ) as bad:
            store.read(["bob", user])
        assert bad.value.user == user
        with pytest.raises(DamagedRecordError):
            list(store.everyone())
        (bob,) = store.read(["bob"])
        assert isinstance(bob, Stored)
        assert bob.record == b"well"
        assert store.sweep(time.time() - 1000) == 0
        assert store.delete(user)
        assert store.read([user]) == [None]
        assert store.write([Change(user, ABSENT, b"new")]) == [True]
    flip(tmp_path / "store", b"fedcba9876543210")
    with EmbeddedStore(tmp_path / "store") as store, pytest.raises(DamagedRecordError, match="base of user 'bob'"):
        store.read_base("bob")


@given(st.binary(max_size=60), st.data())
def test_no_changed_value_is_taken_for_what_was_written(record: bytes, data: st.DataObject) -> None:
    key = key_of("ann")
    for value, read in ((pack(key, 77, record), unpack), (pack_base(key, record), unpack_base)):
        assert read(key, value) is not None
        assert read(key_of("bob"), value) is None
        bit = data.draw(st.integers(0, 8 * len(value) - 1))
        changed = bytearray(value)
        changed[bit // 8] ^= 1 << bit % 8
        assert read(key, bytes(changed)) is None
        assert read(key, value[: data.draw(st.integers(0, len(value) - 1))]) is None


OPEN = """
import sys
from foretaste.errors import StoreError
from foretaste.serving.embedded import EmbeddedStore
try:
    with EmbeddedStore(sys.argv[1]) as store:
        print(sum(1 for _ in store.everyone()))
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_a_file_that_was_cut_is_an_error_and_ends_no_process(tmp_path: Path, share: float) -> None:
    folder = tmp_path / "store"
    with EmbeddedStore(folder) as store:
        for row in range(600):
            store.write([Change(f"user {row}", ABSENT, bytes([row % 256]) * (500 + row))])
    os.truncate(folder / DATA, int(share * (folder / DATA).stat().st_size))
    ran = subprocess.run([sys.executable, "-c", OPEN, str(folder)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "damaged" in ran.stdout


def test_a_file_that_ends_in_pages_nobody_needs_is_well(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with EmbeddedStore(folder) as store:
        store.write([Change("ann", ABSENT, b"record"), Change("large", ABSENT, bytes(2**20))])
        store.delete("large")
        for user in range(20):  # what is used moves to the front
            store.write([Change(f"{user}", ABSENT, b"record")])
    os.truncate(folder / DATA, (folder / DATA).stat().st_size - 2**16)
    with EmbeddedStore(folder) as store:
        assert len(list(store.everyone())) == 21
        assert store.write([Change("large", ABSENT, b"x" * 2**20)]) == [True]
        assert store.read(["large"])[0].record == b"x" * 2**20  # type: ignore[union-attr]


# Compaction


def test_compaction_gives_pages_back_and_keeps_every_user(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with EmbeddedStore(folder) as store:
        store.claim({"model": "narm"})
        store.put_all([Whole(f"user {row}", bytes(5000), b"base", 1000 + row) for row in range(500)])
        store.sweep(1400)
        before = sorted(store.everyone(), key=lambda whole: whole.touched)
        assert store.report()["free_bytes"] > 2_000_000
    (folder / "compacted-left-by-a-kill").mkdir()
    size, now = compact(folder)
    assert now == (folder / DATA).stat().st_size
    assert now < size / 3
    assert {path.name for path in folder.iterdir()} == {DATA, "in-use"}
    assert (folder / DATA).stat().st_mode & 0o777 == 0o600
    with EmbeddedStore(folder) as store:
        assert sorted(store.everyone(), key=lambda whole: whole.touched) == before
        assert store.claim({}) == {"model": "narm"}
        assert store.write([Change("new", ABSENT, b"record")]) == [True]


def test_compaction_and_a_server_keep_each_other_out(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with begin(folder, "server", stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        with pytest.raises(StoreError, match="a server or command has it open; stop it first"):
            compact(folder)
        server.kill()
    with EmbeddedStore(folder), pytest.raises(StoreError, match="already open in this process"):
        compact(folder)
    with (folder / "in-use").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="being compacted; try again later"):
            EmbeddedStore(folder)
    with pytest.raises(StoreError, match="no such folder"):
        compact(tmp_path / "none")
    compact(folder)
