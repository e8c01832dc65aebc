"""Lists for every user at once: those that each user would get alone."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import duckdb
import pytest
import torch
from torch import Tensor

from foretaste import EventLog, Recommender, shop, splits
from foretaste.data.prepared import Prepared
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, DataError, ForetasteError, NeedsError, TrainingError
from foretaste.listing import write_lists
from foretaste.retrieval.approximate import WALKS, Approximate, Depth
from tests.shell import Shell
from tests.test_bad_input import no_file_larger_than


@pytest.fixture(scope="module")
def log() -> EventLog:
    drawn = shop(n_users=40, n_items=30, seed=2)
    columns = {**drawn.columns, "user": [f"no. {user}" for user in drawn.columns["user"]]}
    read = EventLog.read(columns, user="user", item="item", time="time").sessions(gap="30m")
    return read.with_items(drawn.items, item="item", title="title")


@pytest.fixture
def ft(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def read(path: Path) -> dict[object, list[tuple[object, str, float]]]:
    """The lists of a file by user."""
    rows = duckdb.sql(f"SELECT * FROM '{path}' ORDER BY \"user\", rank").fetchall()
    assert [name for name, *_ in duckdb.sql(f"DESCRIBE FROM '{path}'").fetchall()][:3] == ["user", "rank", "item"]
    found: dict[object, list[tuple[object, str, float]]] = {}
    for user, rank, item, *title, score in rows:
        found.setdefault(user, []).append((item, title[0] if title else "", score))
        assert rank == len(found[user])
    return found


@pytest.mark.parametrize("name", ["narm", "lsamn", "asars", "sr"])
@pytest.mark.parametrize("leave_out_seen", [False, True])
def test_each_list_is_what_the_user_would_get_alone(
    log: EventLog, tmp_path: Path, name: str, leave_out_seen: bool
) -> None:
    prepared = log.prepare()
    recommender = Recommender(name, **({} if name == "sr" else {"epochs": 1})).fit(prepared)
    facts = write_lists(recommender.trained, prepared, tmp_path / "l.parquet", 7, leave_out_seen=leave_out_seen)
    found, flat = read(tmp_path / "l.parquet"), prepared.sequences
    assert facts["users"] == len(found) == flat.n_users
    assert facts["not_in_training"] == 0
    assert prepared.users is not None
    assert flat.times is not None
    session = flat.sessions.searchsorted(range(len(flat)), side="right")
    for number, (start, stop) in zip(flat.user_numbers.tolist(), itertools.pairwise(flat.users.tolist()), strict=True):
        user, history = prepared.users.ids[number - 1], prepared.items.raw(flat.items[start:stop].tolist())
        beside = {"times": flat.times[start:stop].tolist(), "sessions": session[start:stop].tolist()}
        alone = recommender.recommend(history, 7, user=user, leave_out_seen=leave_out_seen, **beside)
        assert [item for item, *_ in found[user]] == alone.ids
        assert [score for *_, score in found[user]] == pytest.approx(alone.scores, abs=1e-5)
    assert len({title for listed in found.values() for _, title, _ in listed}) > 10


def test_the_command_writes_one_file_and_says_who_is_missing(log: EventLog, tmp_path: Path, ft: Shell) -> None:
    prepared = log.prepare(splits.WholeUsers(fraction=0.2), folder=tmp_path / "log")
    Recommender("pop").fit(prepared).save(tmp_path / "pop")
    said = ft.well("lists", tmp_path / "pop", tmp_path / "log", "--out", tmp_path / "l.csv", "-k", 3).out
    assert (
        said.strip()
        == f"written: {tmp_path / 'l.csv'}, for 32 users; 8 others were not in training and have no id here"
    )
    assert {len(listed) for listed in read(tmp_path / "l.csv").values()} == {3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.csv", "log", "pop"]
    for out, said in (("l.txt", "written as .parquet or .csv"), ("no/such/l.csv", "")):
        ran = ft("lists", tmp_path / "pop", tmp_path / "log", "--out", tmp_path / out)
        assert (ran.status, said in ran.err) == ((2, True) if said else (0, True))


def test_the_parts_of_the_users_are_together_all_of_them(log: EventLog, tmp_path: Path, ft: Shell) -> None:
    prepared = log.prepare(folder=tmp_path / "log")
    Recommender("gru4rec", epochs=1).fit(prepared).save(tmp_path / "run")
    given = ("lists", tmp_path / "run", tmp_path / "log", "-k", 3, "--out")
    ft.well(*given, tmp_path / "all.parquet")
    parts = []
    for part in (1, 2, 3):
        said = ft.well(*given, tmp_path / f"{part}.csv", "--part", f"{part}/3").out
        assert f"for {14 if part == 1 else 13} users" in said
        parts.append(read(tmp_path / f"{part}.csv"))
    whole = read(tmp_path / "all.parquet")
    assert [len(part) for part in parts] == [14, 13, 13]
    together = {user: listed for part in parts for user, listed in part.items()}
    assert {user: [item for item, *_ in listed] for user, listed in together.items()} == {
        user: [item for item, *_ in listed] for user, listed in whole.items()
    }
    assert "for 0 users" in ft.well(*given, tmp_path / "none.csv", "--part", "41/41").out
    for wrong in ("0/3", "4/3", "3", "a/b", "1/", "-1/3"):
        ran = ft(*given, tmp_path / "no.csv", f"--part={wrong}")
        assert (ran.status, f"part = '{wrong}'; give which and of how many" in ran.err) == (2, True)


def test_with_an_index_a_list_may_lack_an_item_and_no_score_is_off(
    tmp_path: Path, ft: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users 1 to 60 have 40 events, the 61st has 450: with them, its list is deeper than the best 20 or 100."""
    pytest.importorskip("faiss")
    draw, users = torch.Generator().manual_seed(4), [*range(1, 61)] * 40 + [61] * 450
    columns = {"user": users, "item": torch.randint(4000, (len(users),), generator=draw).tolist()}
    read_log = EventLog.read({**columns, "time": [*range(len(users))]}, user="user", item="item", time="time")
    prepared = read_log.prepare(folder=tmp_path / "log")
    recommender = Recommender("fmc", epochs=1, embedding_size=16).fit(prepared)
    trained, size = recommender.trained, len(prepared.items)
    centres = torch.randn(30, 16, generator=draw)
    vectors = centres[torch.randint(30, (size,), generator=draw)] + 0.3 * torch.randn(size, 16, generator=draw)
    for weight in trained.model.parameters():
        weight.data[-size:] = vectors
    recommender.save(tmp_path / "run")
    given = ("lists", tmp_path / "run", tmp_path / "log", "-k", 15)
    asked: Counter[int] = Counter()
    search = Approximate.search

    def watched(index: Approximate, query: Tensor, depth: Depth) -> Tensor:
        found = search(index, query, depth)
        if len(query) == 4 * WALKS:  # it is being made
            return found
        asked[depth.size] += len(query)
        return found.masked_fill(torch.arange(len(query))[:, None] == 0, 0)  # one finds nothing

    for extra, wanted in (((), {20: 61}), (("--leave-out-seen",), {100: 60, 500: 1})):
        ft.well(*given, *extra, "--out", tmp_path / "exact.csv")
        said = ft.well(*given, *extra, "--out", tmp_path / "index.csv", "--recall", "0.9").out
        assert re.search(
            r"for 61 users; 61 of the lists by an index that finds 9\d\.\d% of the best 20, 9\d\.\d% of", said
        )
        with monkeypatch.context() as patched:
            patched.setattr(Approximate, "search", watched)
            asked.clear()
            write_lists(trained, prepared, tmp_path / "again.csv", 15, leave_out_seen=bool(extra), recall=0.9)
        assert asked == wanted
        exact, found, again = (
            {user: {item: score for item, _, score in listed} for user, listed in lists.items()}
            for lists in (read(tmp_path / f"{name}.csv") for name in ("exact", "index", "again"))
        )
        for user, listed in [*found.items(), *again.items()]:
            assert len(listed) == 15
            for item in listed.keys() & exact[user].keys():
                assert listed[item] == pytest.approx(exact[user][item], abs=1e-5)
            seen = {columns["item"][place] for place, one in enumerate(users) if one == user}
            assert not extra or not seen & listed.keys()
        alike = [len(exact[user].keys() & found[user].keys()) / 15 for user in exact]
        assert sum(alike) / len(alike) > 0.85


