"""The processes behind the small logs of simulate.py: each with one secret, and the exact law of the next item.

Every law but popularity's is alike: SHARE of the mass lies evenly on k favourites, the rest evenly on all items. So it
matters which items are favourites, not how they rank among themselves, and a small log is enough to learn it. Items are
equally popular wherever popularity is not the secret.

A process gives rows of labels 0..I-1, the law of each asked test event, and the law for those who know less. What they
cannot know is averaged out by Bayes, exactly: over the orders of a bag of items, topics, users, or past events.

Letters: R rows, T events a row, I items, k favourites; `cases` are the asked events of the test part, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import ConfigError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

SHARE = 0.8
"""Mass of the favourites."""
GROUPS = 7
"""Groups of items in "order". Odd, so that its rule is one-to-one in each of the two events."""
DEALS = 3
"""Topics an item belongs to in "set"."""
MARKERS = 8
"""First events in "distant"."""
DISTANCE = 30
"""Events between the marker and the answer in the test part of "distant", at least; WINDOW of them are seen."""
WINDOW = 20
TEST_FROM = 0.75


@dataclass(frozen=True)
class Drawn:
    """What a process gives."""

    items: Ints
    """[R, T] labels 0..I-1."""
    late: Floats
    """[R, 1] or [1, T] in 0..1: how late a row, or a session of every row, comes; the test part from TEST_FROM on."""
    asked: Bools
    """[R, T]: True where the event is asked for."""
    law: Floats
    """[cases, I]: the truth."""
    known: Mapping[str, Floats]
    """The law for those who know no more than the key says; [cases, I], or [1, I] if it is the same everywhere."""
    session: int
    """Events a session."""
    dwell: Ints | None = None
    """[R, T] seconds until the next event."""


def spread(favourites: Ints, n_items: int) -> Floats:
    """[n, I]: the law with these favourites [n, k]."""
    law = np.full((len(favourites), n_items), (1 - SHARE) / n_items)
    law[np.arange(len(favourites))[:, None], favourites] += SHARE / favourites.shape[1]
    return law


def pick(rng: np.random.Generator, favourites: Ints, n_items: int) -> Ints:
    """[n]: one item from each of the laws with these favourites [n, k]."""
    n, k = favourites.shape
    chosen = favourites[np.arange(n), rng.integers(k, size=n)]
    return np.where(rng.random(n) < SHARE, chosen, rng.integers(n_items, size=n))


def blend(log_mass: Floats, laws: Floats) -> Floats:
    """[n, I]: the mean of the laws [K, I] by a posterior, given as logarithms [n, K] up to a constant."""
    weight = np.exp(log_mass - log_mass.max(1, keepdims=True))  # [n, K]
    mixed: Floats = weight / weight.sum(1, keepdims=True) @ laws
    return mixed


def _uniform(n_items: int) -> Floats:
    return np.full((1, n_items), 1 / n_items)


def _row_by_row(n_rows: int) -> Floats:
    """[R, 1]: whole rows are test."""
    return (np.arange(n_rows) / n_rows)[:, None]


def _from(place: int, n_rows: int, length: int) -> Bools:
    """[R, T]: True from this place of each row on."""
    return np.broadcast_to(np.arange(length) >= place, (n_rows, length))


def _cases(late: Floats, asked: Bools) -> tuple[Ints, Ints]:
    """[cases] each: row and place."""
    row, place = np.nonzero((late >= TEST_FROM) & asked)
    return row, place


def _circle(rng: np.random.Generator, n_items: int, k: int) -> Ints:
    """[I, k]: followers of each item: the same k steps round a circle, so that all items stay equally popular.

    Of 50 draws, the steps with which two items share the fewest followers.
    """

    def shared(steps: Ints) -> int:
        between = (steps[:, None] - steps)[~np.eye(k, dtype=bool)] % n_items
        return int(np.bincount(between).max(initial=0))

    steps = min((1 + rng.choice(n_items - 1, size=k, replace=False) for _ in range(50)), key=shared)
    followers: Ints = (np.arange(n_items)[:, None] + steps) % n_items
    return followers


def popularity(rng: np.random.Generator, n_rows: int, length: int, n_items: int, k: int) -> Drawn:
    """The r-th item has mass in proportion to 1 / r, whatever came before. Asked: all but the first event."""
    law = 1 / np.arange(1, n_items + 1)
    law /= law.sum()  # [I]
    items = rng.choice(n_items, size=(n_rows, length), p=law)
    late, asked = _row_by_row(n_rows), _from(1, n_rows, length)
    every = np.broadcast_to(law, (len(_cases(late, asked)[0]), n_items))  # [cases, I]
    return Drawn(items, late, asked, every, {"nothing": _uniform(n_items)}, length)


def last_item(rng: np.random.Generator, n_rows: int, length: int, n_items: int, k: int) -> Drawn:
    """A Markov chain: each item has k followers. Asked: all but the first event."""
    follow = _circle(rng, n_items, k)  # [I, k]
    items = rng.integers(n_items, size=(n_rows, length))
    for t in range(1, length):
        items[:, t] = pick(rng, follow[items[:, t - 1]], n_items)
    late, asked = _row_by_row(n_rows), _from(1, n_rows, length)
    row, place = _cases(late, asked)
    law = spread(follow, n_items)[items[row, place - 1]]  # [cases, I]
    return Drawn(items, late, asked, law, {"popularity": _uniform(n_items)}, length)


def order(rng: np.random.Generator, n_rows: int, length: int, n_items: int, k: int) -> Drawn:
    """After items of groups x, then y, comes group x + 2 y (mod 7). Asked: from the third event on.

    For each y, the seven x lead to seven different groups: pairs stay uniform, and the last item alone tells nothing.
    x, y never leads where y, x leads (unless x = y): the two without their order leave two groups open.
    """
    if n_items != k * GROUPS:
        raise ConfigError(f"simulated log 'order': n_items = {n_items}; take {GROUPS} groups of {k} = {k * GROUPS}")
    x, y = np.mgrid[:GROUPS, :GROUPS]
    leads = (x + 2 * y) % GROUPS  # [m, m] to which group
    members = np.arange(n_items).reshape(GROUPS, k)  # [m, k]
    items = rng.integers(n_items, size=(n_rows, length))
    for t in range(2, length):
        items[:, t] = pick(rng, members[leads[items[:, t - 2] // k, items[:, t - 1] // k]], n_items)
    late, asked = _row_by_row(n_rows), _from(2, n_rows, length)
    row, place = _cases(late, asked)
    groups = items // k  # [R, T]
    step = spread(members, n_items)[leads]  # [m, m, I]
    law = step[groups[row, place - 2], groups[row, place - 1]]  # [cases, I]
    bags = bag_laws(step[:, :, ::k] * k, length)  # bag -> [m] law of the next group
    counts = np.cumsum(np.eye(GROUPS, dtype=np.int64)[groups], axis=1)  # [R, T, m] groups up to each event
    seen = np.array([bags[tuple(bag)] for bag in counts[row, place - 1].tolist()])  # [cases, m]
    known = {"last_item": _uniform(n_items), "set": np.repeat(seen / k, k, axis=1)}
    return Drawn(items, late, asked, law, known, length)


def bag_laws(step: Floats, length: int) -> dict[tuple[int, ...], Floats]:
    """The law [m] of the next group for who knows how often each group came so far, but not in which order.

    step [m, m, m] is the law after x, y; the first two groups are uniform. All orders are summed at once: of each bag
    of t groups, `ends` holds the mass [m, m] of those of its orders that end in x, y.
    """
    m = len(step)
    ends: dict[tuple[int, ...], Floats] = {}
    for x, y in product(range(m), repeat=2):
        bag = tuple(int(g == x) + int(g == y) for g in range(m))
        ends.setdefault(bag, np.zeros((m, m)))[x, y] = 1 / m**2
    laws: dict[tuple[int, ...], Floats] = {}
    for _ in range(2, length):
        longer: dict[tuple[int, ...], Floats] = {}
        for bag, mass in ends.items():
            after = np.einsum("xy,xyz->yz", mass, step)  # [m, m] mass that ends in y, z
            laws[bag] = after.sum(0) / mass.sum()
            for z in range(m):
                grown = (*bag[:z], bag[z] + 1, *bag[z + 1 :])
                longer.setdefault(grown, np.zeros((m, m)))[:, z] += after[:, z]
        ends = longer
    return laws


def session_set(rng: np.random.Generator, n_rows: int, length: int, n_items: int, k: int) -> Drawn:
    """A session draws from the k favourites of its hidden topic. Asked: all but the first event.

    The items are dealt into topics three times over, so each belongs to three: one item leaves three topics open.
    """
    if n_items % k:
        raise ConfigError(f"simulated log 'set': n_items = {n_items}; take a multiple of {k}, the size of a topic")
    topics = np.concatenate([rng.permutation(n_items).reshape(-1, k) for _ in range(DEALS)])  # [K, k]
    topic = rng.integers(len(topics), size=n_rows)  # [R]
    items = pick(rng, np.repeat(topics[topic], length, axis=0), n_items).reshape(n_rows, length)
    late, asked = _row_by_row(n_rows), _from(1, n_rows, length)
    row, place = _cases(late, asked)
    laws = spread(topics, n_items)  # [K, I]
    each = np.log(laws.T)[items]  # [R, T, K]
    law = blend(np.cumsum(each, axis=1)[row, place - 1], laws)  # [cases, I] from the session so far
    known = {"popularity": _uniform(n_items), "last_item": blend(each[row, place - 1], laws)}
    return Drawn(items, late, asked, law, known, length)


def distant(rng: np.random.Generator, n_rows: int, length: int, n_items: int, k: int) -> Drawn:
    """A user's first event is one of eight markers. Once, a bell rings, and the marker's favourites come next.

    All else is noise. Asked: the event after the bell, never the first of a session of eight. In training it rings at
    any time, so that the link can be learned step by step; in the test part only long after the marker.
    """
    if length % 8 or length < DISTANCE + 2:
        raise ConfigError(f"simulated log 'distant': length = {length}; take a multiple of 8 from {DISTANCE + 2} on")
    if n_items < 1 + MARKERS * (1 + k):
        raise ConfigError(f"simulated log 'distant': n_items = {n_items}; take at least {1 + MARKERS * (1 + k)}")
    bell = MARKERS  # labels: markers, the bell, all others
    others = np.arange(MARKERS + 1, n_items)
    favourites = rng.permutation(others)[: MARKERS * k].reshape(MARKERS, k)
    marker = rng.integers(MARKERS, size=n_rows)  # [R]
    late = _row_by_row(n_rows)
    times = np.array([t for t in range(1, length - 1) if t % 8 != 7])  # the answer is in the bell's session
    rings = np.where(late[:, 0] < TEST_FROM, rng.choice(times, n_rows), rng.choice(times[times >= DISTANCE], n_rows))
    items = rng.choice(others, size=(n_rows, length))
    items[:, 0] = marker
    items[np.arange(n_rows), rings] = bell
    items[np.arange(n_rows), rings + 1] = pick(rng, favourites[marker], n_items)
    asked = np.arange(length) == rings[:, None] + 1  # [R, T]
    laws = spread(favourites, n_items)  # [M, I]
    blind = laws.mean(0, keepdims=True)  # [1, I] noise tells nothing of the marker
    return Drawn(items, late, asked, laws[marker[_cases(late, asked)[0]]], {"recent": blind, "session": blind}, 8)


def user_taste(rng: np.random.Generator, n_rows: int, length: int, n_items: int, k: int) -> Drawn:
    """Each user has k favourites for ever. Asked: all but the first event of each session of three.

    Who knows only the session has a posterior over the users, from its one or two events so far.
    """
    if length % 12:
        raise ConfigError(f"simulated log 'user_taste': length = {length}; take a multiple of 12 (sessions of 3)")
    favourites = rng.permuted(np.tile(np.arange(n_items), (n_rows, 1)), axis=1)[:, :k]  # [U, k]
    items = pick(rng, np.repeat(favourites, length, axis=0), n_items).reshape(n_rows, length)
    late = (np.arange(length) / length)[None]  # [1, T] the last sessions of all are test
    inside = np.arange(length) % 3  # [T] place in the session
    asked = np.broadcast_to(inside > 0, (n_rows, length))
    row, place = _cases(late, asked)
    laws = spread(favourites, n_items)  # [U, I]
    each = np.log(laws.T)  # [I, U]
    log_mass = each[items[row, place - 1]]  # [cases, U]
    log_mass[inside[place] == 2] += each[items[row, place - 2]][inside[place] == 2]
    known = {"popularity": laws.mean(0, keepdims=True), "session": blend(log_mass, laws)}
    return Drawn(items, late, asked, laws[row], known, 3)


def dwell(rng: np.random.Generator, n_rows: int, length: int, n_items: int, k: int) -> Drawn:
    """The followers of the latest item that was looked at long come next. Asked: from the fourth event on.

    Half of the events are looked at long (60 to 120 s), the others in passing (2 to 10 s); the first one always long.
    The newest event does not count yet: how long it is looked at is known only when the next one comes.
    """
    follow = _circle(rng, n_items, k)  # [I, k]
    laws = spread(follow, n_items)  # [I, I]
    long = rng.random((n_rows, length)) < 0.5
    long[:, 0] = True
    seconds = np.where(long, rng.integers(60, 121, long.shape), rng.integers(2, 11, long.shape))
    late, asked = _row_by_row(n_rows), _from(3, n_rows, length)
    items = rng.integers(n_items, size=(n_rows, length))
    driver = items[:, 0]  # [R] the latest long item but the newest
    belief = np.zeros((n_rows, length))  # [R, T] that event j drives, by ids alone
    belief[:, 0] = 1
    test = late[:, 0] >= TEST_FROM
    law, by_ids = [], []  # of each t, [test rows, I]
    for t in range(2, length):
        driver = np.where(long[:, t - 2], items[:, t - 2], driver)
        items[:, t] = pick(rng, follow[driver], n_items)
        if t >= 3:
            law.append(laws[driver[test]])
            by_ids.append(np.einsum("rj,rji->ri", belief[test, : t - 1], laws[items[test, : t - 1]]))
        belief *= laws[items, items[:, t, None]]  # Bayes: the drivers that explain event t
        belief *= 0.5 / belief.sum(1, keepdims=True)  # and event t - 1 drives next, if it was long
        belief[:, t - 1] = 0.5
    flat = np.stack(law, 1).reshape(-1, n_items), np.stack(by_ids, 1).reshape(-1, n_items)
    return Drawn(items, late, asked, flat[0], {"ids": flat[1]}, length, seconds)
