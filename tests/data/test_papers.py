"""The recipes of the papers: each from its raw public format, against plain loops over the same file."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.slow_papers import (
    DAY,
    HOUR,
    Click,
    Lists,
    Look,
    Rating,
    asars,
    by_user,
    histories,
    lists,
    lsamn,
    millis,
    narm,
    query,
    rum,
    written,
)  # fmt: skip

from foretaste.data.datasets import apply, comparison, recipe
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TEST, TRAIN, VALIDATION
from foretaste.errors import DataError

# ---------------------------------------------------------------------- NARM from the raw public files


def yoochoose(path: Path, clicks: Sequence[Click]) -> Path:
    def line(click: Click) -> tuple[Any, ...]:
        moment = datetime.fromtimestamp(click[2] / 1000, UTC).isoformat(timespec="milliseconds")
        return click[0], moment.replace("+00:00", "Z"), click[1], "S"

    return written(path / "yoochoose-clicks.dat", map(line, clicks))


def diginetica(path: Path, clicks: Sequence[Click]) -> Path:
    """Every fourth row names a user, so some sessions have one in one row and none in the next."""

    def line(row: int, click: Click) -> tuple[Any, ...]:
        day, timeframe = divmod(click[2], DAY)
        date = datetime.fromtimestamp(day * DAY / 1000, UTC).date().isoformat()
        return click[0], "NA" if row % 4 else 77, click[1], timeframe, date

    rows = (line(row, click) for row, click in enumerate(clicks))
    return written(path / "train-item-views.csv", rows, ";", "sessionId;userId;itemId;timeframe;eventdate")


def some_clicks(last: str, days: int, seed: int, shuffle: bool = False) -> list[Click]:
    """2,000 sessions; items with a long tail, new ones towards the end; no two sessions end at one moment."""
    rng = np.random.default_rng(seed)
    clicks = []
    ends = millis(last) - np.sort(rng.choice(days * DAY // 1000, 2000, replace=False))[::-1] * 1000
    ends[-1] = millis(last)
    for session, end in enumerate(ends.tolist()):
        length = int(rng.geometric(0.35))
        begin = max(end - int(rng.integers(1, 900)) * 1000, end // DAY * DAY)
        moments = np.sort(rng.integers(begin, end + 1, length))
        moments[-1] = end
        items = (rng.zipf(1.4, length) % 150 + session // 40).tolist()
        found = [(session * 3, item, int(moment), 0) for item, moment in zip(items, moments, strict=True)]
        if shuffle:
            found = [found[k] for k in rng.permutation(length)]
        clicks += found
    return clicks


def in_time(clicks: Sequence[Click]) -> list[Click]:
    """Clicks with their time as their place: sorting is stable, so ties keep the order of the file."""
    return [(session, item, moment, moment) for session, item, moment, _ in clicks]


def in_file(clicks: Sequence[Click]) -> list[Click]:
    return [(session, item, moment, row) for row, (session, item, moment, _) in enumerate(clicks)]


def assert_as_narm(prepared: Prepared, train: Lists, test: Lists) -> None:
    """The same sessions; in the log they stand in the order of their start, so they are compared without order."""
    assert sorted(map(str, lists(prepared, TRAIN, VALIDATION))) == sorted(map(str, train))
    assert sorted(map(str, lists(prepared, TEST))) == sorted(map(str, test))
    found = prepared.manifest["recipe"]["found"]
    assert found["training"]["prefixes"] == sum(len(one) - 1 for one in train)
    assert found["test"]["prefixes"] == sum(len(one) - 1 for one in test)
    assert found["training"]["items"] == len({item for one in train for item in one})


@pytest.mark.parametrize(("name", "share"), [("narm-yoochoose-1_64", 1 / 64), ("narm-yoochoose-1_4", 1 / 4)])
def test_narm_on_yoochoose_clicks(tmp_path: Path, name: str, share: float) -> None:
    clicks = in_time(some_clicks("2014-09-30T02:59:59.430", 9, seed=3))
    prepared = apply(recipe(name), yoochoose(tmp_path, clicks))
    train, test = narm(clicks, share, millis("2014-09-29T02:59:59.431"))
    assert sum(item is None for one in test for item in one) > 0, "the cut makes some known items cold"
    assert_as_narm(prepared, train, test)
    assert prepared.manifest["test_targets"]["cold"] == sum(item is None for one in test for item in one[1:])
    text = comparison(prepared)
    assert "369,859" in text or "5,917,746" in text
    assert "55,898 published: no reason is known, unless these files are only a part" in text


@pytest.mark.parametrize("name", ["narm-diginetica", "narm-diginetica-unsorted"])
def test_narm_on_diginetica_views(tmp_path: Path, name: str) -> None:
    clicks = some_clicks("2016-06-01T21:00:00", 25, seed=4, shuffle=True)
    placed = in_time(clicks) if name == "narm-diginetica" else in_file(clicks)
    skip = range(millis("2016-05-25"), millis("2016-05-26"))
    train, test = narm(placed, 1, millis("2016-05-26"), skip)
    prepared = apply(recipe(name), diginetica(tmp_path, clicks))
    assert_as_narm(prepared, train, test)
    assert prepared.manifest["test_targets"]["cold"] == 0
    in_skip = [session for session, _, moment, _ in clicks if moment in skip]
    assert in_skip, "sessions of the day before the test week are in no part"
    other = narm(in_file(clicks) if name == "narm-diginetica" else in_time(clicks), 1, millis("2016-05-26"), skip)
    assert sorted(map(str, other[0])) != sorted(map(str, train)), "the order of the file is another than that of time"


def test_narm_on_the_real_sample_of_yoochoose(shared: Path, tmp_path: Path) -> None:
    rows = query(f"SELECT session_id, item_id, timestamp * 1000 + millis FROM '{shared}/yoochoose-clicks-100k.parquet'")
    clicks = in_time([(*row, 0) for row in rows])
    last = max(click[2] for click in clicks)
    for name, share in (("narm-yoochoose-1_64", 1 / 64), ("narm-yoochoose-1_4", 1 / 4)):
        train, test = narm(clicks, share, last - DAY + 1)
        assert_as_narm(apply(recipe(name), yoochoose(tmp_path, clicks)), train, test)


def test_narm_on_the_real_sample_of_diginetica(shared: Path, tmp_path: Path) -> None:
    sql = "SELECT session_id, item_id, (timestamp - timeframe_ms // 1000) * 1000 + timeframe_ms, 0"
    clicks = query(f"{sql} FROM '{shared}/diginetica-raw-sample.parquet'")
    skip = range(millis("2016-05-25"), millis("2016-05-26"))
    for name, placed in (("narm-diginetica", in_time(clicks)), ("narm-diginetica-unsorted", in_file(clicks))):
        train, test = narm(placed, 1, millis("2016-05-26"), skip)
        prepared = apply(recipe(name), diginetica(tmp_path, clicks))
        assert_as_narm(prepared, train, test)
    assert lists(apply(recipe("diginetica-raw-sample"), shared), TEST) == lists(
        apply(recipe("narm-diginetica"), tmp_path), TEST
    )
    assert len(train) > 400


# ----------------------------------------------------------------- LSAMN and RUM from Amazon's ratings


def some_ratings(seed: int) -> list[Rating]:
    """Ratings at midnight, as Amazon's are; users in the order of nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(120):
        for _ in range(int(rng.integers(4, 30))):
            day = int(rng.integers(0, 12)) + user // 10
            rows.append(
                (f"A{user:03}X", f"B{int(rng.zipf(1.3)) % 60:04}", 1_300_000_000 // 86400 * 86400 + day * 86400)
            )
    return [rows[k] for k in rng.permutation(len(rows))]


def ratings_file(folder: Path, name: str, rows: Sequence[Rating]) -> Path:
    return written(folder / name, ((user, item, "4.0", time) for user, item, time in rows))


def assert_as_lsamn(prepared: Prepared, expected: dict[Any, list[list[Any]]]) -> None:
    known = set(prepared.items.ids)
    last = {user: [item if item in known else None for item in days[-1]] for user, days in expected.items()}
    assert by_user(prepared, TEST) == last
    assert by_user(prepared, VALIDATION) == {user: days[-2] for user, days in expected.items()}
    assert by_user(prepared, TRAIN) == {user: [*itertools.chain(*days[:-2])] for user, days in expected.items()}
    every = sorted(map(str, (day for days in expected.values() for day in days[:-1])))
    assert sorted(map(str, lists(prepared, TRAIN, VALIDATION))) == every


def test_lsamn_on_ratings(tmp_path: Path) -> None:
    rows = some_ratings(seed=5)
    expected = lsamn(rows)
    path = ratings_file(tmp_path, "ratings_Health_and_Personal_Care.csv", rows)
    prepared = apply(recipe("lsamn-hpc"), path)
    assert 20 < len(expected) < 110
    support = Counter(item for days in expected.values() for item in itertools.chain(*days))
    assert min(support.values()) < 10, "one pass: what a later filter takes away may leave an item rarer than asked"
    assert_as_lsamn(prepared, expected)
    text = comparison(prepared)
    assert "201,944" in text
    assert "136,673" in text
    for name, file in (("lsamn-csj", "Clothing_Shoes_and_Jewelry"), ("lsamn-so", "Sports_and_Outdoors")):
        path.rename(path := tmp_path / f"ratings_{file}.csv")
        assert_as_lsamn(apply(recipe(name), tmp_path), expected)


RUM_FILES = {
    "rum-instant-video": "ratings_Amazon_Instant_Video.csv",
    "rum-musical": "ratings_Musical_Instruments.csv",
    "rum-automotive": "ratings_Automotive.csv",
    "rum-baby": "ratings_Baby.csv",
}


@pytest.mark.parametrize("name", RUM_FILES)
def test_rum_on_ratings(tmp_path: Path, name: str) -> None:
    rows = some_ratings(seed=6)
    ratings_file(tmp_path, RUM_FILES[name], rows)
    assert_as_rum(apply(recipe(name), tmp_path), rows)


def assert_as_rum(prepared: Prepared, rows: Sequence[Rating]) -> None:
    train, test = rum(rows)
    known = {item for items in train.values() for item in items}
    assert by_user(prepared, TRAIN, VALIDATION) == train
    assert by_user(prepared, TEST) == {u: [i if i in known else None for i in items] for u, items in test.items()}
    assert by_user(prepared, VALIDATION) == {
        user: items[len(items) * 9 // 10 :] for user, items in train.items() if items[len(items) * 9 // 10 :]
    }
    assert all(len(train[user]) == 8 for user in train if len(train[user]) + len(test[user]) == 10)


def test_lsamn_and_rum_on_the_real_ratings_of_instruments(shared: Path, tmp_path: Path) -> None:
    rows = query(f"SELECT user_id, item_id, timestamp FROM '{shared}/amazon-musical-instruments-5core.parquet'")
    prepared = apply(recipe("rum-musical"), ratings_file(tmp_path, "ratings_Musical_Instruments.csv", rows))
    assert_as_rum(prepared, rows)
    assert prepared.manifest["recipe"]["found"]["log"] == {
        "events": 2716, "users": 188, "sessions": 0, "items": 804, "prefixes": None,
    }  # fmt: skip
    path = ratings_file(tmp_path, "ratings_Sports_and_Outdoors.csv", rows)
    assert_as_lsamn(apply(recipe("lsamn-so"), path), lsamn(rows))


# ---------------------------------------------------------------------------- DMAN: segments, last two


def some_histories(seed: int, users: int = 12, longest: int = 500) -> list[Rating]:
    """Long histories in the order of users, not of time, with many equal times."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(1, users + 1):
        length = int(rng.integers(3, longest)) if user > 2 else (3, 201)[user - 1]
        times = 970_000_000 + rng.integers(0, length, length) * 60
        rows += [(user, int(rng.zipf(1.5)) % 90 + 1, int(time)) for time in times]
    return rows


def assert_as_dman(prepared: Prepared, expected: dict[Any, list[Any]], size: int) -> None:
    """The newest `size` events and the one after them; the last is test, the one before it validation."""
    kept = {user: items[-size - 1 :] for user, items in expected.items()}
    known = {item for items in kept.values() for item in items[:-1]}
    assert by_user(prepared, TRAIN) == {user: items[:-2] for user, items in kept.items()}
    assert by_user(prepared, VALIDATION) == {user: items[-2:-1] for user, items in kept.items()}
    assert by_user(prepared, TEST) == {u: [items[-1] if items[-1] in known else None] for u, items in kept.items()}


def test_dman_on_movielens(tmp_path: Path) -> None:
    rows = some_histories(seed=7)
    path = written(tmp_path / "ratings.dat", ((u, i, 4, t) for u, i, t in rows), "::")
    titles = [f"{item}::Film {item}, Thé (1999)::Drama|War" for item in range(1, 100)]
    (tmp_path / "movies.dat").write_bytes("\n".join(titles).encode("latin-1"))
    prepared = apply(recipe("dman-movielens-1m"), tmp_path)
    assert_as_dman(prepared, {u: [row[1] for row in found] for u, found in histories(rows).items()}, 200)
    first = prepared.items.ids[0]
    assert prepared.items.columns["title"][0] == f"Film {first}, Thé (1999)"
    assert "3,952 is the highest id" in comparison(prepared)
    assert path.exists()


def test_dman_on_taobao(tmp_path: Path) -> None:
    rows = some_histories(seed=8)
    bad = [(3, 5, 5, "pv", -1_500_000_000), (3, 5, 5, "pv", 9_999_999_999)]
    written(tmp_path / "UserBehavior.csv", [*((u, i, i % 5, "buy", t) for u, i, t in rows), *bad])
    prepared = apply(recipe("dman-taobao"), tmp_path, rejected=tmp_path / "aside.csv")
    assert_as_dman(prepared, {u: [row[1] for row in found] for u, found in histories(rows).items()}, 200)
    with (tmp_path / "aside.csv").open() as file:
        assert [row["reason"] for row in csv.DictReader(file)] == ["time before 1970", "time in the future"]


def test_dman_on_jd(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    rows = []
    for user, item, time in some_histories(seed=9, longest=60):
        moment = datetime.fromtimestamp(time, UTC)
        text = f"{moment.year}/{moment.month}/{moment.day} {moment.hour}:{moment.minute:02}"
        rows.append((user, item, text, user * 1000 + time // HOUR % 1000, time // 60))
    rows = [rows[k] for k in rng.permutation(len(rows))]
    head = "user_id,item_id,action_time,session_id"
    written(tmp_path / "sample_action.csv", (row[:4] for row in rows), head=head)
    prepared = apply(recipe("dman-jd"), tmp_path)
    expected = histories([(user, item, minute) for user, item, _, _, minute in rows])
    assert_as_dman(prepared, {u: [row[1] for row in found] for u, found in expected.items()}, 200)


def test_dman_on_xlong(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    expected = {user: rng.integers(1, 300, int(rng.integers(3, 1100))).tolist() for user in (9, 4, 7)}
    lines = [
        (k, user, ",".join(map(str, items[:-1])), items[-1], 5, "1,2", "3,4")
        for k, (user, items) in enumerate(expected.items())
    ]
    path = written(tmp_path / "train_corpus_total_dual.txt", lines, "\t")
    prepared = apply(recipe("dman-xlong"), path)
    assert_as_dman(prepared, expected, 1000)
    assert prepared.manifest["sources"]["files"][0]["name"] == path.name
    assert isinstance(prepared.items.ids[0], int)
    written(path, [*lines, lines[0]], "\t")
    with pytest.raises(DataError, match="user 9 has several lines, and one line a history is expected"):
        apply(recipe("dman-xlong"), path)


# ------------------------------------------------------------------------ ASARS: gaps, dwell, supports


def assert_as_asars(prepared: Prepared, expected: dict[Any, list[Look]]) -> None:
    log = prepared.manifest["recipe"]["found"]["log"]
    looks = [look for found in expected.values() for look in found]
    assert log["events"] == sum(map(len, looks))
    assert log["sessions"] == len(looks)
    assert log["items"] == len({event[0] for look in looks for event in look})
    train, test = prepared.part(TRAIN, VALIDATION), prepared.part(TEST)
    assert train.times is not None
    assert test.times is not None
    raw = [None, *prepared.items.ids]
    events = list(
        zip([raw[n] for n in train.items], train.times, train.columns["gap"], train.columns["dwell"], strict=True)
    )
    found = [events[a:b] for a, b in itertools.pairwise(train.sessions.tolist())]
    cut = min(test.times[test.sessions[1:] - 1])
    assert sorted(found) == sorted(look for look in looks if look[-1][1] < cut), "test sessions are those that end last"
    assert 0 < len(test) < 0.3 * log["events"]
    assert (test.items > 0).all(), "test items that training lacks are dropped"
    assert prepared.manifest["not_causal"] == ["dwell"]


def some_visits(seed: int, users: int = 60) -> list[Rating]:
    """Visits with pauses of minutes, and of exactly an hour or more between them; distinct times."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(1, users + 1):
        time = 970_000_000 + user * 7
        for _ in range(int(rng.integers(3, 24))):
            time += int(rng.choice([HOUR, HOUR + 1, 20 * HOUR]))
            for _ in range(int(rng.integers(1, 7))):
                time += int(rng.integers(10, 1000))
                rows.append((user, int(rng.zipf(1.4)) % 80, time))
    return rows


def test_asars_on_movielens_and_tianchi(tmp_path: Path) -> None:
    rows = some_visits(seed=11)
    expected = asars(histories(rows), (2, 10, 10))
    assert 10 < len(expected) < 50
    written(tmp_path / "ratings.dat", ((u, i, 4, t) for u, i, t in rows), "::")
    prepared = apply(recipe("asars-movielens-1m"), tmp_path)
    assert_as_asars(prepared, expected)
    assert prepared.manifest["recipe"]["found"]["log"]["users"] == len(expected)
    assert "53,309" in comparison(prepared)
    written(tmp_path / "UserBehavior.csv", ((u, i, 3, "pv", t) for u, i, t in rows))
    assert_as_asars(apply(recipe("asars-tianchi"), tmp_path), expected)


def test_asars_on_yoochoose(tmp_path: Path) -> None:
    rows = [(user * 50 + time // (2 * HOUR) % 50, item, time) for user, item, time in some_visits(seed=12)]
    expected = asars(histories(rows), (2, 20, 0))
    clicks = [(session, item, time * 1000, 0) for session, item, time in rows]
    prepared = apply(recipe("asars-recsys15"), yoochoose(tmp_path, clicks))
    assert_as_asars(prepared, expected)
    assert "17,920,066" in comparison(prepared)