def test_an_index_that_cannot_be_had_is_said(log: EventLog, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    prepared = log.prepare()
    for name, recall, says in (("sr", 0.9, "by one inner product"), ("narm", 1.5, "recall = 1.5; give a share")):
        trained = Recommender(name, **({} if name == "sr" else {"epochs": 1})).fit(prepared).trained
        with pytest.raises(ForetasteError, match=says):
            write_lists(trained, prepared, tmp_path / "l.csv", 2, recall=recall)
    facts = write_lists(trained, prepared, tmp_path / "l.csv", 2, recall=0.9)
    assert (facts["users"], facts["by_index"], facts["index"]["recall"]) == (40, 0, {})  # 30 items: nothing is gained
    assert write_lists(trained, prepared, tmp_path / "l.csv", 501, recall=0.9)["index"] == {}  # it is not made


def test_who_has_had_everything_has_no_list(tmp_path: Path, ft: Shell) -> None:
    columns = {"u": [1] * 4 + [2, 2], "i": [1, 2, 3, 4, 1, 2], "t": [*range(6)]}
    prepared = EventLog.read(columns, user="u", item="i", time="t").prepare(folder=tmp_path / "log")
    Recommender("pop").fit(prepared).save(tmp_path / "pop")
    said = ft.well(
        "lists", tmp_path / "pop", tmp_path / "log", "--out", tmp_path / "l.csv", "-k", 3, "--leave-out-seen"
    ).out
    assert "for 1 user; 1 have had everything" in said
    assert read(tmp_path / "l.csv").keys() == {2}


def test_columns_of_items_may_be_called_as_ours_are(log: EventLog, tmp_path: Path) -> None:
    items = list(range(1, 31))
    table = dict.fromkeys(("item", "rank", "score", "who", "what", "user"), items)
    prepared = log.with_items(table, item="item").prepare()
    write_lists(Recommender("pop").fit(prepared).trained, prepared, tmp_path / "l.csv", 2)
    assert len(duckdb.sql(f"FROM '{tmp_path / 'l.csv'}'").fetchall()) == 2 * 40


def test_no_list_is_made_of_noise_or_for_other_users(log: EventLog, tmp_path: Path) -> None:
    prepared, seen = log.prepare(), []
    found = Recommender("bpr-mf", epochs=1).fit(prepared)
    write_lists(found.trained, prepared, tmp_path / "l.csv", 2, progress=lambda *done: seen.append(done))
    assert seen[-1] == (40, 40)
    assert prepared.users is not None
    vocabularies = {"items": prepared.items, "users": Vocabulary(prepared.users.ids[::-1])}
    others = Prepared(prepared.sequences, vocabularies, prepared.manifest)
    with pytest.raises(ConfigError, match="users of this log are not the recommender's"):
        write_lists(found.trained, others, tmp_path / "other.csv")
    for weight in found.trained.model.parameters():
        weight.data[3] = float("nan")
    with pytest.raises(TrainingError, match="scored NaN"):
        write_lists(found.trained, prepared, tmp_path / "noise.csv", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["l.csv"]


def test_no_room_for_temporary_files_is_said(log: EventLog, tmp_path: Path) -> None:
    prepared = log.prepare()
    trained = Recommender("pop").fit(prepared).trained
    with no_file_larger_than(2000), pytest.raises(DataError, match=r"temporary files in .*TMPDIR"):
        write_lists(trained, prepared, tmp_path / "lists.csv")
    assert not (tmp_path / "lists.csv").exists()


def test_what_cannot_be_listed_is_said(log: EventLog, tmp_path: Path) -> None:
    pop = Recommender("pop").fit(log.prepare()).trained
    columns = {"session": [1, 1, 2, 2], "item": [1, 2, 1, 2], "time": [1, 2, 3, 4]}
    nobody = EventLog.read(columns, session="session", item="item", time="time").prepare()
    with pytest.raises(NeedsError, match="has no users"):
        write_lists(pop, nobody, tmp_path / "l.csv")
    few = EventLog.read({"u": [1, 1], "i": [1, 2], "t": [1, 2]}, user="u", item="i", time="t").prepare()
    with pytest.raises(ConfigError, match="numbers its items differently"):
        write_lists(pop, few, tmp_path / "l.csv")
    with pytest.raises(ConfigError, match="k = 0"):
        write_lists(pop, few, tmp_path / "l.csv", 0)
    assert isinstance(few, Prepared)
    assert not list(tmp_path.iterdir())
