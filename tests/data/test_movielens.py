"""MovieLens 100K: from the wheel, from the home page, from the cache, or one sentence why not. No network is needed."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import urllib.error
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.data import movielens
from foretaste.data.datasets import apply, comparison, movielens_log, recipe
from foretaste.data.movielens import cache_folder, movielens_100k, read_archive, read_wheel
from foretaste.errors import DataError

Rating = tuple[int, int, int, int]


@pytest.fixture(scope="module")
def ratings() -> list[Rating]:
    """100,000 made-up ratings of 943 people for 1,682 films; every one of them occurs."""
    rng = np.random.default_rng(0)
    people = np.concatenate([np.arange(943), rng.integers(0, 943, 99_057)]) + 1
    films = np.concatenate([np.arange(1682), rng.integers(0, 1682, 98_318)]) + 1
    stars, times = rng.integers(1, 6, 100_000), 880_000_000 + rng.integers(0, 10_000_000, 100_000)
    return list(zip(*(column.tolist() for column in (people, films, stars, times)), strict=True))


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


@pytest.fixture(scope="module")
def wheel(ratings: list[Rating]) -> bytes:
    films = [f"{film}\tFilm {film}, A\t1995\tDrama War" for film in range(1, 1683)]
    films[266], films[1411] = "267\tunkonwn\tunkonwn\tunknown", "1412\tBefore Time (1995)\tV\tAnimation Children's"
    lines = [f"{user}\t{film}\t{stars}\t{time}" for user, film, stars, time in ratings]
    home = "recbole/dataset_example/ml-100k/ml-100k"
    return zipped(
        {
            f"{home}.inter": "\n".join(
                ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *lines]
            ).encode(),
            f"{home}.item": "\n".join(["item_id:token\tmovie_title:token_seq\t...\t...", *films, ""]).encode(),
            "recbole/__init__.py": b"raise SystemExit('nothing of it is run')",
        }
    )


@pytest.fixture(scope="module")
def archive(ratings: list[Rating]) -> bytes:
    none, drama = "0|" * 18 + "0", "0|" * 8 + "1|" + "0|" * 8 + "1|0"
    films = [f"{film}|Film {film}, A (1995)|01-Jan-1995||http://x|{drama}" for film in range(1, 1683)]
    films[266] = f"267|unknown||||1{none[1:]}"
    films[1411] = "1412|Before Time (1995) (V)|01-Jan-1995||http://x|" + "0|" * 3 + "1|1|" + "0|" * 13 + "0"
    films[0] = f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{drama}"
    lines = [f"{user}\t{film}\t{stars}\t{time}" for user, film, stars, time in ratings]
    data = "\n".join([*lines, ""]).encode()
    return zipped({"ml-100k/u.data": data, "ml-100k/u.item": "\n".join([*films, ""]).encode("latin-1")})


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch, ratings: list[Rating], wheel: bytes) -> None:
    """Checksums of the made-up files in the place of the real ones."""
    lines = "".join("\t".join(map(str, rating)) + "\n" for rating in sorted(ratings))
    monkeypatch.setattr(movielens, "RATINGS_SHA256", hashlib.sha256(lines.encode()).hexdigest())
    monkeypatch.setattr(movielens, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())


class World:
    """pip and the home page, as they answer in a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wheel: bytes | None, archive: bytes | None) -> None:
        self.wheel, self.archive, self.asked = wheel, archive, [""][:0]
        monkeypatch.setattr(subprocess, "run", self.run)
        monkeypatch.setattr("urllib.request.urlopen", self.urlopen)

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append("pip")
        assert command[-1] == "recbole==1.2.1"
        assert "--no-deps" in command
        if self.wheel is None:
            said = "WARNING: trying\nERROR: Could not find a version\nERROR: No matching distribution found\n"
            return subprocess.CompletedProcess(command, 1, "", said)
        (Path(command[command.index("--dest") + 1]) / "recbole-1.2.1-py3-none-any.whl").write_bytes(self.wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    def urlopen(self, url: str, timeout: float) -> io.BytesIO:
        self.asked.append("home page")
        assert url.startswith("https://files.grouplens.org/")
        assert timeout <= 30
        if self.archive is None:
            raise urllib.error.URLError("name or service not known")
        return io.BytesIO(self.archive)


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.usefixtures("sums")
def test_through_pip_and_then_from_the_cache(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    wheel: bytes,
    ratings: list[Rating],
) -> None:
    world = World(monkeypatch, wheel, None)
    folder = movielens_100k(tmp_path)
    found = rows(folder / "ml-100k.csv")
    assert found[0] == ["user_id", "item_id", "rating", "timestamp"]
    assert found[1:] == [list(map(str, rating)) for rating in ratings], "the order of the file is kept"
    films = rows(folder / "ml-100k.items.csv")
    assert films[0] == ["item_id", "title", "year", "category"]
    assert films[1] == ["1", "Film 1, A", "1995", "Drama War"]
    assert films[267] == ["267", "unknown", "", "unknown"]
    assert films[1412] == ["1412", "Before Time", "1995", "Animation Children's"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml-100k"], "nothing else is left behind"
    said = capsys.readouterr()
    assert "do not pass it on" in said.err
    assert "Harper and J. A. Konstan" in said.err
    assert said.out == ""

    assert movielens_100k(tmp_path) == folder
    assert world.asked == ["pip"], "the second time nothing is downloaded"
    assert "GroupLens" in capsys.readouterr().err, "and the terms are said again"
    with (folder / "ml-100k.csv").open("a") as file:
        file.write("1,1,1,1\n")
    movielens_100k(tmp_path)
    assert world.asked == ["pip", "pip"], "a cache that was edited is not used"
    assert len(rows(folder / "ml-100k.csv")) == 100_001


@pytest.mark.usefixtures("sums")
def test_the_home_page_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: bytes, archive: bytes
) -> None:
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    world = World(monkeypatch, None, archive)
    folder = movielens_100k()
    assert folder == tmp_path / "cache" / "ml-100k"
    assert world.asked == ["pip", "home page"]
    by_page = rows(folder / "ml-100k.csv"), rows(folder / "ml-100k.items.csv")
    World(monkeypatch, wheel, None)
    by_pip = movielens_100k(tmp_path / "other")
    assert rows(by_pip / "ml-100k.csv") == by_page[0]
    films = rows(by_pip / "ml-100k.items.csv")
    assert by_page[1][1] == ["1", "Misérables, Les", "1995", "Drama War"]
    assert films[2:] == by_page[1][2:]


@pytest.mark.usefixtures("sums")
def test_one_sentence_where_it_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: bytes, archive: bytes, ratings: list[Rating]
) -> None:
    def failure(pip: bytes | None, page: bytes | None) -> str:
        World(monkeypatch, pip, page)
        with pytest.raises(DataError) as error:
            movielens_100k(tmp_path)
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []
        return str(error.value)

    assert failure(None, None) == (
        "MovieLens 100K is not to be had: pip: could not download recbole==1.2.1 (No matching distribution found); "
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip: name or service not known"
    )
    assert "has the SHA-256" in failure(wheel[:-1], None), "a wheel that is not the pinned one is not even opened"
    assert "ml-100k.zip: File is not a zip file" in failure(None, archive[: len(archive) // 2])
    assert "u.data" in failure(None, zipped({"a": b""}))
    lines = [f"{user}\t{film}\t{stars}\t{time}" for user, film, stars, time in ratings]
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        films = whole.read("ml-100k/u.item")
    short = zipped({"ml-100k/u.data": "\n".join(lines[:-1]).encode(), "ml-100k/u.item": films})
    assert "holds 99,999 ratings, 943 people, 1,682 films, expected 100,000 ratings" in failure(None, short)
    other = "\n".join([*lines[:-1], lines[0]]).encode()
    message = failure(None, zipped({"ml-100k/u.data": other, "ml-100k/u.item": films}))
    assert "not those of MovieLens 100K" in message or "holds" in message
    odd = zipped({"ml-100k/u.data": "\n".join(lines).encode(), "ml-100k/u.item": films.replace(b"|0\n", b"\n", 1)})
    assert "its files are not laid out as expected" in failure(None, odd)

    def patience(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip", 120)

    World(monkeypatch, None, None)
    monkeypatch.setattr(subprocess, "run", patience)
    with pytest.raises(DataError, match="pip: no answer within 120 seconds"):
        movielens_100k(tmp_path)


def test_the_readers_alone(tmp_path: Path, wheel: bytes, archive: bytes, ratings: list[Rating]) -> None:
    path = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    path.write_bytes(wheel)
    with pytest.raises(
        DataError, match=r"recbole-1.2.1-py3-none-any.whl has the SHA-256 [0-9a-f]{12}\.\.\., expected 9c99"
    ):
        read_wheel(path)
    found, films = read_archive(archive)
    assert found == ratings
    assert films[266] == (267, "unknown", "", "unknown")
    assert len(films) == 1682


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FORETASTE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "foretaste"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "foretaste"
    monkeypatch.setenv("FORETASTE_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"


@pytest.mark.usefixtures("sums")
def test_the_recipe_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: bytes) -> None:
    World(monkeypatch, wheel, None)
    folder = movielens_100k(tmp_path)
    log = movielens_log(folder)
    assert (len(log), log.steps[-1].users, log.steps[-1].items) == (100_000, 943, 1682)
    prepared = apply(recipe("ml-100k"), folder)
    text = comparison(prepared)
    assert "read events  100,000  100,000    100,000" in text
    assert "published:" not in text
    film = prepared.items.ids.index(12)
    assert prepared.items.columns["title"][film] == "Film 12, A"
    assert prepared.items.columns["year"][film] == 1995


@pytest.mark.slow
def test_the_real_one(shared: Path, tmp_path: Path) -> None:
    """Downloaded once, and equal to the copy that is at hand."""
    try:
        folder = movielens_100k(tmp_path)
    except DataError as error:
        pytest.skip(str(error))
    from tests.data.slow_papers import query

    order = "ORDER BY user_id, item_id, timestamp"
    ours = query(f"SELECT user_id, item_id, timestamp, rating FROM '{folder}/ml-100k.csv' {order}")
    theirs = query(f"SELECT user_id, item_id, timestamp, rating FROM '{shared}/ml-100k.parquet' {order}")
    assert ours == theirs
    films = query(f"SELECT item_id, title, category FROM '{folder}/ml-100k.items.csv' ORDER BY 1")
    known = query(f"SELECT item_id, title, category FROM '{shared}/ml-100k.items.parquet' ORDER BY 1")
    assert sum(a == b for a, b in zip(films, known, strict=True)) >= 1680
