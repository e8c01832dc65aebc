"""Raw ids in and out, lists in a fixed order, and folders that cannot be trusted."""

import json
import os
from pathlib import Path

import duckdb
import pytest
import torch

from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, NeedsError, SavedFileError
from foretaste.models.baselines.bpr_mf import BPRMF
from foretaste.models.baselines.pop import Pop
from foretaste.models.baselines.rules import Markov
from foretaste.models.contract import SequenceModel, seeded
from foretaste.models.narm import NARM
from foretaste.models.saved import Trained
from foretaste.models.topk import top_k

IDS = ["tea", "milk", "naïve, with comma", "two\nlines", "5", "rum"]


@pytest.fixture
def trained() -> Trained:
    with seeded(1):
        model = NARM(len(IDS), NARM.Config(embedding_size=4, hidden_size=6))
    return Trained("narm", model.eval(), Vocabulary(IDS, {"title": [i.upper() for i in IDS]}), None, {"note": 7})


def test_top_k_of_equal_scores_is_the_order_of_the_columns() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    values, columns = top_k(scores, 3)
    assert columns.tolist() == [[1, 2, 4], [0, 1, 2]]
    assert values.tolist() == [[3, 3, 3], [0, 0, 0]]
    assert top_k(scores, 99)[1].shape == (2, 5)


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_top_k_is_a_stable_sort(k: int) -> None:
    scores = torch.randint(0, 6, (50, 40), generator=torch.Generator().manual_seed(k)).float()
    wanted = scores.argsort(dim=-1, descending=True, stable=True)[:, :k]
    assert torch.equal(top_k(scores, k)[1], wanted)


def test_save_and_load_give_the_same_answers(trained: Trained, tmp_path: Path) -> None:
    again = Trained.load(trained.save(tmp_path / "run"))
    assert again.recommend(["tea", "two\nlines"], 4) == trained.recommend(["tea", "two\nlines"], 4)
    assert again.items.columns == trained.items.columns
    assert again.facts == {"note": 7}
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "items.parquet",
        "recommender.json",
        "weights.safetensors",
    ]


def test_every_file_may_be_read_by_whom_the_umask_lets(trained: Trained, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = trained.save(tmp_path / "saved")
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        "recommender.json": 0o640, "weights.safetensors": 0o640, "items.parquet": 0o640,
    }  # fmt: skip
    assert folder.stat().st_mode & 0o777 == 0o750


def test_saving_twice_replaces_and_a_foreign_folder_is_left_alone(trained: Trained, tmp_path: Path) -> None:
    trained.save(tmp_path / "run")
    trained.save(tmp_path / "run")
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.txt").write_text("years of work")
    with pytest.raises(SavedFileError, match="not saved from here"):
        trained.save(foreign)
    assert (foreign / "chapter1.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "thesis"]


@pytest.mark.parametrize("name", ["weights.safetensors", "items.parquet", "recommender.json"])
def test_a_truncated_or_missing_file_is_one_clear_error(trained: Trained, tmp_path: Path, name: str) -> None:
    path = trained.save(tmp_path / "run") / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SavedFileError, match=name):
        Trained.load(tmp_path / "run")
    path.unlink()
    with pytest.raises(SavedFileError, match=name.split(".")[0]):
        Trained.load(tmp_path / "run")


def test_a_folder_of_another_version_or_size_is_refused(trained: Trained, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "run")
    facts = json.loads((folder / "recommender.json").read_text())
    del facts["files"], facts["checksum"]  # as an earlier version wrote it
    for change, said in [
        ({"format": 99}, "format 99"),
        ({"model": "narn"}, "did you mean 'narm'"),
        ({"config": {**facts["config"], "hidden_size": 7}}, "does not fit the config"),
        ({"config": {"hidden": 7}}, "unknown key 'hidden'"),
        ({"n_items": 5}, "holds 6 items"),
    ]:
        (folder / "recommender.json").write_text(json.dumps(facts | change))
        with pytest.raises((SavedFileError, ConfigError), match=said):
            Trained.load(folder)


