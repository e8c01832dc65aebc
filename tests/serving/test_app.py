"""Every address of the service, what it answers, and what it says to those who ask wrongly."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from foretaste.serving.keys import Keys, hashed
from foretaste.serving.limits import ServiceConfig
from tests.serving.small import IDS, small_app, small_trained

NOW = 1_700_000_000.0
LIMITS = ServiceConfig(body_bytes=5000, events=5, k=4, history=6, candidates=3)


@pytest.fixture
def client() -> Iterator[TestClient]:
    app, _ = small_app(LIMITS)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def event(item: Any = "tea", user: Any = "ann", **more: Any) -> dict[str, Any]:
    return {"user": user, "item": item, **more}


def listed(answer: Any) -> list[Any]:
    return [one["item"] for one in answer["recommendations"]]


def test_an_event_and_the_answer_after_it_in_one_call(client: TestClient) -> None:
    sent = event(time=NOW, session="s", id="e1", recommend={"k": 3})
    answer = client.post("/events", json=sent).json()
    wanted = small_trained().recommend(["tea"], 3)
    assert answer["outcomes"] == ["applied"]
    assert answer["unknown"] == []
    assert listed(answer) == wanted.ids
    assert [one["score"] for one in answer["recommendations"]] == pytest.approx(wanted.scores, abs=1e-6)
    titles = dict(zip(IDS, (raw.upper() for raw in IDS), strict=True))
    assert all(one.get("title") == titles[one["item"]] for one in answer["recommendations"] if one["item"] != "a/b")
    assert client.post("/events", json=sent).json()["outcomes"] == ["duplicate"]


def test_several_events_are_answered_in_the_order_sent(client: TestClient) -> None:
    sent = [
        event("tea", 7, time=NOW, id="a"),
        event("gin", "bob", time=NOW, id="b"),
        event("milk", "7", time=NOW - 5, id="c"),
        event("rum", "bob", time=NOW + 9, id="d"),
        event("rum", 7, time=NOW, id="a"),
    ]
    answer = client.post("/events", json={"events": sent}).json()
    assert answer == {"outcomes": ["applied", "applied", "late", "applied", "duplicate"], "unknown": ["gin"]}
    kept = client.get("/users/7").json()
    assert [(one["item"], one["time"]) for one in kept["events"]] == [("milk", NOW - 5), ("tea", NOW)]
    assert (kept["seen"], kept["remembered"]) == (2, 2)
    assert kept["state"]["h"]
    mine = [event("tea", "eve", time=NOW), event("milk", "eve", time=NOW + 1)]
    both = client.post("/events", json={"events": mine, "recommend": {"k": 2}})
    assert listed(both.json()) == small_trained().recommend(["tea", "milk"], 2).ids


def test_times_as_text_are_those_seconds(client: TestClient) -> None:
    for place, when in enumerate(("2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "2023-11-14 22:13:20", NOW)):
        client.post("/events", json=event(user=f"u{place}", time=when)).raise_for_status()
        assert client.get(f"/users/u{place}").json()["events"][0]["time"] == NOW


def test_an_event_without_a_time_happens_now(client: TestClient) -> None:
    client.post("/events", json=event())
    assert client.get("/users/ann").json()["events"][0]["time"] == pytest.approx(time.time(), abs=60)


def test_recommendations_with_and_without_state(client: TestClient) -> None:
    client.post("/events", json={"events": [event("tea", time=NOW), event("milk", time=NOW + 1)]})
    trained = small_trained()
    wanted = trained.recommend(["tea", "milk"], 4)

    def ask(**body: Any) -> Any:
        answer = client.post("/recommendations", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert listed(ask(user="ann", k=4)) == wanted.ids
    assert listed(ask(history=["tea", "milk"], k=4)) == wanted.ids
    assert listed(ask(history=[{"item": "tea", "time": NOW}, {"item": "milk", "time": NOW + 1}], k=4)) == wanted.ids
    apart = [{"item": "tea", "session": 1}, {"item": "milk", "session": 2}]
    assert listed(ask(history=apart, k=4)) == trained.recommend(["milk"], 4).ids  # of its open session alone
    some = ask(history=["tea", "gin", "milk"], k=4, candidates=["tea", "5", "rum"], exclude=["rum"])
    assert sorted(listed(some)) == ["5", "tea"]
    assert some["unknown"] == ["gin"]
    assert "tea" not in listed(ask(user="ann", k=4, leave_out_seen=True))
    assert listed(ask(history=[], k=2)) == listed(ask(user="nobody", k=2)) == trained.recommend([], 2).ids
    assert client.get("/users/nobody").status_code == 404


def test_whole_numbers_mean_the_ids_that_are_written_so(client: TestClient) -> None:
    assert client.post("/events", json=event(5)).json()["unknown"] == []
    app, _ = small_app(trained=small_trained([5, 70, 900]))
    with TestClient(app, base_url="http://localhost") as numbers:
        answer = numbers.post("/events", json=event("70", recommend={"k": 2, "exclude": ["5"]})).json()
        assert answer["unknown"] == []
        assert set(listed(answer)) == {70, 900}
        assert numbers.get("/items/5/similar?k=1").status_code == 200
        assert numbers.get("/items?q=9").json() == {"items": [{"item": 900}]}


def test_a_user_is_shown_and_forgotten_whatever_the_name(client: TestClient) -> None:
    for name, path in (("a/b c", "a%2Fb%20c"), ("ü?#", "%C3%BC%3F%23"), ("x" * 256, "x" * 256), (-7, "-7")):
        client.post("/events", json=event("a/b", user=name)).raise_for_status()
        shown = client.get(f"/users/{path}").json()
        assert shown["user"] == str(name)
        assert [one["item"] for one in shown["events"]] == ["a/b"]
        assert client.delete(f"/users/{path}").status_code == 204
        assert client.delete(f"/users/{path}").status_code == 404
        assert client.get(f"/users/{path}").status_code == 404


def test_explanations(client: TestClient) -> None:
    client.post("/events", json={"events": [event("tea", time=NOW), event("milk", time=NOW + 1)]})
    stored = client.get("/explanations?user=ann").json()
    raw = client.post("/explanations", json={"history": ["tea", "gin", "milk"]}).json()
    for found in (stored, raw):
        assert [one["item"] for one in found["attention"]] == ["tea", "milk"]
        assert sum(one["weight"] for one in found["attention"]) == pytest.approx(1)
        assert found["attention"][0]["title"] == "TEA"
    assert stored["attention"][0]["weight"] == pytest.approx(raw["attention"][0]["weight"], abs=1e-6)
    assert client.get("/explanations?user=ann&item=rum").status_code == 200
    assert client.get("/explanations?user=ann&item=gin").status_code == 404
    assert client.get("/explanations?user=nobody").status_code == 404
    assert client.get("/explanations").status_code == 422
    assert client.post("/explanations", json={"history": []}).json() == {"attention": None, "parts": {}}


def test_items_and_what_is_served(client: TestClient) -> None:
    assert client.get("/items?q=TWO").json() == {"items": [{"item": "two\nlines", "title": "TWO\nLINES"}]}
    assert len(client.get("/items?k=3").json()["items"]) == 3
    assert len(client.get("/items").json()["items"]) == 4  # the usual 20 is more than is allowed here
    assert len(client.post("/recommendations", json={"user": "ann"}).json()["recommendations"]) == 4
    similar = client.get("/items/a%2Fb/similar?k=2").json()["items"]
    wanted = small_trained().similar_items("a/b", 2)
    assert [one["item"] for one in similar] == wanted.ids
    assert [one["score"] for one in similar] == pytest.approx(wanted.scores, abs=1e-6)
    assert client.get("/items/gin/similar").status_code == 404
    assert client.get("/").json()["model"] == "narm"
    assert client.get("/").json()["items"] == len(IDS)
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}


def test_metrics_count_requests_and_events(client: TestClient) -> None:
    client.post("/events", json=event(id="a"))
    client.post("/events", json=event(id="a"))
    client.get("/users/ann")
    client.get("/nowhere")
    text = client.get("/metrics").text
    for line in (
        'foretaste_events_total{outcome="applied"} 1.0',
        'foretaste_events_total{outcome="duplicate"} 1.0',
        'foretaste_requests_total{method="POST",route="/events",status="200"} 2.0',
        'foretaste_requests_total{method="GET",route="/users/{user}",status="200"} 1.0',
        'foretaste_requests_total{method="GET",route="-",status="404"} 1.0',
        'foretaste_request_seconds_count{method="POST",route="/events"} 2.0',
        'foretaste_work_total{what="asks"} 2.0',
    ):
        assert line in text.splitlines()
    assert "ann" not in text


def test_metrics_say_what_an_index_found() -> None:
    app, engine = small_app()
    with TestClient(app, base_url="http://localhost") as client:
        engine.counts.update(indexed=5, exact=2, checked=40, found=39)
        lines = client.get("/metrics").text.splitlines()
    for what, count in (("indexed", 5), ("exact", 2), ("checked", 40), ("found", 39)):
        assert f'foretaste_work_total{{what="{what}"}} {count}.0' in lines


BAD_BODIES: list[tuple[str, bytes, int, str]] = [
    ("/events", b"", 400, "not JSON"),
    ("/events", b"{", 400, "not JSON"),
    ("/events", b'{"user": "ann", "item": "tea", "time": NaN}', 400, "not JSON"),
    ("/events", b'{"user": "ann", "item": "tea", "time": Infinity}', 400, "not JSON"),
    ("/events", b'{"user": "ann", "item": "tea", "time": 1e999}', 422, "time: "),
    ("/events", b'{"user": "ann", "item": "tea", "time": 1' + 400 * b"0" + b"}", 422, "time: "),
    ("/events", b'{"user": "ann", "item": "\xff"}', 400, "not JSON"),
    ("/events", b'{"user": "ann", "item": "\\ud800"}', 400, "not JSON"),
    ("/events", b"[" * 4000, 400, "not JSON"),
    ("/events", b"[1]", 422, "expected a JSON object"),
    ("/events", b'"tea"', 422, "expected a JSON object"),
    ("/events", b"{}", 422, "user: is required"),
    ("/events", b'{"events": []}', 422, "events: "),
    ("/events", b'{"events": {}}', 422, "events: "),
    ("/events", b'{"events": [1]}', 422, "events.0: "),
    ("/events", b'{"events": [{"user": "ann"}]}', 422, "events.0.item: is required"),
    ("/recommendations", b'{"user": "ann", "k": 0}', 422, "k: "),
    ("/recommendations", b'{"user": "ann", "k": -1}', 422, "k: "),
    ("/recommendations", b'{"user": "ann", "k": "3"}', 422, "k: "),
    ("/recommendations", b'{"user": "ann", "k": 2.5}', 422, "k: "),
    ("/recommendations", b'{"user": "ann", "k": true}', 422, "k: "),
    ("/recommendations", b'{"user": "ann", "k": 5}', 422, "k: 5, at most 4"),
    ("/recommendations", b'{"user": "ann", "k": 1' + 300 * b"0" + b"}", 422, "k: "),
    ("/recommendations", b"{}", 422, "give a user, or a history"),
    ("/recommendations", b'{"usr": "ann"}', 422, "did you mean 'user'"),
    ("/recommendations", b'{"history": "tea"}', 422, "history: "),
    ("/recommendations", b'{"history": [["tea"]]}', 422, "history.0"),
    ("/recommendations", b'{"history": [1, 2, 3, 4, 5, 6, 7]}', 422, "history: 7, at most 6"),
    ("/recommendations", b'{"user": "ann", "k": 1, "candidates": ["tea", "gin"]}', 422, "candidate 'gin'"),
    ("/recommendations", b'{"user": "ann", "k": 1, "exclude": [1, 2, 3, 4]}', 422, "exclude: 4, at most 3"),
    ("/recommendations", b'{"user": "ann", "k": 1, "candidates": [1, 2, 3, 4]}', 422, "candidates: 4, at most 3"),
    ("/recommendations", b'{"user": "ann", "k": 1, "leave_out_seen": 1}', 422, "leave_out_seen: "),
    ("/explanations", b'{"user": "ann"}', 422, "history: is required"),
    ("/explanations", b'{"history": ["tea"], "item": "gin"}', 404, "not known"),
]


@pytest.mark.parametrize(("path", "body", "status", "said"), BAD_BODIES)
def test_a_body_that_cannot_be_answered(client: TestClient, path: str, body: bytes, status: int, said: str) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, status, said)
    assert client.get("/users/ann").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/recommendations", b'{"user": "ann", "exclude": [%s]}', "exclude.0: expected an id: text or a whole number"),
        ("/recommendations", b'{"history": [%s]}', "history.0: expected an id: text or a whole number"),
        ("/explanations", b'{"history": [%s]}', "history.0: expected an id: text or a whole number"),
        ("/events", b'{"events": [%s]}', "events.0: "),
    ],
)
def test_of_a_list_the_first_bad_element_is_told(client: TestClient, path: str, body: bytes, said: str) -> None:
    """All of them in a body of a megabyte held the process up for half a minute."""
    body = body % b",".join(1000 * [b"[]"])
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, said)
    assert "more" not in answer.json()["detail"]


def test_an_event_of_a_history_that_is_wrong_is_named(client: TestClient) -> None:
    for one, said in [({"item": "tea", "x": 1}, "history.1.x: not a field"), ({}, "history.1.item: is required")]:
        assert_problem(client.post("/recommendations", json={"history": ["tea", one]}), 422, said)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("user", "", "user: an id of 0 characters"),
        ("user", "x" * 257, "user: an id of 257 characters"),
        ("user", None, "user: expected an id"),
        ("user", True, "user: expected an id"),
        ("user", 1.5, "user: expected an id"),
        ("user", ["ann"], "user: expected an id"),
        ("item", {}, "item: expected an id"),
        ("item", 10**20, "item: a number outside 64 bits"),
        ("session", 1.5, "session: expected an id"),
        ("id", 7, "id: "),
        ("id", "", "id: "),
        ("time", "yesterday", "time: expected seconds"),
        ("time", True, "time: expected seconds"),
        ("time", "", "time: expected seconds"),
        ("time", NOW * 1000, "time: not a time in seconds"),
        ("time", -1e300, "time: not a time in seconds"),
        ("time", "0001-01-01T00:00:00+23:59", "time: "),
        ("time", -1, "time: not a time in seconds"),
        ("items", "tea", "items: not a field of this request; did you mean 'item'"),
        ("recommend", {"k": 5}, "k: 5, at most 4"),
        ("recommend", {"n": 5}, "recommend.n: not a field"),
        ("recommend", 5, "recommend: "),
    ],
)
def test_a_field_that_is_wrong_is_named(client: TestClient, field: str, value: Any, said: str) -> None:
    assert_problem(client.post("/events", json=event() | {field: value}), 422, said)
    assert client.get("/users/ann").status_code == 404


def assert_problem(answer: Any, status: int, said: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    facts = answer.json()
    assert set(facts) >= {"type", "title", "status", "detail", "request"}
    assert facts["status"] == status
    assert said in facts["detail"], facts["detail"]
    assert facts["request"] == answer.headers["x-request-id"]
    assert len(answer.content) < 3000


def test_events_of_several_users_have_no_one_answer(client: TestClient) -> None:
    body = {"events": [event(user="ann"), event(user="bob")], "recommend": {"k": 1}}
    assert_problem(client.post("/events", json=body), 422, "several users")
    assert client.get("/users/ann").status_code == 404


def test_more_than_is_allowed(client: TestClient) -> None:
    assert_problem(client.post("/events", json={"events": 6 * [event()]}), 422, "events: 6, at most 5")
    long = json.dumps({"events": [event(session="x" * 200) for _ in range(40)]}).encode()
    header = {"Content-Type": "application/json"}
    assert_problem(client.post("/events", content=long, headers=header), 413, "longer than 5,000 bytes")
    pieces = (long[start : start + 1000] for start in range(0, len(long), 1000))  # no length is said before
    assert_problem(client.post("/events", content=pieces, headers=header), 413, "longer than 5,000 bytes")
    assert_problem(client.get("/items?k=5"), 422, "k: 5, at most 4")
    assert_problem(client.get("/items/tea/similar?k=5"), 422, "k: 5, at most 4")
    assert_problem(client.get("/items", params={"q": "x" * 257}), 422, "q: ")
    assert_problem(client.get("/users/" + "x" * 257), 422, "user: an id of 257")


def test_addresses_and_methods_that_are_not_there(client: TestClient) -> None:
    assert_problem(client.get("/nowhere"), 404, "openapi.json")
    assert_problem(client.get("/users/"), 422, "user: an id of 0")
    assert_problem(client.get("/events"), 405, "method")
    assert_problem(client.put("/users/ann"), 405, "method")
    assert client.get("/events").headers["allow"] == "POST"
    assert_problem(
        client.post("/events", content=b"{}", headers={"Content-Type": "text/plain"}), 415, "application/json"
    )
    assert_problem(client.post("/events", content=b"{}"), 415, "application/json")
    assert_problem(client.get("/items?k=x"), 422, "k: ")
    assert_problem(client.get("/items?k=0"), 422, "k: ")


def test_the_page_is_whole_and_may_run_nothing_but_its_own_script(client: TestClient) -> None:
    page = client.get("/page")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    rules = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
    assert (rules["default-src"], rules["script-src"], rules["connect-src"]) == ("'none'", "'self'", "'self'")
    parts = {name: client.get(f"/page/{name}") for name in re.findall(r'"page/([a-z.]+)"', page.text)}
    assert {name: part.headers["content-type"] for name, part in parts.items()} == {
        "page.css": "text/css; charset=utf-8",
        "page.js": "text/javascript; charset=utf-8",
    }
    script = parts["page.js"].text
    named = set(re.findall(r'(?:at|put|\[)\("([a-z-]+)"', script))
    assert named <= set(re.findall(r'id="([a-z-]+)"', page.text))
    assert len(named) > 15
    assert "innerHTML" not in script, "ids and titles are the users': text, never markup"
    assert not re.search(r"\son[a-z]+=|style=|<script(?! type=\"module\" src)", page.text)
    paths = client.get("/openapi.json").json()["paths"]
    for asked in re.findall(r"call\([`\"]([a-z]+)", script):
        assert any(path.startswith(f"/{asked}") for path in paths), asked


def test_roles() -> None:
    secrets = {role: f"a key with the role {role}" for role in ("read", "write", "admin")}
    app, _ = small_app(keys=Keys({hashed(secret): role for role, secret in secrets.items()}))
    with TestClient(app, base_url="http://localhost") as client:

        def status(role: str | None, method: str, path: str, body: Any = None) -> int:
            headers = {} if role is None else {"Authorization": f"Bearer {secrets[role]}"}
            return client.request(method, path, json=body, headers=headers).status_code

        for role, wanted in ((None, 401), ("read", 403), ("write", 200), ("admin", 200)):
            assert status(role, "POST", "/events", event()) == wanted
        for method, path, body in (
            ("POST", "/recommendations", {"user": "ann", "k": 1}),
            ("POST", "/explanations", {"history": ["tea"]}),
            ("GET", "/explanations?user=ann", None),
            ("GET", "/users/ann", None),
            ("GET", "/items", None),
            ("GET", "/items/tea/similar", None),
            ("GET", "/", None),
        ):
            assert [status(role, method, path, body) for role in (None, *secrets)] == [401, 200, 200, 200]
        assert [status(role, "GET", "/metrics") for role in (None, *secrets)] == [401, 403, 403, 200]
        assert [status(role, "DELETE", "/users/ann") for role in (None, *secrets)] == [401, 403, 403, 204]
        for path in ("/health", "/ready", "/openapi.json", "/page", "/page/page.css", "/page/page.js"):
            assert status(None, "GET", path) == 200
        # a router takes the end of a line for the end of an address: no way around a role
        assert status("read", "POST", "/events%0A", event(user="eve")) == 403
        assert status("admin", "GET", "/users/eve") == 404
        assert status("read", "GET", "/metrics%0A") == status("write", "DELETE", "/users/ann%0A") == 403
        assert_problem(client.get("/items"), 401, "a key is needed")
        assert client.get("/items").headers["www-authenticate"] == "Bearer"
        assert_problem(client.get("/items", headers={"Authorization": "Bearer wrong"}), 401, "not known")
        assert_problem(client.get("/nowhere"), 401, "a key is needed")


def test_the_description_covers_every_address(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    assert {(path, method) for path, methods in found["paths"].items() for method in methods} == {
        ("/events", "post"),
        ("/recommendations", "post"),
        ("/explanations", "post"),
        ("/explanations", "get"),
        ("/users/{user}", "get"),
        ("/users/{user}", "delete"),
        ("/items", "get"),
        ("/items/{item}/similar", "get"),
        ("/", "get"),
        ("/health", "get"),
        ("/ready", "get"),
        ("/metrics", "get"),
    }
    schemas = found["components"]["schemas"]
    assert schemas["OneEvent"]["properties"]["id"]["description"].startswith("A name that no other event")
    text = json.dumps(found)
    named = {name.split('"')[0] for name in text.split("#/components/schemas/")[1:]}
    assert named <= set(schemas)


def test_a_history_has_times_or_none(client: TestClient) -> None:
    mixed = {"history": ["tea", {"item": "milk", "time": NOW}]}
    assert_problem(client.post("/recommendations", json=mixed), 422, "some of its events have a time, some have none")
    assert_problem(client.post("/events", json=event(recommend=True)), 422, "recommend: expected an object")
    items = [{"item": "tea", "time": NOW}, {"item": "milk", "time": NOW + 1}]
    assert client.post("/recommendations", json={"history": items}).status_code == 200


def test_ids_with_line_ends_are_ids_of_their_own(client: TestClient) -> None:
    for place, user in enumerate(("ann", "ann\n", "\nann", "two\nlines", "a/b\n")):
        client.post("/events", json=event(IDS[place], user)).raise_for_status()
    assert client.get("/users/ann%0A").json()["events"][0]["item"] == IDS[1]
    assert client.delete("/users/ann%0A").status_code == 204
    assert client.get("/users/ann%0A").status_code == 404
    assert client.get("/users/ann").json()["events"][0]["item"] == "tea"
    for user in ("%0Aann", "two%0Alines", "a%2Fb%0A"):
        assert client.delete(f"/users/{user}").status_code == 204
    assert [one["item"] for one in client.get("/items/two%0Alines/similar?k=2").json()["items"]]


def test_events_of_a_request_that_fails_are_counted() -> None:
    app, engine = small_app()
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        plain = engine.chooser.best
        engine.chooser.best = lambda *_: 1 / 0  # type: ignore[assignment,method-assign]
        assert client.post("/events", json=event(id="e1", recommend={"k": 1})).status_code == 500
        engine.chooser.best = plain  # type: ignore[method-assign]
        assert client.post("/events", json=event(id="e1")).json()["outcomes"] == ["duplicate"]
        lines = client.get("/metrics").text.splitlines()
    counted = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("foretaste_events_total{")}
    assert counted['foretaste_events_total{outcome="applied"}'] == 1
    assert counted['foretaste_events_total{outcome="duplicate"}'] == 1
