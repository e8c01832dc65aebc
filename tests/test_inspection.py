"""What `foretaste inspect`, `models` and `doctor` say, on a log small enough to count by hand."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste import EventLog, Prepared, Recommender, shop, splits, words
from foretaste.data.sequences import Sequences
from foretaste.errors import DataError, ForetasteError, SavedFileError
from foretaste.inspection import environment, inspect_folder, inspect_log, inspect_models, is_ours, of_log
from foretaste.inspection.advice import Advice, models
from foretaste.inspection.asking import askings
from foretaste.inspection.log import LogFacts, Unknown, log_facts
from foretaste.inspection.page import page
from foretaste.inspection.returns import blocks
from foretaste.inspection.spread import SECONDS, Tally
from foretaste.inspection.text import state
from foretaste.models import MODELS, model_class
from foretaste.models.bins import TimeBins
from tests.shell import Shell

ROWS = [
    # user, session, item, time
    ("ann", "a1", "tea", 1000),
    ("ann", "a1", "tea", 1010),
    ("ann", "a1", "milk", 1040),
    ("ann", "a1", "tea", 1100),
    ("ann", "a2", "rum", 5000),
    ("bob", "b1", "tea", 2000),
    ("bob", "b1", "milk", 2010),
    ("bob", "b2", "cake", 9000),
    ("bob", "b2", "cake", 9003),
    ("bob", "b2", "milk", 9003),
]
COLUMNS = ("user", "session", "item", "time")


def log(*names: str) -> EventLog:
    table = {name: [row[COLUMNS.index(name)] for row in ROWS] for name in ("item", "time", *names)}
    return EventLog.read(table, item="item", time="time", **{name: name for name in names})  # type: ignore[arg-type]


def facts_of(events: EventLog) -> LogFacts:
    return log_facts(events.prepare(None))


def test_a_log_counted_by_hand() -> None:
    found, text = inspect_log(log("user", "session"))
    assert [(step["name"], step["events"]) for step in found["steps"]] == [("read", 10)]
    facts = facts_of(log("user", "session"))
    assert (facts.events, facts.users, facts.sessions, facts.items, facts.anonymous, facts.cold) == (10, 2, 4, 4, 0, 0)
    assert facts.density == 6 / 8  # ann: tea, milk, rum; bob: tea, milk, cake
    assert (facts.since, facts.until) == ("1970-01-01T00:16:40", "1970-01-01T02:30:03")

    row, user = facts.lengths["events of a session"], facts.lengths["events of a user"]
    assert (row.of, row.mean, row.median, row.max) == (4, 2.5, 2.5, 4)  # 4, 1, 2, 3
    assert (row.p90, row.p99) == (pytest.approx(3.7), pytest.approx(3.97))
    assert [bar.count for bar in row.bars] == [1, 1, 1, 1]
    assert (user.of, user.median) == (2, 5)
    assert facts.lengths["sessions of a user"].mean == 2
    assert (facts.lonely, facts.questions) == (1 / 4, 6 / 10)

    step, pause = facts.times["to the next event"], facts.times["to the next session"]
    assert (step.of, step.mean, step.median, step.max) == (6, 113 / 6, 10, 60)  # 10, 30, 60, 10, 3, 0
    assert [(bar.label, bar.count) for bar in step.bars] == [
        ("under 1 s", 1), ("to 10 s", 1), ("to 30 s", 2), ("to 1 min", 1), ("to 5 min", 1),
    ]  # fmt: skip
    assert (pause.of, pause.mean) == (2, (3900 + 6990) / 2)
    assert facts.same_time == 1 / 6  # cake, milk
    assert facts.immediate == 2 / 6  # tea tea, cake cake
    assert facts.others_future == 2 / 8  # the first question is at 5000; cake and cake are later

    assert [(one.item, one.events) for one in facts.leaders] == [("tea", 4), ("milk", 3), ("cake", 2), ("rum", 1)]
    assert facts.popularity.once == 1
    assert facts.popularity.top_1 == 0.4  # at least one item: tea
    assert facts.popularity.gini == pytest.approx(0.25)  # 4, 3, 2, 1: sum of all differences 20 / (2 * 16 * 2.5)

    lines = dict(re.split("  +", line.strip(), maxsplit=1) for line in text.splitlines() if "  " in line.strip())
    assert lines["item of this session"] == "30 % of the events"
    assert lines["events of a user"] == "mean 5, median 5, p90 5, p99 5, max 5"
    assert lines["steps that take less than a second"] == "17 %"


def test_what_comes_back_by_hand() -> None:
    facts = facts_of(log("user", "session"))
    back = facts.items_back
    assert (back.inside, back.earlier, back.new) == (0.3, 0.1, pytest.approx(0.6))  # tea, tea, cake; milk of b2
    assert (back.past, back.several, back.pairs) == (2, 3, 6)
    # a2 has nothing of a1, b2 one event in three of b1
    assert back.back == (pytest.approx(1 / 6),) * 10
    assert back.ever == pytest.approx(1 / 6)
    # a1: tea 3/4, milk 1/4; b1: 1/2, 1/2; b2: 2/3, 1/3
    assert back.top[:3] == (pytest.approx((3 / 4 + 1 / 2 + 2 / 3) / 3), pytest.approx((1 / 4 + 1 / 2 + 1 / 3) / 3), 0)


def slow_returns(log: Sequences) -> tuple[list[float], list[float]]:
    """`back` and `top`, a session at a time."""
    tops: list[list[float]] = []
    backs: list[list[float]] = []
    for low, high in pairwise(log.users):
        cuts = [cut for cut in log.sessions if low <= cut <= high]
        seen: list[set[int]] = []
        for start, stop in pairwise(cuts):
            items = log.items[start:stop].tolist()
            if len(items) > 1:
                counts = sorted(Counter(items).values(), reverse=True)[:10]
                tops.append([count / len(items) for count in counts] + [0.0] * (10 - len(counts)))
            if seen:
                had = [set().union(*seen[-k:]) for k in range(1, 11)]
                backs.append([sum(item in known for item in items) / len(items) for known in had])
            seen.append(set(items))
    return np.mean(backs, axis=0).tolist(), np.mean(tops, axis=0).tolist()


@pytest.mark.parametrize("size", [1, 37, 10**6])
def test_returns_are_those_of_a_slow_count(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foretaste.inspection.log.blocks", partial(blocks, size=size))
    prepared = shop(n_users=40, n_items=30, seed=5).log().prepare(None)
    facts = log_facts(prepared)
    back, top = slow_returns(prepared.sequences)
    assert facts.items_back.back == pytest.approx(back, abs=1e-12)
    assert facts.items_back.top == pytest.approx(top, abs=1e-12)
    assert facts.categories == 12
    assert facts.categories_back is not None
    assert facts.categories_back.inside > facts.items_back.inside
    whole = facts.items_back
    assert whole.inside + whole.earlier + whole.new == pytest.approx(1)


@given(st.lists(st.lists(st.integers(0, 5000), max_size=40), min_size=1, max_size=30), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(parts: list[list[int]], share: float) -> None:
    tally = Tally()
    for part in parts:
        tally.add(np.array(part, np.int64))
    values = np.array([value for part in parts for value in part])
    spread = tally.spread(SECONDS)
    if not len(values):
        assert spread is None
        return
    assert spread is not None
    assert (spread.of, spread.max) == (len(values), values.max())
    assert spread.mean == pytest.approx(values.mean())
    assert (spread.median, spread.p90, spread.p99) == pytest.approx(np.quantile(values, [0.5, 0.9, 0.99]).tolist())
    assert sum(bar.count for bar in spread.bars) == len(values)


def test_the_gamma_law_is_that_of_scipy_and_bins_are_scotts() -> None:
    from scipy import stats

    seconds = np.random.default_rng(0).gamma(2.0, 40.0, 20_000).astype(np.int64)
    tally = Tally()
    tally.add(seconds)
    law = tally.gamma()
    assert law is not None
    inside = seconds[(seconds > 0) & (seconds <= 3600)]
    shape, _, scale = stats.gamma.fit(inside, floc=0)
    assert (law.shape, law.scale) == (pytest.approx(shape, rel=1e-4), pytest.approx(scale, rel=1e-4))
    assert law.fitted == len(inside) / len(seconds)
    assert law.distance < 0.02
    bins = TimeBins(3600, 1000)
    bins.fit(seconds.astype(np.float64))
    assert (law.width, law.bins) == (pytest.approx(float(bins.width)), int(bins.number))
    assert sum(law.density) * law.width == pytest.approx(1)
    x = np.array([10.0, 100.0])
    assert law.at(x) == pytest.approx(stats.gamma.pdf(x, law.shape, scale=law.scale))
    assert Tally().gamma() is None


def test_the_law_of_times_is_drawn_as_far_as_nine_in_ten_lie() -> None:
    """Though nearly all events share their time with the next, as the lines of an invoice do."""
    pytest.importorskip("matplotlib")
    from foretaste.inspection.drawings import dwell

    tally = Tally()
    tally.add(np.repeat([0, 600, 1200, 3000], [9000, 60, 37, 3]))
    law = tally.gamma()
    assert law is not None
    facts = SimpleNamespace(dwell=law)
    [(figure, title, _)] = dwell(facts)  # type: ignore[arg-type]
    (axes,) = figure.axes
    assert title == "Time to the next event, and its law."
    assert axes.get_ylim()[1] == pytest.approx(1.15 * max(law.density))
    assert 1200 < axes.get_xlim()[1] < 3000


def test_drift_by_hand() -> None:
    # twenty events of one visitor each; the first ten are a, then b, the last one c
    items = ["a"] * 10 + ["b"] * 9 + ["c"]
    table = {"item": items, "session": list(range(20)), "time": list(range(20))}
    facts = facts_of(EventLog.read(table, item="item", session="session", time="time"))
    drift = facts.drift
    assert drift is not None
    assert (drift.slices, drift.by, drift.top) == (10, "time", 1)
    assert drift.kept == (1, 1, 1, 1, 0, 1, 1, 1, 1)  # the last tenth is b, c: b is the more popular
    assert drift.hit == (1, 1, 1, 1, 0, 1, 1, 1, 0.5)
    assert drift.new == (1, 0, 0, 0, 0, 1, 0, 0, 0, 0.5)
    assert drift.apart[-1] == 0
    assert facts.unknown == Unknown(0.5, "the newest 10 % of the events, by time")


@pytest.mark.parametrize(("items", "share", "named"), [("abcaba", 0.5, True), ("abcdeaf", 1 / 7, False)])
def test_what_people_come_back_for_names_the_row_to_beat(items: str, share: float, named: bool) -> None:
    session = [place // 2 for place in range(len(items))]
    rows = {"u": [1] * len(items), "s": session, "i": list(items), "n": list(range(len(items)))}
    facts, text = inspect_log(EventLog.read(rows, user="u", session="s", item="i", order="n"))
    assert facts["items_back"]["earlier"] == pytest.approx(share)
    assert ("s-pop with scope=user" in " ".join(text.split())) == named


def test_a_log_without_users_or_sessions_or_times() -> None:
    facts, text = inspect_log(log("session"))
    assert (facts["users"], "events of a user" in facts["lengths"], facts["items_back"]["back"]) == (0, False, ())
    assert facts["clock"] == "time"
    assert facts["protocols"]["per-step"]["verdict"] == "take this"
    assert facts["protocols"]["living"]["verdict"] == "no"
    assert facts["models"]["rum-item"]["lacks"] == ("users",)
    assert "to the next session" not in text

    facts, text = inspect_log(log("user"))
    assert (facts["sessions"], facts["row"], facts["dwell"]) == (0, "history", None)
    assert facts["items_back"]["inside"] == 0.4  # ann: tea twice again; bob: cake and milk once again
    assert "item of this history" in text
    assert facts["cuts"] == {"30m": 4, "1h": 4, "1d": 2}
    assert facts["protocols"]["product"]["verdict"] == "take this"

    rows = {"item": ["x", "y", "x", "z"], "user": [1, 1, 2, 2], "place": [1, 2, 1, 2]}
    facts, text = inspect_log(EventLog.read(rows, item="item", user="user", order="place"))
    assert (facts["clock"], facts["drift"], facts["since"], facts["times"]) == ("", None, None, {})
    assert facts["unknown"] == {"share": 1.0, "how": "the last event of each user"}
    assert facts["protocols"]["living"]["verdict"] == "take this"
    assert facts["protocols"]["product"]["verdict"] == "no"
    assert facts["models"]["asars"]["lacks"] == ("times",)
    assert "variant=" in facts["models"]["asars"]["instead"]
    assert "Time\n" not in text


def test_a_log_of_one_event() -> None:
    rows = {"item": ["x"], "session": [1], "place": [1]}
    found = of_log(EventLog.read(rows, item="item", session="session", order="place"))
    facts = found.facts
    assert (facts.events, facts.immediate, facts.since, facts.drift, facts.questions) == (1, 0.0, None, None, 0)
    assert (facts.popularity.gini, facts.popularity.top_1, facts.lonely) == (0, 1, 1)
    assert "100 % of the sessions have one event" in found.text()
    assert json.loads(json.dumps(found.as_dict(), default=str, allow_nan=False))["events"] == 1
    assert "<h1>What the log is like</h1>" in page(found)


@pytest.mark.parametrize(
    ("users", "none"),
    [
        (range(8), {"per-step", "last-item:unit=user", "living", "frozen", "last-session"}),
        ([0, 1, 2, 3, 0, 1, 2, 3], {"per-step"}),
    ],
    ids=["once", "twice"],
)
def test_where_sessions_have_one_event_none_stands_before_it(users: Sequence[int], none: set[str]) -> None:
    """Users who come once, or twice, a day apart."""
    columns = {"u": list(users), "i": list(range(8)), "t": [86_400 * n for n in range(8)]}
    read = EventLog.read(columns, user="u", item="i", time="t").sessions(gap="1h")
    verdicts = {one.protocol: one.verdict for one in askings(facts_of(read))}
    assert verdicts["product"] == "take this"
    assert {name for name, verdict in verdicts.items() if verdict == "no"} == none


def test_baskets_are_asked_for_as_a_whole() -> None:
    rows = {"item": np.array(list("abcd") * 3), "time": np.array([0, 0, 9, 9] * 3)}
    rows |= {"user": np.repeat([1, 2, 3], 4), "session": np.repeat(range(6), 2)}
    facts = facts_of(EventLog.read(rows, user="user", session="session", item="item", time="time"))
    best = askings(facts)[0]
    assert facts.same_time == 1
    assert (best.protocol, best.verdict, best.split) == ("last-session", "take this", "global-time:fraction=0.1")
    assert best.leaks.endswith("also with what it has after the cut (in a log without sessions nothing).")


def test_every_split_and_protocol_that_is_named_can_be_used() -> None:
    prepared = log("user", "session").prepare(None)
    for one in askings(log_facts(prepared)):
        if one.verdict != "no":
            split, _ = words.parts_of(one.split, "none", frozenset())
            assert split is not None
            assert words.protocol(one.protocol).leaks in one.leaks
            assert split.leaks in one.leaks


def test_a_setting_that_does_without_is_one() -> None:
    facts = facts_of(log("session"))
    lacking = [one for one in models(facts) if one.lacks]
    assert {one.model for one in models(facts)} == set(MODELS)
    assert any(one.instead for one in lacking)
    for one in lacking:
        kind = model_class(one.model)
        assert set(one.lacks) == kind.needs_of(kind.Config()) - set(facts.offers)
        if one.instead:
            assert kind.needs_of(kind.Config(**words.settings([one.instead]))) <= set(facts.offers)


def test_cold_events_of_a_prepared_folder_are_no_item(tmp_path: Path) -> None:
    prepared = log("user", "session").prepare(splits.LastSession())  # a2 is rum alone, b2 has cake twice
    facts = log_facts(prepared)
    assert (facts.events, facts.cold, facts.items) == (10, 3, 2)
    assert facts.items_back.events == 7
    assert facts.items_back.inside == 2 / 7  # not the second cake: nobody knows that it is one
    assert facts.unknown == Unknown(3 / 4, "the test part of this folder")
    assert (facts.parts["test"]["events"], facts.parts["test"]["prefixes"]) == (4, 2)
    assert facts.split_by.startswith("LastSession(), which leaks other users' future")


def test_users_that_training_has_not_met_are_users() -> None:
    rows = {"user": [1, 1, 2, 2, None], "session": [1, 1, 2, 2, 3], "item": list("abaab"), "time": [1, 2, 90, 91, 3]}
    events = EventLog.read(pd.DataFrame(rows), user="user", session="session", item="item", time="time")
    prepared = events.prepare(splits.GlobalTime(fraction=0.4))
    facts = log_facts(prepared)
    assert (len(prepared.users or ()), facts.users, facts.anonymous) == (1, 2, 1)
    assert facts.lengths["events of a user"].of == 1  # of whom training knows that they are one


def test_the_page_escapes_what_comes_from_the_log() -> None:
    nasty = "<script>alert('&')</script>"
    rows = {"item": [nasty, "b", nasty], "session": ["<b>"] * 3, "time": [1, 2, 3], "title": [nasty, 'x"y', nasty]}
    rows |= {"category": ["<i>", "k", "<i>"]}
    events = EventLog.read(
        rows, item="item", session="session", time="time", item_columns=["title"], columns=["category"]
    )
    found = of_log(events, title="<u>&.csv")
    text = page(found)
    assert "<script" not in text
    assert "<title>What &lt;u&gt;&amp;.csv is like</title>" in text
    assert text.count("&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;") >= 2
    assert "<u>" not in text
    closed = re.sub(r"<meta([^>]*)>", r"<meta\1/>", text.removeprefix("<!doctype html>")).strip()
    parsed = ElementTree.fromstring(closed.replace("<html ", '<html xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))
    ids = [one.get("id") for one in parsed.iter() if one.get("id")]
    assert len(ids) == len(set(ids))
    links = [one.get("href", "").removeprefix("#") for one in parsed.iter("a")]
    assert set(links) <= set(ids)
    assert not re.search(r"""(?:src|href)=["'](?!#)|url\((?!#)""", text)  # it needs nothing but itself
    assert len(text) < 500_000


