"""The client, and the replay of a log through it, against a service in a thread."""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste import Client
from foretaste.commands import replay
from foretaste.errors import BusyError, ConfigError, ForetasteError
from foretaste.serving import client as client_module
from foretaste.serving.engine import Engine
from foretaste.serving.keys import Keys, hashed
from tests.serving.running import served
from tests.serving.small import small_app, small_trained
from tests.shell import Shell

SECRET = "a long secret for tests"


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[str, Engine]]:
    app, engine = small_app(keys=Keys({hashed(SECRET): "admin"}))
    with served(app) as url:
        yield url, engine


@pytest.fixture
def client(place: tuple[str, Engine]) -> Client:
    return Client(place[0], SECRET)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_every_method(client: Client) -> None:
    trained = small_trained()
    answer = client.observe("a/b ü", "tea", time=1.7e9, session="s", k=2, exclude=["rum"])
    assert answer["outcomes"] == ["applied"]
    assert "rum" not in [one["item"] for one in answer["recommendations"]]
    more = [{"user": "a/b ü", "item": "milk", "time": 1.7e9 + n, "session": "s"} for n in (1, 2)]
    assert client.observe_many(more)["outcomes"] == ["applied", "applied"]
    wanted = trained.recommend(["tea", "milk", "milk"], 3).ids
    assert [one["item"] for one in client.recommend("a/b ü", 3)] == wanted
    assert [one["item"] for one in client.recommend(history=["tea", "milk", "milk"], k=3)] == wanted
    kept = client.user("a/b ü")
    assert kept is not None
    assert (kept["seen"], kept["remembered"]) == (3, 3)  # each got an id
    assert [one["item"] for one in client.explain("a/b ü")["attention"]] == ["tea", "milk", "milk"]
    assert [one["item"] for one in client.explain(history=["rum"], item="tea")["attention"]] == ["rum"]
    assert [one["item"] for one in client.similar_items("a/b", 2)] == trained.similar_items("a/b", 2).ids
    assert [one["item"] for one in client.search("RUM")] == ["rum"]
    assert (client.forget("a/b ü"), client.forget("a/b ü"), client.user("a/b ü")) == (True, False, None)


def test_errors_carry_the_detail(place: tuple[str, Engine], client: Client) -> None:
    with pytest.raises(ForetasteError, match=r"k: .*greater than or equal to 1.*\(status 422\)"):
        client.recommend("ann", 0)
    with pytest.raises(ForetasteError, match="not known"):
        client.similar_items("gin")
    with pytest.raises(ForetasteError, match="status 401"):
        Client(place[0]).user("ann")
    with pytest.raises(ConfigError, match="cannot be sent"):
        client.observe("ann", "tea", time=float("nan"))
    for url in ("127.0.0.1:8000", "ftp://x", "http://", "http://x:port"):
        with pytest.raises(ConfigError, match="expected the address"):
            Client(url)


