"""The small logs: their ceilings against slow independent reckoning, against counting, and against what was drawn."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.data import processes
from foretaste.data.returning import CYCLE, FAR, SHOWN
from foretaste.data.sequences import TEST, TRAIN, VALIDATION
from foretaste.data.simulate import KINDS, KnownLog, known, top_mass
from foretaste.data.splits import Given
from foretaste.errors import ConfigError

Floats = NDArray[np.float64]
EVERY = pytest.mark.parametrize("kind", KINDS)


@cache
def sample(kind: str) -> KnownLog:
    return known(kind, seed=7)


def hits(law: Floats, targets: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Whether each target is among the k likeliest; ties are broken by lot."""
    lot = np.random.default_rng(0).random(law.shape) * 1e-9
    top = np.argpartition(-(law + lot), k - 1, axis=1)[:, :k]
    found: NDArray[np.bool_] = (top == targets[:, None]).any(1)
    return found


def near(values: NDArray[np.generic], expected: float) -> bool:
    """The mean of a sample lies within 4 standard errors."""
    return abs(values.mean() - expected) < 4 * values.std() / np.sqrt(len(values)) + 1e-12


# What the bounds are


def test_bounds_by_hand() -> None:
    """Favourites have 0.8, evenly; 0.2 lies on all items."""
    harmonic = 1 / np.arange(1, 101)
    favourites = {"last_item": 5 / 100, "order": 7 / 49, "distant": 5 / 60, "user_taste": 4 / 40, "dwell": 4 / 40}
    for kind, share in favourites.items():
        assert sample(kind).ceiling == pytest.approx(0.8 + 0.2 * share, abs=1e-12), kind
    assert sample("popularity").ceiling == pytest.approx(harmonic[:10].sum() / harmonic.sum(), abs=1e-12)
    assert sample("popularity").without == pytest.approx({"nothing": 0.1})
    assert sample("last_item").without == pytest.approx({"popularity": 0.05})
    assert sample("order").without["last_item"] == pytest.approx(1 / 7)
    assert sample("set").without["popularity"] == pytest.approx(1 / 6)
    assert sample("distant").without == pytest.approx(dict.fromkeys(("recent", "session"), 0.8 / 8 + 0.2 * 5 / 60))


@EVERY
@pytest.mark.parametrize("seed", [0, 1])
def test_the_secret_is_worth_half_as_much_again(kind: str, seed: int) -> None:
    log = known(kind, seed=seed)
    assert log.ceiling > 1.5 * max(log.without.values())
    assert log.ceiling > 0.55


@EVERY
def test_nobody_who_knows_the_law_does_better_or_worse_than_the_ceiling(kind: str) -> None:
    log = sample(kind)
    targets = log.sequences.items[log.asked].astype(np.int64) - 1
    np.testing.assert_allclose(log.law.sum(1), 1, atol=1e-12)
    assert log.law.shape == (len(log.asked), log.n_items)
    assert log.ceiling == pytest.approx(top_mass(log.law, log.k), abs=1e-12)
    assert near(hits(log.law, targets, log.k), log.ceiling)
    surprise = -np.log(log.law[np.arange(len(targets)), targets])
    entropy = -(log.law * np.log(log.law)).sum(1)
    assert near(surprise - entropy, 0)  # the law says how likely the drawn items were, not only which were likely


@EVERY
def test_who_knows_less_does_as_the_bound_says(kind: str) -> None:
    of = KINDS[kind]
    drawn = of.draw(np.random.default_rng(11), of.n_rows, of.length, of.n_items, of.k)
    row, place = np.nonzero((drawn.late >= processes.TEST_FROM) & drawn.asked)
    targets = drawn.items[row, place]
    assert set(drawn.known) == set(sample(kind).without)
    for name, law in drawn.known.items():
        every = np.broadcast_to(law, (len(targets), of.n_items))
        np.testing.assert_allclose(every.sum(1), 1, atol=1e-12)
        assert near(hits(every, targets, of.k), top_mass(law, of.k)), name


# Counting on a large sample, with no idea of the process