def test_the_page_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ForetasteError, match=r"foretaste\[viz\]"):
        page(of_log(log("user", "session")))


def test_the_command_writes_a_page_and_keeps_json_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["user,session,item,time,kind", *(",".join(map(str, row)) + ",drink" for row in ROWS)]
    Path("log.csv").write_text("\n".join(lines) + "\n")
    ft = Shell(capsys)
    columns = ("--item", "item", "--time", "time", "--user", "user", "--category", "kind")
    found = ft.well("inspect", "log.csv", *columns, "--gap", "30m", "--html", "log.html", "--json").json
    assert (found["page"], found["sessions"], found["categories"]) == ("log.html", 4, 1)
    assert found["categories_back"]["inside"] == 0.6
    assert Path("log.html").read_text().startswith("<!doctype html>")
    assert "written: log.html" in ft.well("inspect", "log.csv", *columns, "--html", "log.html").out
    log("user", "session").prepare(splits.LastSession(), folder="log")
    Recommender("pop").fit(Prepared.open("log")).save("pop")
    refused = ft("inspect", "pop", "--html", "pop.html")
    assert (refused.status, "has no page" in refused.err, Path("pop.html").exists()) == (2, True, False)
    refused = ft("inspect", "log", "--item", "article")
    assert (refused.status, "was read and cleaned when it was made" in refused.err) == (2, True)


