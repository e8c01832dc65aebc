"""The networked store where it may break: a server that is gone, frozen, full, read-only, or not ours."""

from __future__ import annotations

import json
import socket
import time
from uuid import uuid4

import pytest

from foretaste.errors import ConfigError, DamagedRecordError, StoreError
from foretaste.serving.homes import open_store
from foretaste.serving.networked import NetworkedStore
from foretaste.serving.store import ABSENT, Change, Whole
from tests.serving.redis_server import Server


def fresh(server: Server, **options: float) -> NetworkedStore:
    """A store in a namespace that nobody had."""
    return NetworkedStore(server.url, uuid4().hex, **options)  # type: ignore[arg-type]


def record(store: NetworkedStore, user: str) -> bytes | None:
    (found,) = store.read([user])
    return None if found is None else found.record


def test_both_keys_of_a_user_share_a_slot(redis_server: Server) -> None:
    store = NetworkedStore(redis_server.url, "shop-7")
    store.write([Change("}42{", ABSENT, b"record", b"base")])
    with redis_server.client() as client:
        keys = sorted(client.keys("shop-7:*"))
        assert keys == [b"shop-7:{user:}42{}:b", b"shop-7:{user:}42{}:r"]
    assert store.delete("}42{")
    with pytest.raises(ConfigError, match=r"namespace 'a\{b': use letters"):
        NetworkedStore(redis_server.url, "a{b")


def test_namespaces_do_not_see_each_other(redis_server: Server) -> None:
    one, other = fresh(redis_server), fresh(redis_server)
    one.write([Change("ann", ABSENT, b"one")])
    one.claim({"model": "narm"})
    assert other.read(["ann"]) == [None]
    assert other.claim({"model": "rum"}) == {"model": "rum"}
    assert list(other.everyone()) == []
    assert other.sweep(time.time() + 100) == 0
    assert record(one, "ann") == b"one"


def test_a_large_store_is_walked_once_over(redis_server: Server) -> None:
    store = fresh(redis_server)
    store.put_all([Whole(f"{row}", b"r", b"", row) for row in range(3000)])
    assert sorted(int(whole.user) for whole in store.everyone()) == list(range(3000))
    facts = store.report()
    assert (facts["users"], facts["bases"]) == (3000, 0)
    assert facts["eviction"] == "noeviction"
    assert facts["appendonly"] is False


def test_without_a_ttl_a_base_written_under_one_stays(redis_server: Server) -> None:
    with NetworkedStore(redis_server.url, "was-ttl", ttl=60) as store:
        assert store.write([Change("ann", ABSENT, b"one", b"base")]) == [True]
    with NetworkedStore(redis_server.url, "was-ttl") as store:
        (stored,) = store.read(["ann"])
        assert stored is not None
        assert store.write([Change("ann", stored.version, b"two")]) == [True]
    with redis_server.client() as client:
        assert [client.pttl(f"was-ttl:{{user:ann}}:{part}") for part in "rb"] == [-1, -1]


def test_the_server_forgets_a_user_after_the_ttl(redis_server: Server) -> None:
    store = fresh(redis_server, ttl=100)
    store.write([Change("ann", ABSENT, b"record", b"base")])
    with redis_server.client() as client:

        def left(user: str) -> list[int]:
            return [client.pttl(key) for key in store._keys(user)]  # type: ignore[misc]

        assert all(95_000 < one <= 100_000 for one in left("ann"))
        for key in store._keys("ann"):
            client.pexpire(key, 5000)
        (found,) = store.read(["ann"])
        assert found is not None
        store.write([Change("ann", found.version, b"record")])  # the base that stays lives on with it
        assert all(95_000 < one <= 100_000 for one in left("ann"))
        store.put(Whole("bob", b"record", b"base", int(time.time()) - 40))
        assert all(55_000 < one <= 60_000 for one in left("bob"))
        store.put(Whole("old", b"record", b"base", 1000))
    short = NetworkedStore(redis_server.url, store.namespace, ttl=0.05)
    short.write([Change("eve", ABSENT, b"record", b"base")])
    time.sleep(0.2)
    assert store.read(["eve", "old"]) == [None, None]
    assert store.read_base("eve") == b""
    assert {whole.user for whole in store.everyone()} == {"ann", "bob"}


def test_a_server_that_was_killed_and_came_back_has_everything_acknowledged(own_server: Server) -> None:
    store = fresh(own_server, timeout=0.5)
    assert store.report()["appendonly"] is True
    for row in range(200):
        assert store.write([Change(f"{row} {other}", ABSENT, b"%d" % row, b"base") for other in range(3)]) == [True] * 3
    own_server.kill()
    for call in (store.ping, lambda: store.write([Change("ann", ABSENT, b"no")]), store.report):
        with pytest.raises(StoreError, match=r"redis://127.0.0.1:\d+/0: cannot be reached .* next call tries again"):
            call()
    with pytest.raises(StoreError, match="cannot be reached"):
        list(store.everyone())
    own_server.start()
    assert store.write([Change("ann", ABSENT, b"back")]) == [True]  # its script is new to the server
    found = {whole.user: whole for whole in store.everyone()}
    assert len(found) == 601
    assert all(found[f"{row} 2"].record == b"%d" % row for row in range(200))
    assert found["7 1"].base == b"base"


def test_a_server_that_has_lost_its_scripts_gets_them_again(redis_server: Server) -> None:
    store = fresh(redis_server)
    for number in range(3):
        with redis_server.client() as client:
            client.script_flush()
        assert store.write([Change(f"{number} {row}", ABSENT, b"record") for row in range(5)]) == [True] * 5


