"""What is said beside figures of events that a recommender may remember, and of settings that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretaste import EventLog, Recommender, shop
from foretaste.data.sequences import VALIDATION
from foretaste.data.splits import LastSession
from foretaste.errors import ConfigError
from foretaste.evaluation.remembered import OTHERWISE, REFITTED, remembered

LOG = EventLog.read(
    dict(shop(n_users=60, n_items=20, seed=1).columns), user="user", session="session", item="item", time="time"
)


def test_a_log_that_is_split_otherwise_is_said_to_be(tmp_path: Path) -> None:
    whole, cut = LOG.prepare(LastSession()), LOG.prepare(LastSession(), validation=LastSession())
    assert whole.items.ids == cut.items.ids
    fitted = Recommender("s-knn").fit(whole)
    assert OTHERWISE in fitted.evaluate(cut, part=VALIDATION).facts.notes
    assert OTHERWISE not in fitted.evaluate(whole).facts.notes
    again = Recommender.load(fitted.save(tmp_path / "run"))
    assert OTHERWISE not in again.evaluate(whole).facts.notes
    assert OTHERWISE in again.evaluate(cut).facts.notes
    assert OTHERWISE not in Recommender("s-knn").fit(cut).evaluate(cut, part=VALIDATION).facts.notes
    facts = {"data": {"split": {"a": 1}}, "trained_with": {"refit": True}}
    assert remembered(facts, {"split": {"a": 1}}, validation=True) == (REFITTED,)
    assert remembered(facts, {"split": {"a": 2}}, validation=True) == (REFITTED, OTHERWISE)
    assert remembered({}, {"split": {"a": 2}}, validation=True) == ()


def test_settings_that_cannot_be_are_refused_before_a_pass_is_made() -> None:
    log = LOG.prepare(LastSession(), validation=LastSession())
    with pytest.raises(ConfigError, match="metric 'ndcg@7x' is not measured"):
        Recommender("narm", epochs=1, before={"metric": "ndcg@7x"}).fit(log)
    for seed in (-1, 2**64):
        with pytest.raises(ConfigError, match="'seed'"):
            Recommender("narm", seed=seed)
    with pytest.raises(ConfigError, match="no weights left to train"):
        Recommender("narm", epochs=1, frozen=[""]).fit(log)
