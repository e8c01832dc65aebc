"""`foretaste store`: export and import between homes, files that were cut or edited, and what an operator sees."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from foretaste.errors import StoreError
from foretaste.serving import exports
from foretaste.serving.embedded import EmbeddedStore
from foretaste.serving.exports import export_users, import_users
from foretaste.serving.store import ABSENT, Change, MemoryStore, Store, Whole
from tests.serving.redis_server import Server
from tests.shell import Shell

COMMANDS = ("report", "export", "import", "compact", "sweep", "forget")
USERS = [
    Whole(name, random.Random(size).randbytes(40 * size), bytes(size % 3), 1_700_000_000 + size)
    for size, name in enumerate(
        ["", "42", "two words", "ü", "\ud800", "x" * 999, *(f"user {row}" for row in range(700))]
    )
]


@pytest.fixture
def ft(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of `USERS`."""
    with EmbeddedStore(tmp_path / "states") as store:
        store.claim({"model": "narm", "trained": "2026-01-01"})
        store.put_all(USERS)
    return tmp_path / "states"


def every(store: Store) -> list[Whole]:
    return sorted(store.everyone(), key=lambda whole: whole.touched)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_can_be_read(ft: Shell, command: str) -> None:
    shown = " ".join(ft.well("store", command, "--help").out.split())
    example = shown.split("Example: ")[1].split(" ╭")[0]
    assert example.startswith(f"foretaste store {command} ")
    assert all(word in shown.split("╭─ Parameters")[1] for word in example.split() if word.startswith("--"))
    assert f" {command} " in ft.well("store", "--help").out


def test_a_report_for_people_and_for_programs(ft: Shell, folder: Path) -> None:
    facts = ft.well("store", "report", folder, "--json").json
    assert (facts["home"], facts["users"], facts["bases"]) == ("embedded", 706, sum(bool(one.base) for one in USERS))
    records = sum(len(one.record) for one in USERS)
    assert records < facts["bytes"] < 1.5 * records
    assert facts["bytes_per_user"] == pytest.approx(facts["bytes"] / 706, abs=0.1)
    assert facts["facts"] == {"model": "narm", "trained": "2026-01-01"}
    text = ft.well("store", "report", folder).out
    assert [line.split(maxsplit=1) for line in text.splitlines() if line.startswith(("users", "model"))] == [
        ["users", "706"],
        ["model", "narm"],
    ]
    assert f"bytes per user     {facts['bytes_per_user']:,}" in text


def test_export_and_import_between_homes(ft: Shell, folder: Path, tmp_path: Path, redis_server: Server) -> None:
    name, first, second = uuid4().hex, tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert ft.well("store", "export", folder, first, "--json").json == {"file": str(first), "users": 706}
    server = (redis_server.url, "--namespace", name)
    assert ft.well("store", "import", server[0], first, *server[1:]).out == f"706 users imported from {first}\n"
    assert ft.well("store", "export", server[0], second, *server[1:]).err == ""
    ft.well("store", "import", tmp_path / "again", second)
    assert sorted(first.read_text().splitlines()) == sorted(second.read_text().splitlines())
    with EmbeddedStore(tmp_path / "again") as store:
        assert every(store) == USERS
        assert store.claim({}) == {"model": "narm", "trained": "2026-01-01"}
    facts = ft.well("store", "report", server[0], *server[1:], "--json").json
    assert (facts["users"], facts["facts"]["model"]) == (706, "narm")


def test_an_import_takes_the_place_of_users_that_are_there(folder: Path, tmp_path: Path) -> None:
    file, said = tmp_path / "users.jsonl", []
    with EmbeddedStore(folder) as store:
        assert export_users(store, file, lambda what, count: said.append((what, count))) == 706
        store.put(Whole("42", b"newer", b"", 5))
        store.put(Whole("other", b"stays", b"", 6))
        assert import_users(store, file, lambda what, count: said.append((what, count))) == 706
        assert every(store) == [Whole("other", b"stays", b"", 6), *USERS]
    assert said[705] == ("written", 706)
    assert said[2 * 706 - 1] == ("checked", 706)
    assert said[-3:] == [("imported", 256), ("imported", 512), ("imported", 706)]


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "no json", "line 1: not a line of JSON"),
        (1, '{"users":3}', "line 1: expected the header of an export of users"),
        (1, '{"format":"foretaste-users","version":9,"facts":{}}', "line 1: version 9, and this Foretaste reads 1"),
        (1, '{"format":"foretaste-users","version":1}', "line 1: no facts of the store"),
        (400, "{", "line 400: not a line of JSON"),
        (400, "[1]", "line 400: not a line of JSON"),
        (400, "[" * 100_000, "line 400: not a line of JSON"),
        (400, '{"user":42,"touched":1,"record":"","base":""}', "line 400: expected a user"),
        (400, '{"user":"42","touched":1.5,"record":"","base":""}', "line 400: expected a user"),
        (400, '{"user":"42","touched":1,"record":"a","base":""}', "line 400: record and base of user '42' are not"),
        (400, '{"user":"42","touched":1,"record":"ü===","base":""}', "line 400: record and base of user '42' are not"),
        (400, '{"user":"42","touched":1,"record":""}', "line 400: record and base of user '42' are not"),
        (400, '{"user":"42","touched":1,"record":7,"base":""}', "line 400: record and base of user '42' are not"),
        (400, '{"user":"42","touched":1,"record":"","base":"","crc":1}', "line 400: record or base of user '42' was"),
        (400, None, "line 707: says 706 users, found 705"),
        (708, None, "ends after 706 users without its last line, so it was cut"),
        (708, '{"users":706}\n{}', "line 709: comes after the line that ends the file"),
    ],
)
def test_of_a_file_with_a_bad_line_nothing_is_imported(
    ft: Shell, folder: Path, tmp_path: Path, line: int, text: str | None, message: str
) -> None:
    file, into = tmp_path / "users.jsonl", tmp_path / "into"
    ft.well("store", "export", folder, file)
    lines = file.read_text().splitlines()
    assert len(lines) == 708
    lines[line - 1 : line] = [] if text is None else [text]
    file.write_text("\n".join(lines) + "\n")
    EmbeddedStore(into).close()
    ran = ft("store", "import", into, file)
    assert ran.status == 2
    assert ran.err.startswith(f"foretaste: {file}")
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1
    with EmbeddedStore(into) as store:
        assert store.report()["users"] == 0
        assert store.claim({}) == {}