def test_one_client_serves_many_threads(client: Client) -> None:
    outcomes: list[str] = []

    def observe(user: int) -> None:
        for n in range(20):
            outcomes.extend(client.observe(f"many {user}", "tea", time=1.7e9 + n)["outcomes"])

    threads = [threading.Thread(target=observe, args=(user,)) for user in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == 160 * ["applied"]


def test_after_a_fork_the_socket_is_the_parents(client: Client) -> None:
    client.user("ann")
    parents = client._mine.connection
    client._mine.process = -1  # as a child finds it
    client.user("ann")
    assert client._mine.connection is not parents
    assert client._mine.process == os.getpid()


def test_writers_of_one_user_end_in_some_order_of_all_events(place: tuple[str, Engine], client: Client) -> None:
    def observe(writer: int) -> None:
        for n in range(15):
            client.observe(
                "shared", "tea" if (writer + n) % 3 else "rum", time=1.7e9 + 100 * n + writer, id=f"{writer}-{n}"
            )

    threads = [threading.Thread(target=observe, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = client.user("shared")
    assert kept is not None
    times = [one["time"] for one in kept["events"]]
    assert times == sorted(times) == sorted(1.7e9 + 100 * n + writer for n in range(15) for writer in range(6))
    history = [one["item"] for one in kept["events"]]
    wanted = small_trained().recommend(history, 7)
    found = client.recommend("shared", 7)
    assert [one["item"] for one in found] == wanted.ids
    assert [one["score"] for one in found] == pytest.approx(wanted.scores, abs=1e-5)


@contextmanager
def scripted(*answers: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers each request with the next of these."""
    left, bodies = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
            left.pop(0)(self)

        do_DELETE = do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", bodies
        finally:
            server.shutdown()
            thread.join()


def drop(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Hang up without an answer."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def busy(handler: http.server.BaseHTTPRequestHandler) -> None:
    answer(handler, 503, {"detail": "too much to do"}, {"Retry-After": "0"})


def well(handler: http.server.BaseHTTPRequestHandler) -> None:
    answer(handler, 200, {"outcomes": ["applied"], "unknown": []})


def late(handler: http.server.BaseHTTPRequestHandler) -> None:
    answer(handler, 504, {"detail": "the answer took too long"})


def broken(handler: http.server.BaseHTTPRequestHandler) -> None:
    answer(handler, 500, {"detail": "something went wrong"})


def answer(
    handler: http.server.BaseHTTPRequestHandler, status: int, facts: Any, headers: dict[str, str] | None = None
) -> None:
    body = json.dumps(facts).encode()
    handler.send_response(status)
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def test_a_lost_answer_is_asked_for_again_with_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSE", 0.001)
    with scripted(drop, busy, drop, well) as (url, bodies):
        client = Client(url)
        assert client.observe("ann", "tea")["outcomes"] == ["applied"]
        client.close()
    assert len(bodies) == 4
    assert len(set(bodies)) == 1
    assert len(json.loads(bodies[0])["events"][0]["id"]) == 24


def test_what_stays_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSE", 0.001)
    with scripted(*[busy] * 9) as (url, bodies):
        client = Client(url)
        with pytest.raises(BusyError, match="too much to do"):
            client.recommend("ann")
        client.close()
        assert len(bodies) == client_module.TRIES
    with scripted(broken, well) as (url, bodies):
        client = Client(url)
        with pytest.raises(ForetasteError, match="something went wrong"):
            client.observe("ann", "tea")
        client.close()
        assert len(bodies) == 1
    with pytest.raises(ForetasteError, match="is the service running there"):
        Client(url, timeout=1).search("tea")


def test_an_event_that_took_too_long_is_sent_again_with_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSE", 0.001)
    with scripted(late, late, well) as (url, bodies):
        client = Client(url)
        client.observe("ann", "tea")
        client.close()
    assert len(bodies) == 3
    assert len({json.loads(body)["events"][0]["id"] for body in bodies}) == 1


def test_numbers_of_numpy_and_moments_are_sent(client: Client) -> None:
    when = datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert client.observe(np.int64(81), np.int64(5), time=when, session=np.int32(1))["outcomes"] == ["applied"]
    kept = client.user(np.int64(81))
    assert kept is not None
    assert [(one["item"], one["time"], one["session"]) for one in kept["events"]] == [("5", when.timestamp(), 1)]
    assert client.observe(81, "tea", time=np.float32(1.75e9))["outcomes"] == ["late"]


def test_what_is_no_text_is_not_sent() -> None:
    client = Client("http://127.0.0.1:9")
    for call in (client.user, client.forget, client.search, client.similar_items, client.explain):
        with pytest.raises(ConfigError, match="lone surrogate"):
            call("\ud800")


def test_a_session_without_a_user_is_not_the_user_of_that_name(
    shell: Shell, place: tuple[str, Engine], client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "log.csv"
    file.write_text("user,session,item,time\n71,1,tea,1700000000\n,71,milk,1700000001\n,72,rum,1700000002\n")
    answer = shell.well("replay", file, "--to", place[0], "--key", SECRET, *OPTIONS)
    assert "1 sessions without a user are called as a user is" in answer.out
    file.write_text("user,session,item,time\n73,1,tea,1700000000\n73,1,,1700000001\n73,1,tea,\n")
    answer = shell.well("replay", file, "--to", place[0], "--key", SECRET, *OPTIONS)
    assert "2 rows of the log cannot be used and were not sent" in answer.out
    found = {who: client.user(who) for who in (71, "session:71", 72)}
    assert {who: [one["item"] for one in kept["events"]] for who, kept in found.items() if kept} == {
        71: ["tea"], "session:71": ["milk"], 72: ["rum"],
    }  # fmt: skip


LOG = """user,session,item,time
ann,1,tea,1700000000
,2,milk,1700000030
ann,1,rum,1700000010
ann,3,gin,1700000060
ann,3,tea,1700000060
"""
OPTIONS = ("--user", "user", "--session", "session", "--item", "item", "--time", "time")


def test_a_log_is_replayed_in_time_order_and_only_once(
    shell: Shell, place: tuple[str, Engine], client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "log.csv"
    file.write_text(LOG)
    words = ("replay", file, "--to", place[0], "--key", SECRET, *OPTIONS, "--json")
    assert shell.well(*words).json == {"events": 5, "outcomes": {"applied": 5}}
    assert shell.well(*words).json == {"events": 5, "outcomes": {"duplicate": 5}}
    file.write_text(LOG + "ann,3,milk,1700000061\n")
    assert shell.well(*words).json == {"events": 6, "outcomes": {"applied": 1, "duplicate": 5}}
    kept, other = client.user("ann"), client.user(2)
    assert kept is not None
    assert other is not None
    assert [(one["item"], one["time"] - 1.7e9, one["session"]) for one in kept["events"]] == [
        ("tea", 0, 1),
        ("rum", 10, 1),
        ("gin", 60, 3),
        ("tea", 60, 3),
        ("milk", 61, 3),
    ]
    assert [one["item"] for one in other["events"]] == ["milk"]


def test_the_speed_of_a_replay() -> None:
    events = [{"time": 1.7e9 + 10.0 * n, "n": n} for n in range(6)]
    begun = time.monotonic()
    gone = [([one["n"] for one in batch], time.monotonic() - begun) for batch in replay.batches(iter(events), 100.0)]
    assert [n for batch, _ in gone for n in batch] == list(range(6))
    for batch, when in gone:
        assert when >= 0.1 * batch[-1] - 0.01
    fast = list(replay.batches(iter([{"n": n} for n in range(1200)]), None))
    assert [len(batch) for batch in fast] == [500, 500, 200]
    assert list(replay.batches(iter([]), None)) == []
    assert [replay.factor(word) for word in ("max", "60x", "0.5", "1x")] == [None, 60, 0.5, 1]


def test_a_replay_that_is_interrupted_says_how_far_it_came(
    shell: Shell, place: tuple[str, Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log.csv"
    file.write_text(LOG)
    plain, calls = Client.observe_many, iter([2])

    def observe(client: Client, events: Any, **choice: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return plain(client, events, **choice)

    monkeypatch.setattr(Client, "observe_many", observe)
    monkeypatch.setattr(replay, "AT_ONCE", 3)
    ran = shell("replay", file, "--to", place[0], "--key", SECRET, *OPTIONS)
    assert ran.status == 130
    assert ran.err == "foretaste: interrupted after 3 of 5 events; sent again, none counts twice that it remembers\n"


def test_what_replay_refuses(shell: Shell, place: tuple[str, Engine], tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text(LOG)
    order = ("--user", "user", "--item", "item", "--order", "time")
    for words, said in [
        (("--to", "nowhere", *OPTIONS), "expected the address of a service"),
        (("--to", place[0], *OPTIONS, "--speed", "fast"), "speed = 'fast'"),
        (("--to", place[0], *OPTIONS, "--speed", "0x"), "speed = '0x'"),
        (("--to", place[0], *order, "--speed", "2x"), "has no times"),
        (("--to", place[0], "--user", "user"), "--item"),
        (("--to", place[0], *OPTIONS), "after 0 of 5 events: .*a key is needed"),
    ]:
        ran = shell("replay", file, *words)
        assert ran.status == 2
        assert re.search(said, " ".join(ran.err.split())), ran.err
