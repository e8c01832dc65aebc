"""What `foretaste inspect`, `models` and `doctor` say, on a log small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretaste import EventLog, Recommender, splits
from foretaste.errors import DataError, SavedFileError
from foretaste.inspection import environment, inspect_folder, inspect_log, inspect_models, is_ours
from foretaste.models import MODELS

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


def test_a_log_counted_by_hand() -> None:
    facts, text = inspect_log(log("user", "session"))
    assert [(step["name"], step["events"]) for step in facts["steps"]] == [("read", 10)]
    del facts["steps"]
    assert facts == {
        "events": 10,
        "items": 4,
        "users": 2,
        "events_of_a_user": {"mean": 5.0, "median": 5.0, "p90": 5.0, "p99": 5.0, "max": 5.0},
        "sessions": 4,
        "events_of_a_session": {"mean": 2.5, "median": 2.5, "p90": 3.7, "p99": pytest.approx(3.97), "max": 4.0},
        "repeats_inside_a_session": 0.3,  # tea twice again in a1, cake once in b2
        "immediate_repeats": 0.3333,  # tea tea and cake cake, of 6 steps inside sessions
        "events_on_the_top_1_percent_of_items": 0.4,  # at least one item: tea
        "items_seen_once": 1,
        "from": "1970-01-01T00:16:40",
        "until": "1970-01-01T02:30:03",
        "seconds_to_the_next_event": {
            "mean": 18.83,  # 10, 30, 60, 10, 3, 0
            "median": 10.0,
            "p90": 45.0,
            "p99": pytest.approx(58.5),
            "max": 60.0,
        },
    }
    lines = dict(line.split("  ", 1) for line in text.splitlines() if "  " in line)
    assert lines["repeats inside a session"].strip() == "30.00 %"
    assert lines["events of a user"].strip() == "mean 5, median 5, p90 5, p99 5, max 5"


def test_a_log_says_nothing_of_what_it_lacks() -> None:
    facts, _ = inspect_log(log("session"))
    assert not {"users", "events_of_a_user"} & set(facts)
    facts, text = inspect_log(log("user"))
    assert not {"sessions", "events_of_a_session"} & set(facts)
    assert facts["repeats_inside_a_history"] == 0.4  # ann: tea twice again; bob: cake and milk once again
    assert "repeats inside a history" in text
    rows = {"item": ["x"], "session": [1], "place": [1]}
    facts, _ = inspect_log(EventLog.read(rows, item="item", session="session", order="place"))
    assert (facts["events"], facts["immediate_repeats"], "from" in facts) == (1, 0.0, False)


def test_a_prepared_folder_and_a_recommender(tmp_path: Path) -> None:
    prepared = log("user", "session").prepare(splits.LastSession(), folder=tmp_path / "log")
    facts, text = inspect_folder(tmp_path / "log")
    assert facts["counts"]["test"]["events"] == 4
    assert facts["events_of_a_session"]["max"] == 4
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


def test_the_environment() -> None:
    import duckdb
    import torch

    facts, text = environment()
    assert (facts["torch"], facts["duckdb"]) == (torch.__version__, duckdb.__version__)
    assert facts["threads"] == torch.get_num_threads()
    assert len(facts["gpu"]) == torch.cuda.device_count()
    assert f"torch        {torch.__version__}" in text
