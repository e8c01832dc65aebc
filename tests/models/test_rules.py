"""Markov, sequential and association rules by hand, and equal to counting pair by pair on random logs."""

import itertools
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.battery import random_log
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.evaluation.evaluate import evaluate
from foretaste.evaluation.protocols import PerStep
from foretaste.models.baselines import counting
from foretaste.models.baselines.counting import Table, Votes, pairs_of, standing
from foretaste.models.baselines.rules import AssociationRules, Markov, SequentialRules
from foretaste.models.contract import Events

INF = float("inf")
WEIGHTS: dict[str, Callable[[int], float]] = {
    "div": lambda d: 1 / d,
    "linear": lambda d: max(0.0, 1.1 - d / 10),
    "quadratic": lambda d: 1 / d**2,
    "log": lambda d: 1 / float(np.log10(d + 9)),
    "same": lambda d: 1.0,
}


def log_of(*sessions: list[int], times: list[int] | None = None) -> Sequences:
    """Anonymous sessions."""
    ends = np.cumsum([0, *map(len, sessions)])
    items = np.array([item for session in sessions for item in session], dtype=np.int32)
    when = None if times is None else np.array(times)
    return Sequences(items, ends, ends, np.zeros(len(items), np.uint8), np.zeros(len(sessions), np.int32), times=when)


def counted(model: Votes, log: Sequences) -> Votes:
    model.count(log)
    return model.eval()


def ask(model: Votes, *histories: list[int]) -> Tensor:
    """Scores [B, I] after whole histories."""
    events = Events.of([list(history) for history in histories])
    _, state = model(events, model.initial_state(torch.zeros(len(histories), dtype=torch.int64)))
    return model.score(model.query(state))[:, 0]


def order(scores: Tensor) -> list[int]:
    return (scores.argsort(descending=True, stable=True) + 1).tolist()


def rows(log: Sequences, scope: str = "session") -> list[list[int]]:
    ends = log.offsets(scope)  # type: ignore[arg-type]
    return [[int(n) for n in log.items[a:b] if n] for a, b in itertools.pairwise(ends)]


def slow_rules(model: Table, log: Sequences) -> dict[tuple[int, int], float]:
    """Every pair of events of every session, one at a time."""
    c, found = model.config, defaultdict(float)
    for row in rows(log, c.scope):
        met = set()
        for a, one in enumerate(row):
            for b in range(a + 1, len(row)):
                other = row[b]
                if isinstance(model, AssociationRules):
                    pair = (min(one, other), max(one, other))
                    if (one != other or c.itself) and not (c.once and pair in met):
                        met.add(pair)
                        found[one, other] += 1
                        found[other, one] += one != other or not c.once
                elif one != other or c.itself:
                    steps, decay = (1, "same") if isinstance(model, Markov) else (c.steps, c.decay)
                    if b - a <= steps:
                        found[one, other] += WEIGHTS[decay](b - a)
    return {pair: weight for pair, weight in found.items() if weight > 0}


def test_markov_by_hand() -> None:
    log = log_of([1, 2, 1, 3], [1, 2], [4, 4])
    plain = counted(Markov(5, Markov.Config(ties="none")), log)
    assert ask(plain, [1], [2], [4], [3]).tolist() == [
        [0, 2, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0],
    ]  # fmt: skip
    apart = counted(Markov(5, Markov.Config(ties="none", itself=False)), log)
    assert not ask(apart, [4]).any()
    assert not ask(plain, []).any()


def test_ties_by_popularity_then_by_the_last_occurrence() -> None:
    log = log_of([1, 2], [1, 3], [1, 4], [4, 1], [3, 2], [5, 6])  # counts 4 2 2 2 1 1; last 7 9 8 6 10 11
    assert standing(log, 7).tolist() == [6, 5, 4, 3, 1, 2, 0]
    assert standing(log, 7, "popularity").tolist() == [3, 2, 2, 2, 1, 1, 0]
    assert standing(log, 7, "none").tolist() == [0] * 7
    assert order(ask(counted(Markov(7), log), [1])[0]) == [2, 3, 4, 1, 6, 5, 7]
    by_count = ask(counted(Markov(7, Markov.Config(ties="popularity")), log), [1])[0]
    assert by_count[1] == by_count[2] == by_count[3] > 1
    assert by_count[0] > by_count[4] == by_count[5] > by_count[6]
    assert (by_count[[0, 4, 5, 6]] < 1).all(), "no place in the order outweighs a vote"