def counted(log: KnownLog, key: NDArray[np.int64]) -> float:
    """Recall at k on the test part of one who counted the training targets by a key of each asked event."""
    s = log.sequences
    items = s.items.astype(np.int64) - 1
    train = np.flatnonzero((s.part == TRAIN) & s.may_be_target())
    table = np.zeros((key.max() + 1, log.n_items))
    np.add.at(table, (key[train], items[train]), 1)
    return float(hits(table[key[log.asked]], items[log.asked], log.k).mean())


def back(log: KnownLog, steps: int) -> NDArray[np.int64]:
    return np.roll(log.sequences.items, steps).astype(np.int64)


def nothing(log: KnownLog) -> NDArray[np.int64]:
    return np.zeros(len(log.sequences), dtype=np.int64)


def last(log: KnownLog) -> NDArray[np.int64]:
    return back(log, 1)


def last_two(log: KnownLog) -> NDArray[np.int64]:
    return back(log, 1) * 100 + back(log, 2)


def last_two_unordered(log: KnownLog) -> NDArray[np.int64]:
    return np.minimum(back(log, 1), back(log, 2)) * 100 + np.maximum(back(log, 1), back(log, 2))


def first_of_the_row(log: KnownLog) -> NDArray[np.int64]:
    return np.repeat(log.sequences.items[log.sequences.users[:-1]], np.diff(log.sequences.users)).astype(np.int64)


def shown_most(log: KnownLog) -> NDArray[np.int64]:
    """The favourites' group that the beginning of the cycle held most of; groups are those that answers come from."""
    s, size = log.sequences, CYCLE
    cycles = s.items.reshape(-1, size)
    answers = s.items[np.flatnonzero(s.may_be_target())].reshape(-1)  # one a cycle
    together = np.zeros((log.n_items + 1, log.n_items + 1))
    for shown, answer in zip(cycles[:, :SHOWN], answers, strict=True):
        together[answer, shown] += 1
    friends = together + together.T
    order = np.argsort(-friends, axis=1, kind="stable")[:, :5]  # [1 + I, 5] an item's own group comes first
    group = order.min(1)  # the same number for the five of a group
    seen = group[cycles[:, :SHOWN]]
    most = np.array([np.bincount(row, minlength=log.n_items + 1).argmax() for row in seen])
    return np.repeat(most, size)


def the_user(log: KnownLog) -> NDArray[np.int64]:
    return np.repeat(np.arange(log.sequences.n_users), np.diff(log.sequences.users))


def latest_long(log: KnownLog) -> NDArray[np.int64]:
    """The latest item looked at for a minute, among all but the newest before each event."""
    s = log.sequences
    index = np.where(s.columns["dwell"] >= 60, np.arange(len(s)), 0)
    return s.items[np.roll(np.maximum.accumulate(index), 2)].astype(np.int64)


@pytest.mark.parametrize(
    ("kind", "rows", "key", "bound"),
    [
        ("popularity", 3000, nothing, "ceiling"),
        ("last_item", 20000, last, "ceiling"),
        ("last_item", 4000, nothing, "popularity"),
        ("order", 40000, last_two, "ceiling"),
        ("order", 40000, last, "last_item"),
        ("set", 20000, last, "last_item"),
        ("set", 20000, nothing, "popularity"),
        ("distant", 8000, first_of_the_row, "ceiling"),
        ("distant", 8000, last, "recent"),
        ("returning", 400, last, "recent"),
        ("user_taste", 1000, the_user, "ceiling"),
        ("user_taste", 1000, nothing, "popularity"),
        ("dwell", 8000, latest_long, "ceiling"),
    ],
)  # fmt: skip
def test_counting_reaches_the_bound_and_not_more(kind: str, rows: int, key: object, bound: str) -> None:
    assert callable(key)
    log = known(kind, n_rows=rows, seed=3)
    expected = log.ceiling if bound == "ceiling" else log.without[bound]
    assert counted(log, key(log)) == pytest.approx(expected, abs=0.025)


def test_counting_what_is_too_little_stays_below() -> None:
    order = known("order", n_rows=40000, seed=3)
    pairs = counted(order, last_two_unordered(order))
    assert 0.4 < pairs < order.without["set"]  # 0.8 / 2 + ... : one of two groups
    dwell = known("dwell", seed=3)
    assert counted(dwell, last(dwell)) < dwell.without["ids"]
    assert counted(dwell, back(dwell, 2)) < dwell.without["ids"] + 0.01
    taste = sample("user_taste")
    assert counted(taste, last(taste)) < taste.without["session"]