def test_a_server_that_does_not_answer_is_not_waited_for(own_server: Server) -> None:
    store = fresh(own_server, timeout=0.3)
    store.write([Change("ann", ABSENT, b"ann"), Change("bob", ABSENT, b"bob")])
    own_server.freeze(True)
    try:
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"did not answer within 0.3 s; the next call tries again"):
            store.read(["ann"])
        assert time.monotonic() - began < 2
    finally:
        own_server.freeze(False)
    assert record(store, "bob") == b"bob"  # and not the late answer to the question before
    assert record(store, "ann") == b"ann"


def test_a_full_server_is_one_error_and_nothing_half_written(own_server: Server) -> None:
    store = fresh(own_server)
    store.put(Whole("old", b"record", b"base", 99))
    store.write([Change("ann", ABSENT, b"one", b"base")])
    (before,) = store.read(["ann"])
    assert before is not None
    with own_server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match=r"its memory is full .*foretaste store sweep"):
            store.write([Change("ann", before.version, b"two", b"new"), Change("bob", ABSENT, b"record", b"base")])
        assert store.read(["ann", "bob"]) == [before, None]
        assert (store.read_base("ann"), store.read_base("bob")) == (b"base", b"")
        assert store.sweep(1000) == 1  # what makes room is not refused
        assert store.delete("ann")
        assert list(store.everyone()) == []
        client.config_set("maxmemory", 0)
    assert store.write([Change("bob", ABSENT, b"record", b"base")]) == [True]


def test_a_replica_that_may_only_be_read(own_server: Server) -> None:
    store = fresh(own_server)
    store.write([Change("ann", ABSENT, b"record")])
    with own_server.client() as client:
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreError, match="is a read-only replica; give the URL of the primary"):
            store.write([Change("bob", ABSENT, b"record")])
        client.replicaof("NO", "ONE")
    assert store.write([Change("bob", ABSENT, b"record")]) == [True]


def test_no_message_holds_a_password(own_server: Server) -> None:
    word = "s3cret/%23@x"
    with own_server.client() as client:
        client.config_set("requirepass", "another")
    said = []
    for url in (
        f"redis://:s3cret-word@127.0.0.1:{own_server.port}/0",
        f"redis://me:s3cret-word@127.0.0.1:{own_server.port}/0?health_check_interval=3",
        f"redis://127.0.0.1:{own_server.port}/0?password=s3cret-word",
        f"redis://127.0.0.1:{own_server.port}",
        "redis://:s3cret-word@127.0.0.1:1/0",
        "rediss://:s3cret-word@127.0.0.1:1/0",
        f"redis://:{word}@127.0.0.1:1/0",
        "redis://:s3cret-word@127.0.0.1:port/0",
        "redis://:s3cret-word@127.0.0.1:99999/0",
        "redis://127.0.0.1/0?socket_timeout=s3cret-word",
        "redis://:s3cret-word@[::1/0",
    ):
        with pytest.raises((StoreError, ConfigError)) as error:
            open_store(url).ping()
        said.append(str(error.value))
        assert "s3cret" not in said[-1], url
        assert error.value.__cause__ is None
    assert all("refused the user name or password; mend the URL" in text for text in said[:4])


def test_a_damaged_value_is_never_loaded(redis_server: Server) -> None:
    store = fresh(redis_server)
    store.write([Change(user, ABSENT, b"record", b"base") for user in ("ann", "bob", "eve")])
    with redis_server.client() as client:
        client.setrange(store._keys("ann")[0], 17, b"x")
        client.setrange(store._keys("bob")[1], 6, b"x")
        client.set(store._keys("cut")[0], b"short")
        client.rename(store._keys("eve")[0], store._keys("moved")[0])
    for user in ("ann", "cut", "moved"):
        with pytest.raises(DamagedRecordError, match=f"record of user '{user}' is damaged .*store forget") as error:
            store.read(["bob", user])
        assert error.value.user == user
    with pytest.raises(DamagedRecordError, match="base of user 'bob'"):
        store.read_base("bob")
    assert record(store, "bob") == b"record"
    assert store.sweep(time.time() - 100) == 0
    for user in ("ann", "cut", "moved"):
        assert store.delete(user)
        assert store.write([Change(user, ABSENT, b"new")]) == [True]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (json.dumps({"format": "foretaste-store", "version": 2, "facts": {}}), "format version 2, and this Foretaste"),
        ("no json", "holds something that is no store of Foretaste"),
        ("[1]", "holds something that is no store of Foretaste"),
    ],
)
def test_a_namespace_of_another_format(redis_server: Server, said: str, message: str) -> None:
    store = fresh(redis_server)
    with redis_server.client() as client:
        client.set(f"{store.namespace}:facts", said)
    for call in (lambda: store.read(["ann"]), lambda: store.claim({"model": "narm"})):
        with pytest.raises(StoreError, match=message):
            call()


def test_a_key_of_another_kind_is_a_clear_error(redis_server: Server) -> None:
    store = fresh(redis_server)
    with redis_server.client() as client:
        client.lpush(store._keys("ann")[0], "x")
    with pytest.raises(StoreError, match=r"refused: .*(WRONGTYPE|wrong kind of value)"):
        store.write([Change("ann", ABSENT, b"record")])


def test_a_place_where_something_else_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        store = NetworkedStore(f"redis://127.0.0.1:{other.getsockname()[1]}", timeout=0.2)
        with pytest.raises(StoreError, match=r"did not answer within 0.2 s"):
            store.ping()
