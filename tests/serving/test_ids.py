"""Ids as they travel, the search among them, and the keys of those who ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError
from foretaste.serving.ids import Names, checked
from foretaste.serving.keys import Keys, check_host, hashed, needed
from foretaste.serving.problems import Refused
from foretaste.serving.search import Search

SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    ("ids", "given", "meant"),
    [
        ([7, -3, 12], "7", 7),
        ([7, -3, 12], "-3", -3),
        ([7, -3, 12], 12, 12),
        ([7, -3, 12], "07", "07"),
        ([7, -3, 12], "+7", "+7"),
        ([7, -3, 12], " 7", " 7"),
        ([7, -3, 12], "7.0", "7.0"),
        ([7, -3, 12], "--7", "--7"),
        ([7, -3, 12], "²", "²"),
        ([7, -3, 12], "٧", "٧"),
        (["7", "tea"], 7, "7"),
        (["7", "tea"], "tea", "tea"),
        ([1.5, 2.0], "2.0", 2.0),
        ([1.5, 2.0], "2", "2"),
    ],
)
def test_what_is_sent_means_the_id_that_is_written_so(ids: list[object], given: str | int, meant: object) -> None:
    found = Names(Vocabulary(ids)).meant(given)
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize("value", ["", "x" * 257, 2**63, -(2**63) - 1, True, None, 1.0, float("nan"), [], {}])
def test_what_is_no_id(value: object) -> None:
    with pytest.raises(ValueError, match=r"an id|64 bits"):
        checked(value)
    assert checked("x" * 256) == "x" * 256
    assert checked(2**63 - 1) == 2**63 - 1


def test_a_list_is_written_as_it_is_shown() -> None:
    names = Names(Vocabulary(["a", 'q"\n', "c"], {"title": ["A \u2028 title", None, "Ü"]}))
    text = names.listed([('q"\n', 0.5), ("a", 1e-7), ("c", float("inf")), ("c", 3.0)]).decode()
    assert json.loads(text) == [
        {"item": 'q"\n', "score": 0.5},
        {"item": "a", "title": "A \u2028 title", "score": 1e-7},
        {"item": "c", "title": "Ü", "score": None},
        {"item": "c", "title": "Ü", "score": 3.0},
    ]


def test_search_finds_ids_first_then_pieces_in_any_case() -> None:
    search = Search(Vocabulary(["10", "1", "T\tea", "x"], {"title": ["Green TEA", "10 cups", None, "Strasse 1"]}))
    assert search.find("1", 10) == ["1", "10", "x"]
    assert search.find("10", 10) == ["10", "1"]
    assert search.find("10", 1) == ["10"]
    assert search.find("tea", 10) == ["10"]
    assert search.find("t  EA", 10) == ["T\tea"]
    assert search.find("STRAẞE", 10) == ["x"]
    assert search.find("", 2) == ["10", "1"]
    assert search.find("nothing", 10) == []
    assert search.find("x", 10) == ["x"]


def test_search_is_what_a_plain_look_finds() -> None:
    ids = [f"item {n}" for n in range(500)]
    titles = [f"Lamp {n % 7} of glass {n * n}" for n in range(500)]
    search = Search(Vocabulary(ids, {"title": titles}))
    for query in ("lamp 3", "49", "glass 16", "item 49", "9"):
        wanted = [raw for raw, title in zip(ids, titles, strict=True) if query in f"{raw}\t{title.lower()}"]
        found = search.find(query, 500)
        assert sorted(found) == sorted(wanted)
        assert [raw for raw in found if raw != query] == [raw for raw in wanted if raw != query]
    assert search.find("item 49", 3) == ["item 49", "item 490", "item 491"]


def test_the_role_that_a_request_needs() -> None:
    assert [needed("GET", path) for path in ("/health", "/ready", "/openapi.json", "/page")] == [None] * 4
    assert needed("POST", "/events") == "write"
    assert needed("DELETE", "/users/ann") == needed("GET", "/metrics") == "admin"
    assert {needed("GET", path) for path in ("/", "/items", "/users/ann", "/items/tea/similar")} == {"read"}
    assert needed("POST", "/recommendations") == "read"
    assert {needed("POST", path) for path in ("/any", "/events\n", "/metrics\n", "/events/")} == {"admin"}


def asked(key: bytes | None, method: str = "GET", path: str = "/items") -> dict[str, object]:
    headers = [] if key is None else [(b"authorization", key)]
    return {"method": method, "path": path, "headers": headers}


def test_keys_of_a_file_and_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f'[keys]\nshop = {{ role = "write", sha256 = "{hashed(SECRET).upper()}" }}\n')
    keys = Keys.found(file, {"FORETASTE_KEYS": f"read:{SECRET}-r, admin:{SECRET}-a"})
    assert SECRET not in str(vars(keys))
    keys.check(asked(f"Bearer {SECRET}".encode(), "POST", "/events"))
    keys.check(asked(f"bearer {SECRET}-r".encode()))
    keys.check(asked(f"Bearer {SECRET}-a".encode(), "DELETE", "/users/ann"))
    keys.check(asked(None, path="/health"))
    for key, method, path, status in [
        (None, "GET", "/items", 401),
        (b"", "GET", "/items", 401),
        (b"Bearer", "GET", "/items", 401),
        (b"Bearer \xff\xfe", "GET", "/items", 401),
        (SECRET.encode(), "GET", "/items", 401),
        (f"Basic {SECRET}".encode(), "GET", "/items", 401),
        (f"Bearer {SECRET}x".encode(), "GET", "/items", 401),
        (f"Bearer {hashed(SECRET)}".encode(), "GET", "/items", 401),
        (f"Bearer {SECRET}-r".encode(), "POST", "/events", 403),
        (f"Bearer {SECRET}".encode(), "DELETE", "/users/ann", 403),
        (f"Bearer {SECRET}".encode(), "GET", "/metrics", 403),
    ]:
        with pytest.raises(Refused) as refused:
            keys.check(asked(key, method, path))
        assert refused.value.status == status


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no keys"),
        ("[keys]\n", "no keys"),
        ("[keys", "not valid TOML"),
        ('[keys]\na = "secret"', "needs role and sha256"),
        ('[keys]\na = { role = "read" }', "needs role and sha256"),
        ('[keys]\na = { role = "read", sha256 = "abc" }', "64 hexadecimal digits"),
        ('[keys]\na = { role = "raed", sha256 = "' + 64 * "0" + '" }', "did you mean 'read'"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Keys.found(file, {})


@pytest.mark.parametrize("words", ["read", "read:short", f"king:{SECRET}"])
def test_keys_of_the_environment_that_cannot_be_used(words: str) -> None:
    with pytest.raises(ConfigError, match="FORETASTE_KEYS") as error:
        Keys.found(None, {"FORETASTE_KEYS": words})
    assert SECRET not in str(error.value)


def test_without_a_key_only_this_machine_may_ask() -> None:
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        check_host(host, Keys())
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(ConfigError, match="FORETASTE_KEYS"):
            check_host(host, Keys())
        check_host(host, Keys({hashed(SECRET): "read"}))


@pytest.mark.parametrize(
    ("host", "near"),
    [
        (b"localhost", True), (b"LOCALHOST:8000", True), (b"127.0.0.1:8000", True), (b"127.9.9.9", True),
        (b"[::1]:8000", True), (b"[::1]", True), (b"example.org", False), (b"localhost.example.org:8000", False),
        (b"127.0.0.1.example.org", False), (b"192.168.1.5:8000", False), (b"[::2]:8000", False), (b"", False),
        (b"\xff", False), (b"[", False), (b":8000", False),
    ],
)  # fmt: skip
def test_without_a_key_only_this_machines_names_are_answered(host: bytes, near: bool) -> None:
    """A browser sends the name that a page of another site gave; that it points here makes it no page of ours."""
    asked = {"method": "GET", "path": "/users/ann", "headers": [(b"host", host)]}
    if near:
        Keys().check(asked)
    else:
        with pytest.raises(Refused, match="answers to localhost"):
            Keys().check(asked)
    Keys().check({**asked, "path": "/health"})
    with_key = (b"authorization", b"Bearer " + SECRET.encode())
    Keys({hashed(SECRET): "read"}).check({**asked, "headers": [(b"host", host), with_key]})


def test_the_example_of_a_file_of_keys(root: Path) -> None:
    keys = Keys.found(root / "docs" / "examples" / "keys.toml", {})
    keys.check(asked(b"Bearer an example, not a secret", "POST", "/events"))