# The same by slow enumeration


def test_bags_equal_the_sum_over_all_orders() -> None:
    rng = np.random.default_rng(0)
    step = rng.dirichlet(np.ones(3), size=(3, 3))
    laws = processes.bag_laws(step, length=6)
    for size in range(2, 6):
        slow: dict[tuple[int, ...], Floats] = defaultdict(lambda: np.zeros(3))
        for way in product(range(3), repeat=size):
            mass = np.prod([step[way[t - 2], way[t - 1], way[t]] for t in range(2, size)])
            slow[way.count(0), way.count(1), way.count(2)] += mass * step[way[-2], way[-1]]
        for bag, law in slow.items():
            np.testing.assert_allclose(laws[bag], law / law.sum(), atol=1e-12)
    assert len(laws) == 6 + 10 + 15 + 21


def test_order_is_exact_at_the_level_of_items() -> None:
    """Third events: the set is the two items before, in either order."""
    drawn = processes.order(np.random.default_rng(1), 40, 3, 14, 2)
    third = np.flatnonzero(drawn.late[:, 0] >= 0.75)
    for row, law, by_set in zip(third, drawn.law, drawn.known["set"], strict=True):
        x, y = drawn.items[row, :2] // 2
        expected = np.full((2, 14), 0.2 / 14)
        expected[0, 2 * ((x + 2 * y) % 7) :][:2] += 0.4
        expected[1, 2 * ((y + 2 * x) % 7) :][:2] += 0.4
        np.testing.assert_allclose(law, expected[0], atol=1e-12)
        np.testing.assert_allclose(by_set, expected.mean(0), atol=1e-12)


def test_set_is_bayes_over_topics() -> None:
    rng = np.random.default_rng(5)
    drawn = processes.session_set(rng, 16, 5, 12, 3)
    again = np.random.default_rng(5)
    topics = np.concatenate([again.permutation(12).reshape(4, 3) for _ in range(3)])
    laws = [[0.2 / 12 + 0.8 / 3 * (item in topic) for item in range(12)] for topic in topics]
    row, place = np.nonzero((drawn.late >= 0.75) & drawn.asked)
    for r, t, law, by_last in zip(row, place, drawn.law, drawn.known["last_item"], strict=True):
        for seen, found in ((drawn.items[r, :t], law), (drawn.items[r, t - 1 : t], by_last)):
            weight = np.array([np.prod([each[item] for item in seen]) for each in laws])
            np.testing.assert_allclose(found, weight @ np.array(laws) / weight.sum(), atol=1e-12)


def test_user_taste_by_session_is_bayes_over_users() -> None:
    drawn = processes.user_taste(np.random.default_rng(6), 9, 24, 10, 2)
    tastes = np.random.default_rng(6).permuted(np.tile(np.arange(10), (9, 1)), axis=1)[:, :2]
    laws = np.array([[0.02 + 0.4 * (item in taste) for item in range(10)] for taste in tastes])
    row, place = np.nonzero((drawn.late >= 0.75) & drawn.asked)
    assert sorted(set(place.tolist())) == [19, 20, 22, 23]
    for r, t, law, by_session in zip(row, place, drawn.law, drawn.known["session"], strict=True):
        weight = np.array([np.prod([each[item] for item in drawn.items[r, t - t % 3 : t]]) for each in laws])
        np.testing.assert_allclose(law, laws[r], atol=1e-12)
        np.testing.assert_allclose(by_session, weight @ laws / weight.sum(), atol=1e-12)


