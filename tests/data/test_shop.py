"""The simulated shop: the log says what the truth says, and there is something in it to learn."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.data.shop import CATALOGUE, HOURS, START, WHY, Simulated, shop
from foretaste.errors import ConfigError

DAY = 86_400


@pytest.fixture(scope="module")
def made() -> Simulated:
    return shop(seed=1)


@pytest.fixture(scope="module")
def row(made: Simulated) -> NDArray[np.int64]:
    """[n]: which row of `items` each event shows."""
    order = np.argsort(made.items["item"])
    found: NDArray[np.int64] = order[np.searchsorted(made.items["item"][order], made.columns["item"])]
    return found


def test_sizes(made: Simulated) -> None:
    assert {name: len(np.unique(column)) for name, column in made.columns.items() if name in ("user", "item")} == {
        "user": 4000,
        "item": 1000,
    }
    assert 80_000 < len(made.columns["item"]) < 100_000
    assert len(made.truth["intent_category"]) == made.columns["session"].max()
    assert len({len(column) for column in made.columns.values()}) == 1


def test_titles_can_be_read_and_told_apart(made: Simulated) -> None:
    titles = made.items["title"]
    assert len(set(titles)) == 1000
    assert len(set(made.items["item"])) == 1000
    assert set(made.items["category"]) == set(CATALOGUE)
    for title, category, style in zip(titles, made.items["category"], made.truth["style"], strict=True):
        _, styles, things, finishes = CATALOGUE[category]
        thing, _, finish = title.removeprefix(f"{style} ").partition(", ")
        assert style in styles.split(", ")
        assert thing in things.split(", ")
        assert finish in ["", *finishes.split(", ")]
    assert (made.items["price"] > 0).all()
    lighting = made.items["price"][made.items["category"] == "Lighting"]
    assert np.median(lighting) == pytest.approx(CATALOGUE["Lighting"][0], rel=0.15)


def test_every_item_of_a_full_shop_has_its_own_title() -> None:
    full = shop(5, n_items=12 * 8 * 8 * 7)
    assert len(set(full.items["title"])) == 5376


def test_events_and_items_agree(made: Simulated, row: NDArray[np.int64]) -> None:
    c, truth = made.columns, made.truth
    assert (truth["categories"][c["category"]] == made.items["category"][row]).all()
    session = c["session"] - 1
    wanted = c["category"] == truth["intent_category"][session]
    np.testing.assert_array_equal(truth["matches"], wanted & (truth["style"][row] == truth["intent_style"][session]))
    assert truth["matches"][truth["why"] == "intent"].all()
    assert wanted[truth["why"] == "category"].all()
    for why, share in WHY.items():
        assert (truth["why"] == why).mean() == pytest.approx(share, abs=0.06), why


def test_back_is_to_an_earlier_item_of_the_session(made: Simulated) -> None:
    order = np.lexsort((made.columns["time"], made.columns["session"]))
    session, item, why = made.columns["session"][order], made.columns["item"][order], made.truth["why"][order]
    opening = np.searchsorted(session, session)
    for event in np.flatnonzero(why == "back")[:500]:
        assert item[event] in item[opening[event] : event - 1]


def test_who_looks_for_something_looks_longer(made: Simulated) -> None:
    dwell, matches = made.columns["dwell"], made.truth["matches"]
    assert np.median(dwell[matches]) == pytest.approx(45, abs=2)
    assert np.median(dwell[~matches]) == pytest.approx(9, abs=1)
    assert dwell.min() >= 1
    assert dwell.max() <= 900


def test_time_runs_like_in_a_shop(made: Simulated) -> None:
    c = made.columns
    assert (np.diff(c["time"]) >= 0).all()
    order = np.lexsort((c["time"], c["session"]))
    session, time, dwell, user = (c[name][order] for name in ("session", "time", "dwell", "user"))
    inside = session[1:] == session[:-1]
    np.testing.assert_array_equal(np.diff(time)[inside], dwell[:-1][inside])
    assert (user[1:] == user[:-1])[inside].all()
    opening = np.flatnonzero(np.concatenate([[True], ~inside]))
    day, hour = (time[opening] - START) // DAY, (time[opening] - START) % DAY // 3600
    assert day.min() == 0
    assert day.max() < 90
    np.testing.assert_allclose(np.bincount(hour, minlength=24)[6:] / len(hour), HOURS / HOURS.sum(), atol=0.02)
    same = user[opening][1:] == user[opening][:-1]
    assert (np.diff(day)[same] >= 1).all()  # one visit a day at most, so a gap of 30 minutes finds the sessions
    assert 2 < np.median(np.diff(day)[same]) < 5
    assert np.diff(opening).mean() == pytest.approx(5, abs=0.1)


def test_taste_is_long_term_and_drifts(made: Simulated) -> None:
    truth, c = made.truth, made.columns
    np.testing.assert_allclose(truth["taste"].sum(1), 1)
    np.testing.assert_allclose(truth["visit_taste"].sum(1), 1)
    _, event = np.unique(c["session"], return_index=True)
    user = c["user"][event] - 1  # [S]
    first = np.searchsorted(user, np.arange(4000))
    np.testing.assert_allclose(truth["visit_taste"][first], truth["taste"], atol=1e-4)
    moved = np.abs(truth["visit_taste"] - truth["taste"][user]).sum(1)
    visit = np.arange(len(user)) - first[user]
    assert 0.02 < moved[visit == 1].mean() < moved[visit == 4].mean() < moved[visit == 12].mean() < 0.5
    # wishes are drawn from it: the mean mass of what was wished is the mean of sum p^2
    wished = truth["visit_taste"][np.arange(len(user)), truth["intent_category"]]
    assert wished.mean() == pytest.approx((truth["visit_taste"] ** 2).sum(1).mean(), abs=0.01)
    assert wished.mean() == pytest.approx(1.4 / 5.8, abs=0.02)  # Dirichlet of 12 times 0.4


def test_popularity_is_skewed_and_the_session_says_far_more(made: Simulated, row: NDArray[np.int64]) -> None:
    """What a plain rule reaches: the items of the last one's style, by popularity, against popularity alone."""
    session, time = made.columns["session"], made.columns["time"]
    order = np.lexsort((time, session))
    shown, session = row[order], session[order]
    counts = np.bincount(shown, minlength=1000)
    assert 0.4 < np.sort(counts)[-100:].sum() / counts.sum() < 0.6
    before, after = shown[:-1][session[1:] == session[:-1]], shown[1:][session[1:] == session[:-1]]
    popular = np.argsort(-counts)[:20]
    assert np.isin(after, popular).mean() == pytest.approx(0.27, abs=0.05)
    style = np.unique(np.char.add(made.items["category"], made.truth["style"]), return_inverse=True)[1]
    rank = np.array([(counts[style == style[item]] >= counts[item]).sum() for item in range(1000)])
    assert ((style[before] == style[after]) & (rank[after] <= 20)).mean() > 0.6