def test_a_prepared_folder_and_a_recommender(tmp_path: Path) -> None:
    prepared = log("user", "session").prepare(splits.LastSession(), folder=tmp_path / "log")
    facts, text = inspect_folder(tmp_path / "log")
    assert facts["counts"]["test"]["events"] == 4
    assert facts["lengths"]["events of a session"]["max"] == 4
    assert facts["split"]["text"] == "LastSession()"
    assert text.startswith(prepared.report())

    narm = Recommender("narm", hidden_size=3, embedding_size=2, epochs=2).fit(prepared)
    narm.save(tmp_path / "narm")
    facts, text = inspect_folder(tmp_path / "narm")
    assert (facts["model"], facts["items"], facts["passes"]) == ("narm", 2, 2)
    assert facts["trained_with"]["epochs"] == 2
    assert "hidden_size=3" in text
    assert "passes        2 of 2" in text
    assert "LastSession()" in text

    Recommender("pop").fit(prepared).save(tmp_path / "pop")
    facts, text = inspect_folder(tmp_path / "pop")
    assert facts["trained_with"] == {"refit": False}
    assert text.split().index("2") == text.split().index("weights") + 1


def test_a_validation_is_shown_with_its_pass(tmp_path: Path) -> None:
    prepared = log("user", "session").prepare(None, splits.SessionOrder(count=1))
    narm = Recommender("narm", hidden_size=3, embedding_size=2, epochs=1, metric="mrr").fit(prepared)
    _, text = inspect_folder(narm.save(tmp_path / "narm"))
    assert narm.result is not None
    assert f"mrr {100 * narm.result.history[0]['validation']['mrr']:.2f} %, in pass 1" in text