def test_dwell_by_ids_is_the_mean_over_all_ways_of_looking() -> None:
    drawn = processes.dwell(np.random.default_rng(8), 12, 7, 9, 2)
    row, place = np.nonzero((drawn.late >= 0.75) & drawn.asked)
    assert drawn.dwell is not None
    follow = {int(item): set() for item in range(9)}
    steps = followers_of_zero(np.random.default_rng(8), 9, 2)
    for item in follow:
        follow[item] = {(item + step) % 9 for step in steps}
    laws = np.array([[0.2 / 9 + 0.4 * (item in follow[by]) for item in range(9)] for by in range(9)])
    for r, t, law, by_ids in zip(row, place, drawn.law, drawn.known["ids"], strict=True):
        items, seconds = drawn.items[r], drawn.dwell[r]
        total, mixed = 0.0, np.zeros(9)
        for looked in product((False, True), repeat=t - 2):
            long = [True, *looked]  # events 0 .. t - 2
            drivers = [max(j for j in range(u - 1) if long[j]) for u in range(2, t + 1)]
            mass = np.prod([laws[items[j], items[u]] for u, j in zip(range(2, t), drivers, strict=False)])
            total += mass
            mixed += mass * laws[items[drivers[-1]]]
        np.testing.assert_allclose(by_ids, mixed / total, atol=1e-12)
        np.testing.assert_allclose(law, laws[items[max(j for j in range(t - 1) if seconds[j] >= 60)]], atol=1e-12)


def followers_of_zero(rng: np.random.Generator, n_items: int, k: int) -> list[int]:
    return [int(step) for step in processes._circle(rng, n_items, k)[0]]


# What the logs are


@EVERY
def test_items_are_numbered_by_count_and_labels_are_shuffled(kind: str) -> None:
    log = sample(kind)
    s = log.sequences
    counts = np.bincount(s.items[s.part != TEST], minlength=log.n_items + 1)
    assert counts[0] == 0
    assert (np.diff(counts[1:]) <= 0).all()
    assert counts[-1] > 0
    assert sorted(log.ids.tolist()) == list(range(1, log.n_items + 1))
    assert log.ids.tolist() != sorted(log.ids.tolist())


@EVERY
def test_rows_sessions_and_parts(kind: str) -> None:
    log, of = sample(kind), KINDS[kind]
    s = log.sequences
    assert len(s) == of.n_rows * of.length
    assert s.n_users == of.n_rows
    assert np.isin(s.users, s.sessions).all()
    assert s.times is not None
    assert (np.diff(s.times.reshape(of.n_rows, -1), axis=1) > 0).all()
    assert (s.part == TEST).mean() == pytest.approx(0.25)
    assert not (s.may_be_target()[s.sessions[:-1]]).any()  # the first event of a session is never asked
    assert (s.user_numbers > 0).any() == of.users
    if kind == "user_taste":
        assert s.user_numbers.tolist() == list(range(1, 1001))
        assert s.times[s.part == TEST].min() > s.times[s.part == TRAIN].max()
    else:
        assert len(np.unique(s.part.reshape(of.n_rows, -1).sum(1))) == 2  # whole rows


def test_noise_is_that_of_so_many_cases() -> None:
    log = sample("last_item")
    assert len(log.asked) == 9000
    assert log.noise == pytest.approx((0.81 * 0.19 / 9000) ** 0.5)


def test_which_events_are_asked() -> None:
    first = {"popularity": 1, "last_item": 1, "order": 2, "set": 1, "dwell": 3}
    for kind, place in first.items():
        asked = sample(kind).sequences.may_be_target().reshape(KINDS[kind].n_rows, -1)
        assert asked[:, place:].all(), kind
        assert not asked[:, :place].any(), kind
    taste = sample("user_taste").sequences.may_be_target().reshape(-1, 3)
    assert (taste == [False, True, True]).all()


def test_a_returning_interest_is_far_away_in_the_test_part() -> None:
    log = sample("returning")
    s = log.sequences
    asked = np.flatnonzero(s.may_be_target())
    assert len(asked) == 4000
    assert len(np.unique(s.items[asked - 1])) == 1  # the bell
    since, test = asked % CYCLE, s.part[asked] == TEST
    assert since[test].min() == SHOWN + FAR + 1
    assert since[~test].min() <= SHOWN + 2
    assert 0.75 < counted(log, shown_most(log)) < log.ceiling  # who looks back as far as that can tell


