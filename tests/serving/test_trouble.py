"""What the service does when something is wrong behind it: too much to do, no store, faults, slowness, a stop."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import BusyError, ConfigError, DamagedRecordError, StoreError, TrainingError
from foretaste.serving import logs
from foretaste.serving.asks import Ask, Event, Told
from foretaste.serving.batcher import Batcher
from foretaste.serving.engine import Engine
from foretaste.serving.limits import ServiceConfig
from foretaste.serving.store import MemoryStore
from tests.serving.fake import fake_app
from tests.serving.running import served
from tests.serving.small import small_app, small_trained
from tests.serving.test_app import assert_problem, event

ITEMS = Vocabulary(["tea", "milk"])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BusyError("7 requests wait already"), 503, "7 requests wait already"),
        (StoreError("states: the disk is full"), 503, "the disk is full"),
        (DamagedRecordError("the record of user 'ann' is damaged", "ann"), 500, "is damaged"),
        (ConfigError("k = 0"), 422, "k = 0"),
        (TrainingError("scored NaN"), 500, "the log of the service"),
        (RuntimeError("a secret"), 500, "the log of the service"),
    ],
)
def test_errors_of_the_engine(error: Exception, status: int, said: str) -> None:
    app, engine, _ = fake_app(ITEMS, ServiceConfig(retry_after=3))
    engine.wrong = error
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.post("/events", json=event())
        assert_problem(answer, status, said)
        assert "secret" not in answer.text
        assert answer.headers.get("retry-after") == ("3" if status == 503 else None)
        engine.explain = engine.user = lambda *_, **__: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
        assert_problem(client.get("/users/ann"), status, said)
        assert_problem(client.post("/explanations", json={"history": ["tea"]}), status, said)


def test_of_several_users_it_is_said_whose_events_were_taken_in() -> None:
    app, engine, batcher = fake_app(ITEMS)
    plain = batcher.ask

    async def ask(one: Any) -> Any:
        if one.user == "bob":
            raise StoreError("the store is gone")
        return await plain(one)

    batcher.ask = ask  # type: ignore[method-assign]
    with TestClient(app, base_url="http://localhost") as client:
        sent = [event(user="ann"), event(user="bob"), event(user="eve"), event(user="ann")]
        answer = client.post("/events", json={"events": sent})
        assert_problem(answer, 503, "the store is gone")
        assert answer.json()["outcomes"] == ["applied", None, "applied", "applied"]
        assert set(engine.kept) == {"ann", "eve"}
        text = client.get("/metrics").text
        assert 'foretaste_events_total{outcome="applied"} 3.0' in text


def test_a_store_that_is_gone_is_not_ready_but_healthy() -> None:
    app, engine = small_app()

    def gone(_: Any) -> Any:
        raise StoreError("redis://localhost: connection refused")

    with TestClient(app, base_url="http://localhost") as client:
        engine.store.read = gone  # type: ignore[method-assign]
        assert_problem(client.get("/ready"), 503, "connection refused")
        assert_problem(client.post("/events", json=event()), 503, "connection refused")
        assert client.get("/health").status_code == 200
        del engine.store.read
        assert client.get("/ready").status_code == 200


def test_what_takes_too_long_is_answered_in_time() -> None:
    app, _, batcher = fake_app(ITEMS, ServiceConfig(timeout=0.05))
    batcher.slow = 5.0
    with TestClient(app, base_url="http://localhost") as client:
        assert_problem(client.post("/events", json=event()), 504, "with the ids of its events")
        assert client.get("/health").status_code == 200


def test_too_much_at_once_is_refused_at_once_and_what_was_taken_is_answered() -> None:
    app, engine = small_app(ServiceConfig(queue=3, batch=1))
    go, plain = threading.Event(), engine.ask_many

    def waiting(asks: Any) -> Any:
        go.wait(20)
        return plain(asks)

    engine.ask_many = waiting  # type: ignore[method-assign]

    async def story() -> tuple[list[int], list[httpx.Response], int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
            sent = [client.post("/events", json=event(user=f"u{n}")) for n in range(10)]
            tasks = [asyncio.create_task(one) for one in sent]
            refused, _ = await asyncio.wait(tasks, timeout=2)
            health = (await client.get("/health")).status_code
            go.set()
            answers = await asyncio.gather(*tasks)
            kept = [(await client.get(f"/users/u{n}")).status_code for n in range(10)]
            assert all(one.result().status_code == 503 for one in refused)
            return kept, answers, health

    kept, answers, health = asyncio.run(story())
    assert health == 200
    statuses = [answer.status_code for answer in answers]
    assert sorted(set(statuses)) == [200, 503]
    assert 3 <= statuses.count(200) <= 4  # three wait, and one may be in work
    assert kept == [200 if status == 200 else 404 for status in statuses]
    for answer in answers:
        if answer.status_code == 503:
            assert_problem(answer, 503, "requests wait already")
            assert answer.headers["retry-after"] == "1"


def test_a_large_request_does_not_fill_the_queue() -> None:
    app, _ = small_app(ServiceConfig(queue=64, events=1000))
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.post("/events", json={"events": [event(user=n) for n in range(1000)]})
        assert answer.json() == {"outcomes": 1000 * ["applied"], "unknown": []}


def test_bodies_that_do_not_come_to_an_end() -> None:
    head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    app, _ = small_app(ServiceConfig(timeout=0.5))
    with served(app) as url:
        place = (urlsplit(url).hostname, urlsplit(url).port)

        def answered(*sent: bytes) -> bytes:
            with socket.create_connection(place, timeout=20) as connection:
                with suppress(ConnectionError):  # it may be refused before all is sent
                    for part in sent:
                        connection.sendall(part)
                return connection.recv(4096).split(b"\r\n")[0]

        chunk = b"ffff\r\n" + 0xFFFF * b"x" + b"\r\n"
        assert b" 413 " in answered(head + b"Content-Length: 9000000\r\n\r\n")
        assert b" 413 " in answered(head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 17)
        assert b" 504 " in answered(head + b"Content-Length: 100\r\n\r\n{")
        assert b" 400 " in answered(head + b"Content-Length: many\r\n\r\n{}")
        for _ in range(50):  # and some hang up
            with socket.create_connection(place) as connection:
                connection.sendall(head + b"Content-Length: 100\r\n\r\n{")
        end = time.monotonic() + 20
        while "foretaste_open_requests 1.0" not in (text := httpx.get(f"{url}/metrics").text).splitlines():
            assert time.monotonic() < end, text
        assert 'foretaste_requests_total{method="POST",route="/events",status="499"} 50.0' in text


def test_the_end_finishes_what_waits_and_closes() -> None:
    app, engine, _ = fake_app(ITEMS)
    with TestClient(app, base_url="http://localhost"):
        assert not engine.closed
    assert engine.closed
    assert engine.asked[-1].user == "closed"


def test_the_log_is_json_without_names(capfd: pytest.CaptureFixture[str]) -> None:
    app, engine, _ = fake_app(ITEMS)
    logs.begin("info")
    try:
        with TestClient(app, base_url="http://localhost") as client:
            client.post("/events", json=event(user="private person"))
            client.get("/users/private%20person")
            engine.wrong = RuntimeError("boom")
            broken = client.post("/events", json=event())
    finally:
        logs.LOGGER.handlers, logs.LOGGER.propagate = [], True
        logs.LOGGER.setLevel(logging.NOTSET)
    text = capfd.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    assert "private" not in text
    routes = [(line["method"], line["route"], line["status"]) for line in lines if line["message"] == "request"]
    assert routes == [("POST", "/events", 200), ("GET", "/users/{user}", 200), ("POST", "/events", 500)]
    (fault,) = [line for line in lines if line["level"] == "error"]
    assert "RuntimeError: boom" in fault["trace"]
    assert fault["request"] == broken.json()["request"]
    assert all(line["ms"] >= 0 for line in lines if line["message"] == "request")


def test_a_fault_of_one_ask_is_not_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(small_trained(), MemoryStore())
    plain, batches = engine.ask_many, []

    def ask_many(asks: Sequence[Ask]) -> Any:
        batches.append(len(asks))
        if any(ask.user == "bad" for ask in asks):
            raise IndexError("a fault")
        return plain(asks)

    monkeypatch.setattr(engine, "ask_many", ask_many)
    asks = [
        Ask("ann", k=2), Ask("bad", k=2), Ask("bob", [Event("tea", 1.0, id="e1")]), Ask("eve", [Event("tea", 1.0)]),
    ]  # fmt: skip
    told = asyncio.run(asked(engine, asks, batch=4))
    assert [type(one) for one in told] == [Told, IndexError, Told, IndexError]  # eve's event may be in: not again
    assert batches == [4, 1, 1, 1]
    assert engine.user("bob") is not None


def test_a_batch_has_an_end_by_the_events_in_it() -> None:
    engine = Engine(small_trained(), MemoryStore())
    asks = [Ask(history=[Event("tea", 1.0)] * 6000, k=1)] * 4 + [Ask(history=[Event("tea", 1.0)], k=1)]
    counts: dict[str, int] = {}
    told = asyncio.run(asked(engine, asks, batch=64, counts=counts))
    assert len({one.recommendations.ids[0] for one in told[:4]}) == 1
    assert counts == {"batches": 3, "asks": 5}


async def asked(engine: Engine, asks: Sequence[Ask], batch: int, counts: dict[str, int] | None = None) -> list[Any]:
    """All asks at once, put into the queue while the engine's thread is at something else."""
    batcher, begin = Batcher(engine, batch=batch), threading.Event()
    holding = asyncio.ensure_future(batcher.call(begin.wait))
    waiting = [asyncio.ensure_future(batcher.ask(ask)) for ask in asks]
    await asyncio.sleep(0.05)
    begin.set()
    await holding
    told = await asyncio.gather(*waiting, return_exceptions=True)
    batcher.close()
    if counts is not None:
        counts.update(batcher.counts)
    return told
