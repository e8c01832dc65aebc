"""Where only some events may be asked for (purchases among clicks), counting models recommend those."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.battery import random_log

from foretaste.data.sequences import Sequences
from foretaste.models import model_class
from foretaste.models.contract import Events, SequenceModel

COUNTING = ["pop", "markov", "sr", "ar", "item-knn", "s-knn", "vs-knn", "vstan"]


def made(name: str, log: Sequences, **settings: Any) -> SequenceModel:
    model = model_class(name)(30, model_class(name).Config.of(settings))
    model.count(log)
    return model.eval()


def shown(model: SequenceModel, history: list[int]) -> torch.Tensor:
    """Scores [I] after it."""
    events = Events.of([history])
    _, state = model(events, model.initial_state(torch.zeros(1, dtype=torch.int64)))
    return model.score(model.query(state))[0, 0]


@pytest.mark.parametrize("name", COUNTING)
def test_a_log_in_which_all_may_be_asked_for_gives_the_same(name: str) -> None:
    log = random_log()
    one, other = (made(name, each) for each in (log, replace(log, target=np.ones(len(log), bool))))
    for item in range(1, 31):
        assert shown(one, [item]).equal(shown(other, [item]))


@pytest.mark.parametrize("name", COUNTING)
def test_what_is_only_clicked_gets_no_votes(name: str) -> None:
    """100 sessions: 3 clicked, 1 clicked, 2 bought; 100 more: 3 clicked and 1 clicked."""
    items = np.array([3, 1, 2] * 100 + [3, 1] * 100, dtype=np.int32)
    ends = np.concatenate([np.arange(0, 301, 3), np.arange(302, 501, 2)])
    nobody, part = np.zeros(200, np.int32), np.zeros(500, np.uint8)
    log = Sequences(items, ends, ends, part, nobody, target=items == 2, times=np.arange(500))
    settings = {"idf": 0.0} if name in ("vs-knn", "vstan") else {}  # what is rare is not raised
    assert int(shown(made(name, log, **settings), [3]).argmax()) == 1
    clicked = shown(made(name, replace(log, target=None), **settings), [3])
    assert clicked[0] > clicked[1]  # by all events


@pytest.mark.parametrize(("name", "once"), [("markov", False), ("sr", False), ("ar", False), ("ar", True)])
def test_rules_lead_to_what_may_be_asked_for_counted_pair_by_pair(name: str, once: bool) -> None:
    log = random_log()
    target = np.random.default_rng(2).random(len(log)) < 0.4
    settings = {"steps": 3, "decay": "same"} if name == "sr" else {"once": once} if name == "ar" else {}
    model = made(name, replace(log, target=target), ties="none", **settings)
    wanted = np.zeros((31, 31))
    for start, stop in itertools.pairwise(log.sessions.tolist()):
        met = set()
        for a, b in itertools.permutations(range(start, stop), 2):
            one, other = int(log.items[a]), int(log.items[b])
            if not target[b] or (name != "ar" and not 0 < b - a <= (3 if name == "sr" else 1)):
                continue
            wanted[one, other] += not once or (one, other) not in met
            met.add((one, other))
    for item in range(1, 31):
        assert shown(model, [item]).tolist() == wanted[item, 1:].tolist()


def test_an_index_of_an_earlier_version_says_nothing_of_it() -> None:
    model = made("vs-knn", random_log())
    kept = {name: value for name, value in model.state_dict().items() if name != "index.wanted"}
    again = model_class("vs-knn")(30)
    again.load_state_dict(kept)
    assert shown(again.eval(), [4]).equal(shown(model, [4]))