def test_folders_of_ours_and_of_others(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert is_ours(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="neither a prepared log"):
        inspect_folder(tmp_path / "empty")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "part-0.parquet").write_bytes(b"PAR1")
    assert not is_ours(str(tmp_path / "raw"))
    (tmp_path / "raw" / "manifest.json").write_text("{}")
    assert is_ours(str(tmp_path / "raw"))
    with pytest.raises(SavedFileError, match=r"manifest\.json"):
        inspect_folder(tmp_path / "raw")
    assert not is_ours(str(tmp_path / "raw" / "part-0.parquet"))


def test_models_say_what_they_are() -> None:
    facts, text = inspect_models()
    assert list(facts) == list(MODELS)
    assert facts["pop"]["learns"] == "counts"
    about = facts["narm"]["settings"]["hidden_size"]
    assert about["default"] == 100
    assert about["about"].startswith("H, size of the GRU's state")
    assert "narm     GRU over the session" in text
    assert "the battery leaves out its gradients: it counts" in text
    assert facts["sr"]["searched"] == {"steps": "one of 5, 10, 20", "decay": "one of div, quadratic, linear, log"}
    assert facts["narm"]["searched"]["learning_rate"] == "0.0005 to 0.01 (log)"
    assert facts["pop"]["searched"] == {}
    assert "         searched: hidden_size, one of 50, 100, 200\n" in text


def test_the_environment() -> None:
    import duckdb
    import torch

    facts, text = environment()
    assert (facts["torch"], facts["duckdb"]) == (torch.__version__, duckdb.__version__)
    assert facts["threads"] == torch.get_num_threads()
    assert len(facts["gpu"]) == torch.cuda.device_count()
    assert f"torch        {torch.__version__}" in text
    assert facts["extras"]["tables"]["pandas"] == pd.__version__
    assert set(facts["extras"]["serve"]) >= {"fastapi", "lmdb", "redis"}
    tables = ", ".join(f"{package} {there}" for package, there in facts["extras"]["tables"].items())
    assert f"[tables]     {tables}" in text.splitlines()


def test_a_model_that_lacks_sessions_wants_several_of_a_user() -> None:
    lacking = Advice("lsamn", "", "user", ("sessions", "times"), "", "")
    assert state(lacking) == "needs several sessions of a user and times"
