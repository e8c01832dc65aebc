"""Users of whom training asks nothing, what a refit has learnt of a validation, a recommender that is trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from foretaste import EventLog, Recommender
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import VALIDATION
from foretaste.data.splits import GlobalTime
from foretaste.evaluation.protocols import Product

DAY = 86_400


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    """Ten users who come every day, and two who come on the last two days, after the training part."""
    user, item, time = [], [], []
    for day in range(20):
        for who in [*range(10), *([10, 11] if day >= 18 else [])]:
            for step in range(3):
                user.append(who)
                item.append((who + step * (1 + day)) % 7)
                time.append(1_700_000_000 + day * DAY + 600 * who + step)
    log = EventLog.read({"user": user, "item": item, "time": time}, user="user", item="item", time="time")
    return log.sessions(gap="1h").prepare(None, validation=GlobalTime(fraction=0.1))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("bpr-mf", {}),
        ("lsamn", {"embedding_size": 8}),
        ("rum-item", {"embedding_size": 8, "slots": 2}),
        ("asars", {"variant": "user_att", "temporal": True, "embedding_size": 8, "hidden_size": 8}),
    ],
)
def test_who_was_not_in_training_is_a_stranger(prepared: Prepared, model: str, settings: dict[str, Any]) -> None:
    """They have a number, as the vocabulary counts the validation part; weights that nobody trained say nothing."""
    found = Recommender(model, epochs=2, **settings).fit(prepared, refit=False)
    network, users = found.trained.model, prepared.users
    assert users is not None
    new, old = [users.number(who) for who in (10, 11)], [users.number(who) for who in range(10)]
    weight = network.state_dict()["user.weight"]
    stranger = weight[0] if model == "asars" else weight[old].mean(0)
    torch.testing.assert_close(weight[new], stranger.expand(2, -1))
    assert weight[old].unique(dim=0).shape[0] == 10
    if model == "asars":
        for name in ("temporal.alpha", "temporal.user_bias", "temporal.mean_day"):
            own = network.state_dict()[name]
            assert own[new].tolist() == [own[0].item()] * 2
    times = {"times": [1_800_000_000], "sessions": [1]} if model in ("asars", "lsamn") else {}
    known, unknown = (found.recommend([3], user=who, k=7, **times) for who in (11, "nobody"))
    assert [item for item, _ in known] == [item for item, _ in unknown]


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("fpmc", {"before": {"epochs": 1}, "recent": 0.5}),
        ("hrm", {}),
        ("caser", {"embedding_size": 8}),
        ("lsamn", {"embedding_size": 8}),
    ],
)
@pytest.mark.parametrize("validated", [True, False])
def test_who_was_asked_nothing_is_a_stranger(model: str, settings: dict[str, Any], validated: bool) -> None:
    """One event follows nothing: no step moves the weights of who has no more, and none as they were drawn is left."""
    user = [*range(6, 12), *(who for _ in range(12) for who in range(6))]
    item = [(who + n * n) % 7 for n, who in enumerate(user)]
    columns = {"user": user, "item": item, "time": [1_700_000_000 + DAY * n // 6 for n in range(len(user))]}
    log = EventLog.read(columns, user="user", item="item", time="time").sessions(gap="1h")
    prepared = log.prepare(None, validation=GlobalTime(fraction=0.1) if validated else None)
    found = Recommender(model, epochs=2, **settings).fit(prepared, protocol=Product(), refit=False)
    users = prepared.users
    assert users is not None
    weight = found.trained.model.state_dict()["user.weight"][[users.number(who) for who in range(12)]]
    torch.testing.assert_close(weight[6:], weight[:6].mean(0).expand(6, -1))
    assert weight[:6].unique(dim=0).shape[0] == 6


def test_a_refit_has_seen_the_validation_part_and_says_so(prepared: Prepared) -> None:
    for refit, said in ((True, 1), (False, 0)):
        one = Recommender("bpr-mf", epochs=2).fit(prepared, refit=refit)
        notes = one.evaluate(prepared, part=VALIDATION).facts.notes
        assert sum("trained on the validation part too" in note for note in notes) == said


def test_a_loaded_recommender_is_trained_again_as_it_was(prepared: Prepared, tmp_path: Path) -> None:
    one = Recommender("bpr-mf", epochs=2, learning_rate=0.02, schedule="linear").fit(prepared)
    again = Recommender.load(one.save(tmp_path / "saved"))
    assert again.settings == one.settings
    assert again.settings["learning_rate"] == 0.02
    weights = [each.fit(prepared).trained.model.state_dict()["user.weight"] for each in (one, again)]
    assert torch.equal(*weights)


def test_a_refit_says_which_of_its_trainings_it_is_of(prepared: Prepared) -> None:
    stages: list[Any] = []
    one = Recommender("bpr-mf", epochs=1, before={"epochs": 1})
    one.fit(prepared, refit=True, report=lambda facts: stages.append(facts.get("stage")))
    assert list(dict.fromkeys(stages)) == ["before", None, "refit/before", "refit"]