def test_what_was_last_seen_at_one_moment_still_ties() -> None:
    log = log_of([1, 2, 3], times=[7, 5, 7])
    assert standing(log, 3).tolist() == [1, 0, 1]


def test_without_filling_in_only_what_has_a_vote_is_shown() -> None:
    log = log_of([1, 2], [1, 3], [1, 3])
    model = counted(Markov(4, Markov.Config(ties="none", fill=False)), log)
    assert ask(model, [1], [4]).tolist() == [[-INF, 1, 2, -INF], [-INF] * 4]
    cases = PerStep().cases(log_of([4, 1], [1, 2]), 0)
    found = evaluate(model, log_of([4, 1], [1, 2]), cases, cutoffs=(20,))
    assert found.means()["recall@20"] == found.means(optimistic=True)["recall@20"] == 0.5


def test_the_tie_rule_shows_in_both_ends_of_the_figures() -> None:
    log, asked = log_of([1, 2], [1, 3], [3, 3]), log_of([1, 2])
    means = {}
    for ties in ("none", "latest"):
        found = evaluate(counted(Markov(3, Markov.Config(ties=ties)), log), asked, PerStep().cases(asked, 0))
        means[ties] = [found.means()["mrr@20"], found.means(optimistic=True)["mrr@20"]]
    assert means == {"none": [0.5, 1.0], "latest": [0.5, 0.5]}


def test_sequential_rules_by_hand() -> None:
    log = log_of([1, 2, 3, 1], [1, 3])
    model = counted(SequentialRules(4, SequentialRules.Config(steps=2, ties="none")), log)
    assert ask(model, [1], [2], [3]).tolist() == [[0, 1, 1.5, 0], [0.5, 0, 1, 0], [1, 0, 0, 0]]
    linear = counted(SequentialRules(4, SequentialRules.Config(steps=3, decay="linear", ties="none")), log)
    torch.testing.assert_close(ask(linear, [1])[0], torch.tensor([0.8, 1.0, 1.9, 0]).double(), rtol=0, atol=1e-6)


def test_association_rules_by_hand() -> None:
    log = log_of([1, 2, 1], [2, 1], [3, 3])
    model = counted(AssociationRules(3, AssociationRules.Config(ties="none")), log)
    assert ask(model, [1], [2], [3]).tolist() == [[2, 3, 0], [3, 0, 0], [0, 0, 2]]
    once = counted(AssociationRules(3, AssociationRules.Config(ties="none", once=True)), log)
    assert ask(once, [1], [3]).tolist() == [[1, 2, 0], [0, 0, 1]]
    apart = counted(AssociationRules(3, AssociationRules.Config(ties="none", itself=False)), log)
    assert ask(apart, [1], [3]).tolist() == [[0, 3, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Markov, {}),
        (Markov, {"itself": False, "scope": "user"}),
        *((SequentialRules, {"decay": decay, "steps": 4}) for decay in WEIGHTS),
        (SequentialRules, {"decay": "linear", "steps": 30, "scope": "user", "last": 3, "itself": False}),
        (AssociationRules, {"last": 4}),
        (AssociationRules, {"once": True, "scope": "user", "last": 2}),
        (AssociationRules, {"once": True, "scope": "user", "itself": False}),
    ],
    ids=str,
)
@pytest.mark.parametrize(("block", "array"), [(2**22, 2**24), (40, 2**24), (40, 0)])
def test_equal_to_counting_pair_by_pair(
    kind: type[Table], config: dict[str, object], block: int, array: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "PAIRS", block)
    monkeypatch.setattr(counting, "ARRAY", array)
    log = random_log(12, 25)
    log.items[::9] = 0  # cold items stand between others and are skipped
    model = counted(kind(12, kind.Config(ties="none", **config)), log)
    rules = slow_rules(model, log)
    histories = [[5], [3, 3, 7], [1, 2, 3, 4, 5, 6], []]
    for found, history in zip(ask(model, *histories), histories, strict=True):
        last = history[-model.width :]
        wanted = [sum(rules.get((one, item), 0) for one in last) for item in range(1, 13)]
        torch.testing.assert_close(found, torch.tensor(wanted).double(), rtol=0, atol=1e-6)
    for one in range(1, 13):
        shown = {item for item, score in enumerate(ask(model, [one])[0].tolist(), 1) if score}
        assert shown == {item for item in range(1, 13) if (one, item) in rules}


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_the_strongest_are_kept_ties_by_the_common_rule(kept: int) -> None:
    log = random_log(12, 25)
    whole, short = (counted(Markov(12, Markov.Config(kept=k)), log) for k in (0, kept))
    for item in range(1, 13):
        every, some = ask(whole, [item])[0], ask(short, [item])[0]
        voted = [n for n in order(every) if every[n - 1] >= 1]
        assert {n for n in range(1, 13) if some[n - 1] >= 1} == set(voted[:kept])


