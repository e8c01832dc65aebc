"""The service as a person starts it: several processes on loopback, killed, stopped and misused."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient

from foretaste.commands.serve import greeting
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ForetasteError
from foretaste.models.asars import ASARS
from foretaste.models.contract import seeded
from foretaste.models.saved import Trained
from foretaste.serving.worker import Plan, build
from tests.serving.running import PATIENCE, Running
from tests.serving.small import small_trained
from tests.shell import Shell

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_trained().save(tmp_path_factory.mktemp("serve") / "run")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def until(true: object, what: str) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + PATIENCE
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_two_workers_one_killed_then_all_stopped(run: Path, tmp_path: Path) -> None:
    store = tmp_path / "users"
    with Running(run, "--workers", 2, "--store", store, "--log-level", "warning") as service:
        client = service.client()
        for line in service.said[1:]:  # the three calls that it prints
            words = shlex.split(line)
            assert words[0] == "curl"
            assert words[-1].startswith(service.url)
        assert client.observe("ann", "tea", time=1.7e9, id="e1", k=3)["outcomes"] == ["applied"]
        first = set(service.workers())
        assert len(first) == 2
        killed = min(first)
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(set(service.workers()) - {killed}) == 2, "another worker")
        assert client.observe("ann", "tea", time=1.7e9, id="e1")["outcomes"] == ["duplicate"]
        assert client.observe("ann", "milk", time=1.7e9 + 1)["outcomes"] == ["applied"]
        assert any(f"worker {killed} is gone (signal 9)" in line for line in service.logged)
        until(lambda: metric(service.url, 'foretaste_events_total{outcome="applied"}') == 2, "counts of both processes")
        assert service.stop() == 0
        assert service.process.stdout is not None
        assert service.process.stdout.read() == ""
    with Running(run, "--store", store, "--history", 50, "--set", "k=2") as service:
        kept = service.client().user("ann")
        assert kept is not None
        assert [event["item"] for event in kept["events"]] == ["tea", "milk"]
        with pytest.raises(ForetasteError, match="k: 3, at most 2"):
            service.client().recommend("ann", 3)
        until(lambda: service.logged, "a line in the log")  # it is read by a thread of its own
        lines = [json.loads(line) for line in service.logged]
        assert {line["message"] for line in lines} == {"request"}
        assert service.stop(signal.SIGINT) == 0
        assert not any("Traceback" in line or "interrupted" in line for line in service.logged)


def metrics_of(worker: int) -> Path:
    """The folder where a worker counts."""
    variables = dict(pair.partition("=")[::2] for pair in Path(f"/proc/{worker}/environ").read_text().split("\0"))
    return Path(variables["PROMETHEUS_MULTIPROC_DIR"])


def test_workers_whose_supervisor_was_killed_end_and_leave_nothing(run: Path, tmp_path: Path) -> None:
    with Running(run, "--workers", 2, "--store", tmp_path / "users") as service:
        workers = service.workers()
        (folder,) = {metrics_of(worker) for worker in workers}
        assert any(folder.iterdir())
        service.process.kill()
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "the end of the workers")
        assert not folder.exists()


def test_a_service_whose_metrics_were_cleared_away_goes_on(run: Path, tmp_path: Path) -> None:
    with Running(run, "--store", tmp_path / "users", "--log-level", "warning") as service:
        client, (worker,) = service.client(), service.workers()
        shutil.rmtree(metrics_of(worker))
        assert client.observe("ann", "tea", time=1.7e9, id="e1", k=3)["outcomes"] == ["applied"]
        assert metric(service.url, "foretaste_none") == 0
        os.kill(worker, signal.SIGKILL)
        until(lambda: set(service.workers()) - {worker}, "another worker")
        assert client.observe("ann", "tea", time=1.7e9, id="e1")["outcomes"] == ["duplicate"]
        assert client.observe("ann", "milk", time=1.7e9 + 1)["outcomes"] == ["applied"]
        until(lambda: metric(service.url, 'foretaste_events_total{outcome="applied"}') == 1, "the new worker's count")
        assert service.stop() == 0


def metric(url: str, name: str) -> float:
    """One of the metrics."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