def test_a_full_disk_leaves_the_old_folder(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained.save(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foretaste.models.saved.save_file", full)
    with pytest.raises(SavedFileError, match="No space left"):
        trained.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_may_be_asked(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="k = 0"):
        trained.recommend(["tea"], 0)
    with pytest.raises(ConfigError, match="write \\['tea'\\]"):
        trained.recommend("tea")
    with pytest.raises(ConfigError, match="candidate 'gin'"):
        trained.recommend(["tea"], candidates=["gin"])
    with pytest.raises(ConfigError, match="2 histories and 1 users"):
        trained.recommend_batch([["tea"], ["milk"]], users=["ann"])
    with pytest.raises(ConfigError, match="not known"):
        trained.similar_items("gin")
    assert trained.recommend_batch([]) == []
    assert len(trained.recommend(["tea"], 1000)) == len(IDS)
    assert len(trained.recommend(IDS, 10, leave_out_seen=True)) == 0


@pytest.mark.parametrize("kind", [Pop, Markov])
def test_models_that_know_no_likeness_say_so(kind: type[SequenceModel]) -> None:
    trained = Trained("mine", kind(len(IDS)).eval(), Vocabulary(IDS), None, {})
    with pytest.raises(NeedsError, match="model 'mine' has no similar items: "):
        trained.similar_items("tea")


def test_similar_items_leave_out_the_item_itself(trained: Trained) -> None:
    found = trained.similar_items("tea", 3)
    assert "tea" not in found.ids
    vectors = torch.nn.functional.normalize(trained.model.item_matrix(), dim=1)
    assert found.scores[0] == pytest.approx(float((vectors[1:] @ vectors[0]).max().detach()), abs=1e-6)


def test_explain_names_the_events_and_sums_to_one(trained: Trained) -> None:
    because = trained.explain(["tea", "gin", "milk", "tea"])["attention"]
    assert [raw for raw, _ in because] == ["tea", "milk", "tea"]
    assert sum(weight for _, weight in because) == pytest.approx(1)
    assert trained.explain([]) == {}


def test_the_types_of_a_file_are_no_sql(trained: Trained, tmp_path: Path) -> None:
    folder, out = trained.save(tmp_path / "run"), tmp_path / "written"
    items = folder / "items.parquet"
    for kind in (
        f"VARCHAR) AS id FROM (SELECT 1); COPY (SELECT 1) TO '{out}'; --",
        "VARCHAR), (SELECT 1",
        "nonsense",
        7,
    ):
        types = json.dumps({"id": kind, "title": "VARCHAR"}).replace("'", "''")
        with duckdb.connect() as db:
            db.execute(f"CREATE TABLE v AS FROM read_parquet('{items}')")
            db.execute(f"COPY v TO '{items}' (FORMAT parquet, KV_METADATA {{types: '{types}'}})")
        with pytest.raises(SavedFileError, match=r"items\.parquet"):
            Trained.load(folder)
        assert not out.exists()


def test_a_folder_with_signs_of_a_pattern_is_one_folder(trained: Trained, tmp_path: Path) -> None:
    for name in ("run*", "run1", "run[1]", "r?n1"):
        trained.save(tmp_path / name)
        assert Trained.load(tmp_path / name).items.ids == IDS


def test_a_file_of_users_that_is_not_the_models_is_refused(tmp_path: Path) -> None:
    users = Vocabulary(["ann", "bob", "eve"])
    trained = Trained("bpr-mf", BPRMF(len(IDS), BPRMF.Config(embedding_size=4), 3).eval(), Vocabulary(IDS), users, {})
    folder = trained.save(tmp_path / "run")
    assert Trained.load(folder).users == users
    Vocabulary(["ann", "bob"]).write(folder / "users.parquet")
    with pytest.raises(SavedFileError, match=r"users\.parquet: has .* bytes, expected .*: truncated or edited"):
        Trained.load(folder)
    facts = json.loads((folder / "recommender.json").read_text())
    del facts["files"], facts["checksum"]  # as an earlier version wrote it
    (folder / "recommender.json").write_text(json.dumps(facts))
    with pytest.raises(SavedFileError, match=r"users\.parquet: holds 2 users, recommender\.json says 3"):
        Trained.load(folder)


@pytest.mark.parametrize("times", [[1.0, float("nan")], [float("inf"), 1], [None, 1], ["1", "2"], [1], []])
def test_times_that_are_none_are_refused(trained: Trained, times: list[object]) -> None:
    with pytest.raises(ConfigError, match="times"):
        trained.recommend(["tea", "milk"], times=times)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="time 9 stands before 5; give the oldest event first"):
        trained.recommend(["tea", "milk"], times=[9, 5])
    with pytest.raises(ConfigError, match="1714557600000 among its times lies beyond the year 5000"):
        trained.recommend(["tea", "milk"], times=[1714557600000, 1714557660000])
    with pytest.raises(ConfigError, match="history 1 has 1 events and 0 times"):
        trained.recommend_batch([["tea"], ["milk"]], times=[[1]])


def test_a_model_of_sessions_is_given_the_last_one(trained: Trained) -> None:
    history, sessions = ["milk", "?", "tea", "unknown", "rum", "5"], [1, 1, 2, 3, 3, 3]
    found = trained.recommend(history, 3, sessions=sessions)
    assert found.ids == trained.recommend(["rum", "5"], 3).ids
    assert found.skipped == ["?", "unknown"]
    assert trained.recommend((item for item in history), 3, sessions=sessions) == found  # type: ignore[arg-type]
    assert trained.recommend_batch(iter([iter(history)]), 3, sessions=[sessions]) == [found]  # type: ignore[arg-type]
    assert [item for item, _ in trained.explain(history, sessions=sessions)["attention"]] == ["rum", "5"]
    seen = trained.recommend(history, 9, sessions=sessions, leave_out_seen=True).ids
    assert sorted(seen) == sorted(set(IDS) - set(history))  # of all sessions, as where an evaluation masks
    with pytest.raises(ConfigError, match="1 histories and 2 rows of sessions"):
        trained.recommend_batch([["tea"]], 3, sessions=[["a"], ["b"]])
    with pytest.raises(ConfigError, match="candidate 'gin' is not an item"):
        trained.recommend(["tea"], 3, candidates={"gin"})  # type: ignore[arg-type]
    assert trained.recommend(["milk", "tea"], 3, sessions=["a", "a"]) == trained.recommend(["milk", "tea"], 3)
    assert trained.recommend(["milk", "unknown"], 3, sessions=["a", "b"]).ids == trained.recommend([], 3).ids