def test_every_pair_within_some_steps_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of([1, 2, 3, 4], [5], [6, 7])
    for block in (1, 2, 5, 100):
        monkeypatch.setattr(counting, "PAIRS", block)
        found = [pair for a, b in pairs_of(log, log.sessions, 2) for pair in zip(a.tolist(), b.tolist(), strict=True)]
        assert found == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (5, 6)]
        assert sum(len(a) for a, _ in pairs_of(log, log.sessions)) == 7


def test_shared_and_own_candidates_however_often_and_in_whatever_order() -> None:
    model = counted(SequentialRules(12, SequentialRules.Config(last=3)), random_log(12, 25))
    full = ask(model, [1, 2], [3])
    last = torch.tensor([[[0, 1, 2]], [[0, 0, 3]]])
    shared = torch.tensor([7, 2, 7, 12])
    assert torch.equal(model.score(last, shared)[:, 0], full[:, shared - 1])
    own = torch.tensor([[[4, 4, 1]], [[9, 2, 3]]])
    assert torch.equal(model.score(last, own)[:, 0], full.gather(1, own[:, 0] - 1))


def test_sessions_of_one_event_and_of_one_item() -> None:
    alone = log_of([1], [2], [2])
    for kind in (Markov, SequentialRules, AssociationRules):
        model = counted(kind(2), alone)
        assert order(ask(model, [1])[0]) == [2, 1], f"{kind.__name__}: no transition, so popularity"
        assert len(model.columns) == 0
    same = log_of([1, 1, 1], [2, 2])
    assert ask(counted(Markov(2, Markov.Config(ties="none")), same), [1]).tolist() == [[2, 0]]
    assert ask(counted(AssociationRules(2, AssociationRules.Config(ties="none")), same), [1], [2]).tolist() == [
        [6, 0], [0, 2],
    ]  # fmt: skip
    apart = AssociationRules.Config(ties="none", itself=False)
    assert not ask(counted(AssociationRules(2, apart), same), [1]).any()


def test_an_empty_log_and_an_untrained_model_answer() -> None:
    assert ask(Markov(3), [1]).tolist() == [[0, 0, 0]]
    assert ask(counted(Markov(3), log_of()), [1]).tolist() == [[0, 0, 0]]


def test_millions_of_counts_keep_their_ties_apart() -> None:
    model = counted(Markov(3), log_of([1, 2], [1, 3], [1, 3]))
    model.votes = torch.tensor([20_000_000, 20_000_000], dtype=torch.int32)
    model.unit = torch.ones((), dtype=torch.float64)
    scores = ask(model, [1])[0]
    assert order(scores) == [3, 2, 1]
    assert scores.unique().numel() == 3


def test_the_reason_names_the_voters_and_their_votes() -> None:
    model = counted(Markov(3, Markov.Config(last=2)), log_of([1, 2], [1, 3], [1, 3]))
    events = Events.of([[3, 1]])
    reasons = model.explain(events, model.initial_state(torch.zeros(1, dtype=torch.int64)), torch.tensor([3, 2, 1]))
    assert reasons["items"][0].tolist() == [[0, 3], [3, 1]]
    assert reasons["attention"][0].tolist() == [[0, 1], [0.5, 0.5]]
    torch.testing.assert_close(reasons["votes"][0, 1], torch.tensor([2.0, 1.0, 0.0]).double(), rtol=0, atol=1e-6)
