"""Session neighbours by hand, against versions that look at every session in loops, and on what can go wrong."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from foretaste.data.sequences import Sequences
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, SavedFileError
from foretaste.models.baselines.neighbours import SKNN, VSKNN
from foretaste.models.baselines.session_votes import Neighbours
from foretaste.models.baselines.vstan import VSTAN
from foretaste.models.contract import Events
from foretaste.models.saved import Trained

KINDS = {"s-knn": SKNN, "vs-knn": VSKNN, "vstan": VSTAN}
DECAYS = ("same", "linear", "div", "quadratic", "log")
DAY = 86_400
CASES = [
    ("s-knn", {}),
    ("s-knn", {"k": 7, "sample": 12}),
    ("vs-knn", {}),
    *(("vs-knn", {"weighting": one, "k": 9, "sample": 25, "idf": 2.0}) for one in DECAYS),
    *(("vs-knn", {"score_weighting": one, "k": 11, "idf": 0.0, "window": 13}) for one in DECAYS),
    ("vstan", {}),
    ("vstan", {"k": 6, "sample": 20, "place": 3.0, "days": 1.5, "share": 0.4, "near": 1.1, "step": 4.0, "idf": 0.5}),
    ("vstan", {"k": 1, "sample": 3}),
]


def log_of(sessions: list[list[int]], ends: list[int] | None = None) -> Sequences:
    """Anonymous sessions; `ends` gives the second of the last event of each, the others a second apart before it."""
    size = [len(one) for one in sessions]
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    items = np.array([item for one in sessions for item in one], dtype=np.int32)
    times = None
    if ends is not None:
        times = np.array([end - n + 1 + t for end, n in zip(ends, size, strict=True) for t in range(n)], dtype=np.int64)
    part, nobody = np.zeros(len(items), np.uint8), np.zeros(len(size), np.int32)
    return Sequences(items, offsets, offsets, part, nobody, times=times)


def made(name: str, log: Sequences, n_items: int, **config: object) -> Neighbours:
    model = KINDS[name](n_items, KINDS[name].Config(**config))
    model.count(log)
    return model.eval()


def run(model: Neighbours, items: list[int]) -> np.ndarray:
    """Scores [I] after the last of `items`."""
    query, _ = model(Events.of([items]), model.initial_state(torch.zeros(1, dtype=torch.int64)))
    return model.score(query)[0, -1].numpy()


def order_of(log: Sequences, n_items: int) -> list[tuple[int, int]]:
    """(count, last occurrence) of each item, looked up one by one."""
    when = range(len(log.items)) if log.times is None else log.times.tolist()
    seen = list(zip(when, log.items.tolist(), strict=True))
    places = {i: [t for t, item in seen if item == i] for i in range(1, n_items + 1)}
    return [(len(found), max(found, default=-1)) for found in places.values()]


def slow(name: str, c: dict, log: Sequences, n_items: int, open_: list[int]) -> list[float]:
    """Scores [I] from the equations: every past session is looked at, every item of every neighbour counted by hand."""
    bounds = list(zip(log.sessions[:-1], log.sessions[1:], strict=True))
    past = [log.items[a:b].tolist() for a, b in bounds]
    end = [b if log.times is None else int(log.times[b - 1]) for _, b in bounds]
    ages = sorted(range(len(past)), key=lambda n: (end[n], n), reverse=True)  # the latest first
    s = open_[-c["window"] :]
    step = {i: len(s) - max(t for t, item in enumerate(s) if item == i) for i in s}  # 1 for the newest

    def weight(i: int) -> float:
        d, L = step[i] - 1, len(s)
        if name == "s-knn":
            return 1
        if name == "vstan":
            return math.exp(-d / c["place"])
        shapes = {"same": 1, "linear": max(0, 1 - 0.1 * d), "div": (L - d) / L, "quadratic": ((L - d) / L) ** 2}
        return {**shapes, "log": 1 / math.log10(d + 1.7)}[c["weighting"]]

    heard = [i for i in step if round(weight(i), 12) > 0]
    latest = [n for n in ages if set(heard) & set(past[n])][: c["sample"]]
    near = {}
    for n in latest:
        total = sum(weight(i) for i in heard if i in past[n])
        if name == "vs-knn":
            near[n] = total / len(heard)
        else:
            norm = math.sqrt(sum(weight(i) ** 2 for i in heard) * len(set(past[n])))
            near[n] = total / norm
        if name == "vstan":
            days, later = (max(end) - end[n]) / DAY, ages.index(n) / len(past)
            near[n] *= math.exp(-later / c["share"] if log.times is None else -days / c["days"])
    chosen = sorted(latest, key=lambda n: (-round(near[n] / max(near.values()), 9), ages.index(n)))[: c["k"]]
    scores = [0.0] * n_items
    for n in chosen:
        star = min(heard, key=lambda i: step[i] if i in past[n] else math.inf)
        q = step[star]
        if name == "vs-knn":
            late = {"same": 1, "linear": max(0, 1 - 0.1 * (q - 1)), "div": 1 / q, "quadratic": 1 / q**2}
            worth = {**late, "log": 1 / math.log10(q + 1.7)}[c["score_weighting"]]
        else:
            worth = math.exp(-(q - 1) / c["step"]) if name == "vstan" else 1
        last = {i: t for t, i in enumerate(past[n])}
        for i in last:
            idf = math.log(len(past) / sum(i in one for one in past))
            close = math.exp(-abs(last[i] - last[star]) / c["near"]) if name == "vstan" else 1
            scores[i - 1] += near[n] * worth * close * (1 + c.get("idf", 0) * idf)
    return scores


def random_log(seed: int, n_items: int, clock: bool, n_sessions: int = 60) -> Sequences:
    """Sessions of one to nine events over few items, so that they share much; ends in no order, some at one second."""
    rng = np.random.default_rng(seed)
    likely = 1 / np.arange(1, n_items + 1)
    sessions = [
        (1 + rng.choice(n_items, rng.integers(1, 10), p=likely / likely.sum())).tolist() for _ in range(n_sessions)
    ]
    return log_of(sessions, (rng.integers(1, 40, n_sessions) * DAY // 4).tolist() if clock else None)


@pytest.mark.parametrize("clock", [True, False], ids=["clock", "order"])
@pytest.mark.parametrize(("name", "config"), CASES, ids=str)
def test_equal_to_looking_at_every_session(name: str, config: dict, clock: bool) -> None:
    """Scores to 1e-10, and the order of all items, ties included."""
    n_items = 17
    rng = np.random.default_rng(8)
    for seed in range(3):
        log = random_log(seed, n_items, clock)
        model = made(name, log, n_items, **config)
        full = model.config.as_dict()
        standing = order_of(log, n_items)
        for length in (1, 2, 4, 7, 12, 30):
            open_ = rng.integers(1, n_items + 1, length).tolist()
            found, wanted = run(model, open_), slow(name, full, log, n_items, open_)
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10 * max(1, *wanted))
            ranked = sorted(range(n_items), key=lambda i: (round(wanted[i], 9), *standing[i]), reverse=True)
            assert np.argsort(-found, kind="stable").tolist() == ranked, f"{open_}"


@pytest.mark.parametrize("clock", [True, False], ids=["clock", "order"])
@pytest.mark.parametrize(("name", "config"), CASES, ids=str)
def test_unknown_items_and_users_with_many_sessions_change_nothing(name: str, config: dict, clock: bool) -> None:
    """Events of items that are not in the catalogue (0) are no part of it; whose a session was is nothing."""
    log, rng = random_log(4, 17, clock), np.random.default_rng(9)
    users = np.unique([*log.sessions[::3], log.sessions[-1]])
    items = np.where(rng.random(len(log.items)) < 0.2, 0, log.items).astype(np.int32)
    model = made(
        name, replace(log, items=items, users=users, user_numbers=np.ones(len(users) - 1, np.int32)), 17, **config
    )
    spans = [(a, b) for a, b in zip(log.sessions[:-1], log.sessions[1:], strict=True) if items[a:b].any()]
    known = [items[a:b][items[a:b] > 0].tolist() for a, b in spans]
    alone = log_of(known, None if log.times is None else [int(log.times[b - 1]) for _, b in spans])
    for length in (1, 3, 12):
        open_ = rng.integers(1, 18, length).tolist()
        wanted = slow(name, model.config.as_dict(), alone, 17, open_)
        np.testing.assert_allclose(run(model, open_), wanted, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_short_lists_lose_nothing(data: st.DataObject) -> None:
    """The m latest of all sessions with a shared item, though each list holds no more than its own m latest."""
    name = data.draw(st.sampled_from(list(KINDS)))
    n_items = data.draw(st.integers(2, 6))
    item = st.integers(1, n_items)
    sessions = data.draw(st.lists(st.lists(item, min_size=1, max_size=5), min_size=1, max_size=14))
    m, k = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 5))
    log, open_ = log_of(sessions), data.draw(st.lists(item, min_size=1, max_size=5))
    model = made(name, log, n_items, sample=m, k=k)
    wanted = slow(name, model.config.as_dict(), log, n_items, open_)
    np.testing.assert_allclose(run(model, open_), wanted, rtol=1e-10, atol=1e-10)
    assert np.diff(model.index.list_starts.numpy()).max() <= m


def test_vs_knn_by_hand() -> None:
    """Two neighbours: one shares the newest item, one the item before it."""
    log = log_of([[1, 3], [2, 4], [5, 5]])
    found = run(made("vs-knn", log, 5, weighting="div", score_weighting="div", idf=1.0), [1, 2])
    rare = 1 + math.log(3)
    np.testing.assert_allclose(found, [0.125 * rare, 0.5 * rare, 0.125 * rare, 0.5 * rare, 0], atol=1e-12)
    assert np.argsort(-found).tolist() == [3, 1, 2, 0, 4], "of equal scores the item that came last goes first"


def test_s_knn_by_hand() -> None:
    """Cosines of sets: 2 / sqrt(2 * 3), 1 / sqrt(2 * 1)."""
    found = run(made("s-knn", log_of([[1, 2, 3, 1], [2], [4]]), 4), [1, 2, 1])
    both, one = 2 / math.sqrt(6), 1 / math.sqrt(2)
    np.testing.assert_allclose(found, [both, both + one, both, 0], atol=1e-12)


def test_vstan_by_hand() -> None:
    """Each of the four decays, one neighbour; the latest session of all is two days younger."""
    log = log_of([[1, 2, 3], [4]], [DAY, 3 * DAY])
    found = run(made("vstan", log, 4, place=2.0, days=4.0, near=3.0, step=5.0, idf=0.0), [2, 4, 4, 3, 9 - 5])
    w = {4: 1.0, 3: math.exp(-1 / 2), 2: math.exp(-4 / 2)}
    norm = math.sqrt(sum(x * x for x in w.values()))
    first = (w[3] + w[2]) / norm / math.sqrt(3) * math.exp(-2 / 4) * math.exp(-1 / 5)
    wanted = [first * math.exp(-2 / 3), first * math.exp(-1 / 3), first, 1 / norm]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_the_time_of_asking_changes_nothing() -> None:
    """The age of every neighbour grows alike, so VSTAN is asked without a clock."""
    model = made("vstan", random_log(0, 9, clock=True), 9)
    state = model.initial_state(torch.zeros(2, dtype=torch.int64))
    query, _ = model(Events.of([[3, 1], [3, 1]], times=[[5, 6], [10**9, 10**9 + 1]]), state)
    scores = model.score(query)
    assert torch.equal(scores[0], scores[1])
    assert model.needs == frozenset()


def test_a_log_of_the_ages_keeps_its_old_sessions_apart() -> None:
    """Ten years at lambda 2 of a day: exp(-3650) is 0 in float64, and the oldest neighbours still vote."""
    found = run(made("vstan", log_of([[1, 2], [3]], [DAY, 3650 * DAY]), 3, days=1.0), [1])
    assert found[1] > 0


@pytest.mark.parametrize(
    ("config", "open_", "old"),
    [
        ({"days": 2.5}, [1], [1, 3]),
        ({"days": 2.5, "idf": 5.0}, [1], [1, 3]),
        ({"place": 0.2, "step": 0.2}, [5, 6, 7, 1], [5, 3]),
    ],
)
def test_a_faint_vote_counts_beside_a_strong_one(config: dict, open_: list[int], old: list[int]) -> None:
    """A session of today, thirty that are e^-60 or e^-30 as near, and an item that stood with none of them."""
    sessions = [*[old] * 30, *[[4, 8]] * 50, [1, 2]]
    log = log_of(sessions, [*[DAY] * 30, *[DAY] * 50, (151 if "days" in config else 1) * DAY])
    found = run(made("vstan", log, 40_000, **config), open_)
    best = np.argsort(-found, kind="stable") + 1
    assert 2 in best[:2]
    assert best.tolist().index(3) < best.tolist().index(4)


def test_later_sessions_go_first_where_they_are_equal() -> None:
    log = log_of([[1, 2], [1, 3], [1, 4]], [30, 90, 60])
    for name in KINDS:
        for settings_ in ({"k": 1}, {"sample": 1}):
            first = {"idf": 0.0, **settings_} if name != "s-knn" else settings_
            found = run(made(name, log, 4, **first), [1])
            assert (found > 0.1).tolist() == [True, False, True, False], "the session that ended last"
    without = run(made("s-knn", log_of([[1, 2], [1, 3]]), 3, k=1), [1])
    assert without.argmin() == 1, "without a clock: the later in the log"


@pytest.mark.parametrize("name", KINDS)
def test_what_can_go_wrong(name: str) -> None:
    """Rare items, equal sessions, few neighbours, two items, and nothing to go by: the popular first, no vote."""
    log = log_of([[1, 1, 1], [1, 1], [2, 3], [3, 2], [2, 3]])
    model = made(name, log, 5, k=500, idf=0.0) if name != "s-knn" else made(name, log, 5, k=500)
    by_count = [0, 2, 1, 4, 3]  # 5, 3 (last seen later), 3, none
    assert np.argsort(-run(model, [1]), kind="stable")[:1].tolist() == [0], "sessions of one item again and again"
    assert set(np.argsort(-run(model, [2]))[:2].tolist()) == {1, 2}
    for nothing in ([4], [5, 4]):  # items that no session holds
        assert np.argsort(-run(model, nothing), kind="stable")[:3].tolist() == by_count[:3]
    empty = model.score(model.query(model.initial_state(torch.zeros(1, dtype=torch.int64))))[0, 0]
    assert empty.argsort(descending=True)[:3].tolist() == by_count[:3]
    assert float(empty.max()) < 1e-6, "no vote at all"
    once = made(name, log_of([[1, 2], [3, 4]]), 4)
    assert set(np.argsort(-run(once, [3]))[:2].tolist()) == {2, 3}, "neighbours of an item seen once"
    for log, n_items in ((log_of([[1, 2], [1]]), 2), (log_of([[1, 1, 1], [1, 1], [2, 3], [3, 2], [2, 3]]), 5)):
        few = made(name, log, n_items)
        for open_ in ([1], [2], [2, 1], [1, 1, 2]):
            np.testing.assert_allclose(
                run(few, open_), slow(name, few.config.as_dict(), log, n_items, open_), atol=1e-9
            )
    unseen = KINDS[name](3)  # never counted
    assert (run(unseen, [1, 2]) == 0).all()


def test_ties_may_be_left() -> None:
    log = log_of([[1, 2, 3, 3]])
    left, settled = made("s-knn", log, 4, ties="none"), made("s-knn", log, 4)
    assert run(left, [1])[:3].tolist() == [run(left, [1])[0]] * 3
    assert np.argsort(-run(settled, [1])).tolist() == [2, 1, 0, 3]


def test_settings_are_checked() -> None:
    for wrong in ({"k": 0}, {"sample": 0}, {"window": 0}, {"weighting": "cubic"}, {"idf": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            VSKNN.Config(**wrong)


@pytest.mark.parametrize("name", KINDS)
def test_saved_with_its_index_and_refused_when_it_was_edited(name: str, tmp_path: Path) -> None:
    model = made(name, random_log(2, 9, clock=True), 9)
    trained = Trained(name, model, Vocabulary(list(range(9))), None, {})
    folder = trained.save(tmp_path / "run")
    again = Trained.load(folder)
    assert again.recommend([3, 1]).scores == trained.recommend([3, 1]).scores
    for key, value in (("index.lists", 10**6), ("index.items", 0), ("index.session_starts", -4)):
        weights = load_file(folder / "weights.safetensors")
        weights[key][len(weights[key]) // 2] = value
        save_file(weights, folder / "weights.safetensors")
        with pytest.raises(SavedFileError, match=r"weights\.safetensors: was edited or damaged"):
            Trained.load(folder)
        facts = json.loads((folder / "recommender.json").read_text())
        del facts["files"], facts["checksum"]  # as an earlier version wrote it
        (folder / "recommender.json").write_text(json.dumps(facts))
        with pytest.raises(SavedFileError, match="points outside"):
            Trained.load(folder)
        trained.save(folder)


@pytest.mark.parametrize("name", KINDS)
def test_it_says_what_it_goes_by(name: str) -> None:
    """The shares of an answer's votes add up to 1 over the items of the window, each at its newest place."""
    log = log_of([[1, 2], [1, 2], [1, 3]])
    model = made(name, log, 4)
    events = Events.of([[2, 1, 2, 4], [4]])
    said = model.explain(events, model.initial_state(torch.zeros(2, dtype=torch.int64)))
    weights, items = said["attention"][0, 3], said["items"][0, 3]
    assert items[-4:].tolist() == [2, 1, 2, 4]
    assert weights[-4] == 0, "2 comes again"
    assert weights[-1] == 0, "4 is held by no session"
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert float(said["attention"][1].abs().sum()) == 0


def test_the_index_holds_each_pair_once() -> None:
    """4 bytes an entry of either side: the sessions of each item, latest first, and the items of each session."""
    model = made("vs-knn", log_of([[2, 1, 2], [1], [2, 3]], [50, 70, 60]), 3)
    index = model.index
    assert index.session_starts.tolist() == [0, 1, 3, 5]
    assert index.items.tolist() == [1, 2, 3, 1, 2], "the latest session is number 0"
    assert index.list_starts.tolist() == [0, 0, 2, 4, 5]
    assert index.lists.tolist() == [0, 2, 1, 2, 1]
    assert index.lists.dtype == index.items.dtype == torch.int32