def test_distant_markers_are_out_of_sight() -> None:
    log = sample("distant")
    s = log.sequences
    asked = np.flatnonzero(s.may_be_target())
    assert len(asked) == 8000
    assert len(np.unique(s.items[asked - 1])) == 1  # the bell
    since = asked - s.users[:-1]
    test = s.part[asked] == TEST
    assert since[test].min() == processes.DISTANCE + 1 > processes.WINDOW
    assert since[~test].min() == 2
    assert len(np.unique(s.items[s.users[:-1]])) == processes.MARKERS


def test_dwell_is_the_time_to_the_next_event() -> None:
    s = sample("dwell").sequences
    assert s.times is not None
    times, dwell = s.times.reshape(8000, 12), s.columns["dwell"].reshape(8000, 12)
    np.testing.assert_array_equal(np.diff(times, axis=1), dwell[:, :-1])
    assert (dwell[:, 0] >= 60).all()
    assert (dwell[:, 1:] >= 60).mean() == pytest.approx(0.5, abs=0.01)
    assert set(np.unique(dwell)) == {*range(2, 11), *range(60, 121)}


@EVERY
def test_a_seed_says_everything(kind: str) -> None:
    one, two, other = sample(kind), known(kind, seed=7), known(kind, seed=8)
    np.testing.assert_array_equal(one.sequences.items, two.sequences.items)
    np.testing.assert_array_equal(one.law, two.law)
    assert (one.ceiling, one.without) == (two.ceiling, two.without)
    assert not np.array_equal(one.sequences.items, other.sequences.items)


@EVERY
def test_a_validation_part_is_taken_from_training(kind: str) -> None:
    one, two = sample(kind).sequences, known(kind, seed=7, validation=True).sequences
    np.testing.assert_array_equal(one.items, two.items)
    np.testing.assert_array_equal(one.part == TEST, two.part == TEST)
    assert (two.part == VALIDATION).mean() == pytest.approx(0.15, abs=0.001)
    assert (np.diff(two.part.reshape(KINDS[kind].n_rows, -1), axis=0) >= 0).all()


@EVERY
def test_the_raw_log_prepares_to_the_same_sequences(kind: str) -> None:
    log = known(kind, n_rows=600, seed=7, validation=True)
    prepared = log.log().prepare(Given())
    for name in ("items", "users", "sessions", "part", "user_numbers", "times", "target"):
        np.testing.assert_array_equal(getattr(prepared.sequences, name), getattr(log.sequences, name), err_msg=name)
    for name, column in log.sequences.columns.items():
        np.testing.assert_array_equal(prepared.sequences.columns[name], column)
    assert prepared.items.raw(range(1, log.n_items + 1)) == log.ids.tolist()


# What is refused, and what is not loaded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "last-item"}, "'last-item': no such kind; did you mean 'last_item'"),
        ({"kind": "order", "n_items": 50}, "n_items = 50; take 7 groups of 7 = 49"),
        ({"kind": "set", "n_items": 55}, "n_items = 55; take a multiple of 10"),
        ({"kind": "distant", "length": 24}, "length = 24; take a multiple of 8 from 32 on"),
        ({"kind": "distant", "n_items": 48}, "n_items = 48; take at least 49"),
        ({"kind": "user_taste", "length": 10}, "length = 10; take a multiple of 12"),
        ({"kind": "dwell", "length": 3}, "it takes at least 10 rows, 4 events a row and 5 items"),
        ({"kind": "popularity", "n_rows": 0}, "0 rows of 10 events"),
        ({"kind": "popularity", "n_items": 10}, "over 10 items; it takes at least 10 rows, 2 events a row and 11"),
        ({"kind": "last_item", "n_rows": 10}, "items are missing in its training part; take more than 10 rows"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        known(**arguments)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_other_sizes_work() -> None:
    log = known("distant", n_rows=400, length=64, n_items=80)
    assert log.sequences.items.max() == 80
    assert log.ceiling == pytest.approx(0.8 + 0.2 * 5 / 80)
    assert known("user_taste", n_rows=50, length=12).law.shape == (50 * 2, 40)


def test_torch_and_duckdb_stay_out() -> None:
    code = "import sys; from foretaste.data import simulate as s; s.known('set'); s.shop(9); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "duckdb", "pydantic"} & set(done.stdout.split())