def test_a_stop_answers_what_was_asked(run: Path, tmp_path: Path) -> None:
    with Running(run, "--store", tmp_path / "users", "--set", "wait_ms=300") as service:
        outcomes: list[str] = []

        def observe(user: str) -> None:
            outcomes.extend(service.client().observe(user, "tea")["outcomes"])

        asking = [threading.Thread(target=observe, args=(f"u{n}",)) for n in range(8)]
        for thread in asking:
            thread.start()
        until(lambda: metric(service.url, "foretaste_open_requests") > 8, "eight open requests")
        assert service.stop() == 0
        for thread in asking:
            thread.join(PATIENCE)
        assert outcomes == 8 * ["applied"]


@pytest.mark.parametrize("workers", [1, 2])
def test_while_it_stops_who_connects_is_refused_and_not_left_waiting(run: Path, tmp_path: Path, workers: int) -> None:
    with Running(run, "--store", tmp_path / "users", "--workers", workers, "--set", "timeout=5") as service:
        place = (urlsplit(service.url).hostname, urlsplit(service.url).port)

        def refused() -> bool:
            try:
                socket.create_connection(place).close()
            except ConnectionRefusedError:
                return True
            return False

        with socket.create_connection(place, timeout=PATIENCE) as slow:
            slow.sendall(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            slow.sendall(b"Content-Length: 9\r\n\r\n{")
            until(lambda: metric(service.url, "foretaste_open_requests") > 1, "an open request")
            service.process.send_signal(signal.SIGTERM)
            until(refused, "a refusal")
            assert service.process.poll() is None
            assert slow.recv(4096).startswith(b"HTTP/1.1 504")
        assert service.stop() == 0


def test_workers_go_with_their_supervisor(run: Path, tmp_path: Path) -> None:
    with Running(run, "--store", tmp_path / "users") as service:
        (worker,) = service.workers()
        service.process.kill()
        until(lambda: not Path(f"/proc/{worker}/cmdline").exists() or not Path(f"/proc/{worker}/cmdline").read_bytes(),
              "the end of the worker")  # fmt: skip


def test_the_store_of_another_model_is_refused_and_replayed_on_request(run: Path, tmp_path: Path) -> None:
    other = small_trained([*"abcdefg"]).save(tmp_path / "other")
    store = tmp_path / "users"
    with Running(other, "--store", store) as service:
        service.client().observe("ann", "tea", time=1.7e9)
        assert service.stop() == 0
    with Running(run, "--store", store) as service:
        assert service.process.wait(PATIENCE) == 2
        service._reading.join(5)
        assert service.said == []
        assert len(service.logged) <= 2
        assert "another model" in service.logged[0]
        assert "--replay" in "".join(service.logged)
    with Running(run, "--store", store, "--replay") as service:
        wanted = small_trained().recommend(["tea"], 3).ids
        assert [one["item"] for one in service.client().recommend("ann", 3)] == wanted
        assert service.stop() == 0


def test_keys_from_the_environment(run: Path) -> None:
    secret = "a long secret for tests"
    options = ("--store", "memory", "--host", "0.0.0.0")
    with Running(run, *options, environment={"FORETASTE_KEYS": f"write:{secret}"}) as service:
        assert "$KEY" in service.said[1]
        url = service.url.replace("0.0.0.0", "127.0.0.1")
        from foretaste import Client

        with pytest.raises(ForetasteError, match="a key is needed"):
            Client(url).observe("ann", "tea")
        assert Client(url, secret).observe("ann", "tea")["outcomes"] == ["applied"]
        with pytest.raises(ForetasteError, match="role admin"):
            Client(url, secret).forget("ann")
        assert service.stop() == 0
        assert not any(secret in line for line in service.logged)


def test_what_serve_refuses(shell: Shell, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORETASTE_KEYS", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for words, said in [
            ((tmp_path / "nothing",), "no saved recommender"),
            ((run, "--host", "0.0.0.0"), "without a key"),
            ((run, "--port", port), "choose another with --port"),
            ((run, "--port", 99999), "port = 99999"),
            ((run, "--workers", 0), "workers = 0"),
            ((run, "--workers", 2, "--store", "memory"), "--workers 1"),
            ((run, "--ttl", "never"), "--ttl never: expected a length of time"),
            ((run, "--ttl", "30"), "--ttl 30: 30 of what? Say 30s, 30m, 30h or 30d"),
            ((run, "--keys", tmp_path / "none.toml"), "no such file"),
            ((run, "--set", "k=0"), "ServiceConfig: 'k' = 0"),
        ]:
            ran = shell("serve", *words)
            assert ran.status == 2, ran.err
            assert said in ran.err
            assert ran.out == ""
    assert not (tmp_path / "run.store").exists()


def test_a_wrong_setting_of_the_engine_or_a_store_without_permission(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for store, engine, said in [
        (str(tmp_path / "never"), {"quue": 3}, "no setting 'quue'; did you mean 'queue'.* events, .* window_ids"),
        (str(tmp_path / "never"), {"window_ids": -1}, "'window_ids' = -1"),
        (str(tmp_path / "never"), {"recall": 0.9}, "recall = 0.9 is of an index: set retrieval"),
        (str(file / "users"), {}, re.escape(str(file))),
        (str(tmp_path), {}, "is no store"),
        ("redis://127.0.0.1:1/0", {}, "127.0.0.1"),
    ]:
        with pytest.raises(ForetasteError, match=said):
            build(Plan(run=run, store=store, engine=engine))
    assert file.read_text() == "mine"
    assert not (tmp_path / "never").exists()


def test_what_an_index_lacks_is_said_before_a_store_is_made(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ForetasteError, match=r"pip install 'foretaste\[ann\]'"):
        build(Plan(run=run, store=str(tmp_path / "never"), engine={"retrieval": "approximate"}))
    assert not (tmp_path / "never").exists()


def test_what_cannot_start_is_said_in_a_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("mine")
    with Running(run, "--store", tmp_path, "--workers", 2) as service:
        assert service.process.wait(PATIENCE) == 2
        service._reading.join(5)
    assert service.said == []
    assert len(service.logged) == 1
    assert service.logged[0].startswith("foretaste: ")
    assert "is no store" in service.logged[0]


def test_another_recommender_in_the_folder_is_not_served_and_not_waited_for(tmp_path: Path) -> None:
    run = small_trained().save(tmp_path / "run")
    with Running(run, "--store", tmp_path / "users") as service:
        assert service.client().observe("ann", "tea")["outcomes"] == ["applied"]
        small_trained(["tea", "milk", "gin"]).save(run)
        (worker,) = service.workers()
        os.kill(worker, signal.SIGKILL)
        assert service.process.wait(PATIENCE) == 2
        service.stop()
        assert any("holds another recommender than the one that is served" in line for line in service.logged)
    with Running(run, "--store", tmp_path / "users", "--replay") as service:
        kept = service.client().user("ann")
        assert kept is not None
        assert [event["item"] for event in kept["events"]] == ["tea"]


def test_a_model_that_needs_times_is_served(tmp_path: Path) -> None:
    with seeded(1):
        model = ASARS(3, ASARS.Config(hidden_size=4), 2)
    assert "times" in model.needs
    items, users = Vocabulary(["tea", "milk", "gin"]), Vocabulary(["ann", "bob"])
    run = Trained("asars", model.eval(), items, users, {}).save(tmp_path / "run")
    app, _, facts = build(Plan(run=run, store="memory"))
    said = greeting("http://127.0.0.1:1", facts, keyed=False).splitlines()[2]
    body = json.loads(shlex.split(said)[shlex.split(said).index("--json") + 1])
    with TestClient(app, base_url="http://localhost") as client:
        assert client.post("/recommendations", json=body).status_code == 200