def test_a_seed_says_everything() -> None:
    one, two, other = shop(50, seed=3), shop(50, seed=3), shop(50, seed=4)
    for name in one.columns:
        np.testing.assert_array_equal(one.columns[name], two.columns[name])
    np.testing.assert_array_equal(one.items["title"], two.items["title"])
    assert not np.array_equal(one.columns["item"][:50], other.columns["item"][:50])


def test_the_log_has_its_items(made: Simulated) -> None:
    log = made.log()
    assert log.has >= {"users", "sessions", "times"}
    assert (log.steps[-1].events, log.steps[-1].users, log.steps[-1].items) == (len(made.columns["item"]), 4000, 1000)
    assert set(log.columns) == {"dwell", "category"}
    item, title = made.items["item"][17], made.items["title"][17]
    found = log.db.execute(f"SELECT title, price FROM {log.items_table} WHERE item = ?", [int(item)]).fetchall()
    assert found == [(title, pytest.approx(made.items["price"][17]))]


@pytest.mark.parametrize(
    "sizes", [{"n_users": 0}, {"n_items": 11}, {"n_items": 5377}, {"visits": 0.5}, {"days": 0}]
)  # fmt: skip
def test_sizes_that_cannot_be(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least one user, visit and day, and 12 to 5376 items"):
        shop(**sizes)


@pytest.mark.slow
def test_a_hundred_thousand_users() -> None:
    assert len(shop(100_000).columns["item"]) > 2_000_000