def test_bytes_that_are_no_text_are_no_line(ft: Shell, tmp_path: Path) -> None:
    (tmp_path / "users.jsonl").write_bytes(b"\xff\xfe{}\n")
    ran = ft("store", "import", tmp_path / "into", tmp_path / "users.jsonl")
    assert (ran.status, "line 1: not a line of JSON" in ran.err) == (2, True)
    assert not (tmp_path / "into").exists()
    ran = ft("store", "import", tmp_path / "into", tmp_path / "none.jsonl")
    assert (ran.status, "none.jsonl: no such file" in ran.err) == (2, True)


def test_users_of_another_model_are_not_imported(ft: Shell, folder: Path, tmp_path: Path) -> None:
    ft.well("store", "export", folder, tmp_path / "users.jsonl")
    with EmbeddedStore(tmp_path / "into") as store:
        store.claim({"model": "dman"})
    ran = ft("store", "import", tmp_path / "into", tmp_path / "users.jsonl")
    assert ran.status == 2
    assert '"model": "narm"' in ran.err
    assert 'the store of {"model": "dman"}; import it into a new store' in ran.err


def test_an_export_outlives_the_version_that_wrote_it(tmp_path: Path) -> None:
    before, after = MemoryStore(), MemoryStore()
    before.claim({"model": "narm", "foretaste": "0.1"})
    before.put_all(USERS)
    after.claim({"model": "narm", "foretaste": "0.2"})
    exports.export_users(before, tmp_path / "users.jsonl")
    assert exports.import_users(after, tmp_path / "users.jsonl") == len(USERS)
    assert after.claim({}) == {"model": "narm", "foretaste": "0.2"}


def test_an_export_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, store = tmp_path / "users.jsonl", MemoryStore()
    store.put_all(USERS)
    file.write_text("before")

    class Broken(MemoryStore):
        def everyone(self):  # type: ignore[no-untyped-def]
            yield from USERS[:100]
            raise StoreError("the server is gone")

    with pytest.raises(StoreError, match="the server is gone"):
        export_users(Broken(), file)
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["users.jsonl"]
    assert export_users(store, file) == 706
    assert import_users(MemoryStore(), file) == 706
    monkeypatch.setattr(exports, "BATCH", 7)
    copy = MemoryStore()
    import_users(copy, file)
    assert every(copy) == USERS


def test_forget_sweep_and_compact(ft: Shell, folder: Path) -> None:
    ran = ft.well("store", "forget", folder, "42", "nobody", "two words")
    assert ran.out == "42: forgotten\nnobody: not in the store\ntwo words: forgotten\n"
    with EmbeddedStore(folder) as store:
        store.write([Change("now", ABSENT, b"record")])
    assert ft.well("store", "sweep", folder, "--older-than", "1h", "--json").json == {"forgotten": 704}
    sizes = ft.well("store", "compact", folder, "--json").json
    assert sizes["after"] < sizes["before"] / 10
    assert ft.well("store", "report", folder, "--json").json["users"] == 1
    with EmbeddedStore(folder) as store:
        assert [whole.user for whole in store.everyone()] == ["now"]
        assert abs(every(store)[0].touched - time.time()) < 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("report", "none"), "none: no such folder; expected a store of users"),
        (("report", "memory"), "a store in memory ends with its process"),
        (("report", "ftp://x"), "no store is behind ftp://"),
        (("report", "redis://:s3cret@127.0.0.1:1"), "redis://127.0.0.1:1: cannot be reached"),
        (("compact", "redis://127.0.0.1:1"), "a server looks after its memory itself"),
        (("compact", "none"), "none: no such folder"),
        (("sweep", "none", "--older-than", "60"), "--older-than 60: 60 of what? Say 60s, 60m, 60h or 60d"),
        (("sweep", "none", "--older-than", "long"), "--older-than long: expected a length of time such as"),
        (("forget", "none"), "forget: name at least one user"),
        (("export", "none", "file"), "none: no such folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    ft: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = ft("store", *words)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert "s3cret" not in ran.err
    assert len(ran.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_command_and_a_server_share_a_folder(ft: Shell, folder: Path) -> None:
    code = (
        "import sys; from foretaste.serving.homes import open_store; "
        "s = open_store(sys.argv[1]); print('up', flush=True); sys.stdin.read(); print(s.report()['users'])"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        ft.well("store", "forget", folder, "42")
        ran = ft("store", "compact", folder)
        assert (ran.status, "has it open; stop it first" in ran.err) == (2, True)
        out, _ = server.communicate("")
    assert out == "705\n"
