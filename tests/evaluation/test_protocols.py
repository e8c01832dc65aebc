"""Which questions each protocol asks, by hand on a small log, and what must hold on any log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.data.sequences import TEST, TRAIN, VALIDATION, Sequences
from foretaste.errors import ConfigError, DataError
from foretaste.evaluation.protocols import (
    PROTOCOLS,
    Cases,
    Frozen,
    LastItem,
    LastSession,
    Living,
    PerStep,
    Product,
    Protocol,
    protocol,
)
from foretaste.evaluation.questions import questions, tiers
from tests.evaluation.stubs import random_log

# place     0  1  2   3  4   5  6  7   8   9 10
# item      1  2  3   1  4   2  0  2   5   3  1
# session   a  a  a   b  b   c  c  c   d   e  e
# user      u  u  u   u  u   u  u  u   v   w  w
# part      .  .  .   .  t   t  t  t   t   t  t
LOG = Sequences(
    items=np.array([1, 2, 3, 1, 4, 2, 0, 2, 5, 3, 1], np.int32),
    users=np.array([0, 8, 9, 11]),
    sessions=np.array([0, 3, 5, 8, 9, 11]),
    part=np.array([0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2], np.uint8),
    user_numbers=np.array([1, 2, 3], np.int32),
    times=np.array([10, 11, 12, 20, 21, 30, 31, 32, 5, 40, 41]),
)


def triples(asked: Protocol, log: Sequences = LOG, part: int = TEST) -> list[tuple[int, int, int]]:
    cases = asked.cases(log, part)
    return list(zip(cases.cut.tolist(), cases.start.tolist(), cases.stop.tolist(), strict=True))


def one(*events: int) -> list[tuple[int, int, int]]:
    return [(event, event, event + 1) for event in events]


def test_each_protocol_by_hand() -> None:
    assert triples(PerStep()) == one(4, 6, 7, 10)
    assert triples(PerStep(first=True)) == one(4, 5, 6, 7, 8, 9, 10)
    assert triples(LastItem()) == one(4, 7, 10)
    assert triples(LastItem(first=True)) == one(4, 7, 8, 10)
    assert triples(LastItem(unit="user")) == one(7, 10)
    assert triples(LastSession()) == [(5, 5, 8)]
    assert triples(LastSession(first=True)) == [(5, 5, 8), (8, 8, 9), (9, 9, 11)]
    assert triples(Frozen()) == [(4, 4, 8)]
    assert triples(Frozen(first=True)) == [(4, 4, 8), (8, 8, 9), (9, 9, 11)]
    assert triples(Living()) == triples(Product()) == one(4, 5, 6, 7, 8, 9, 10)
    assert triples(Product(first=False)) == one(4, 6, 7, 10)


def test_events_that_may_not_be_targets_are_never_asked() -> None:
    log = replace(LOG, target=np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0], bool))
    assert triples(PerStep(), log) == one(4, 6)
    assert triples(LastItem(), log) == one(4, 6)
    assert triples(LastItem(unit="user"), log) == one(6)
    assert triples(LastSession(first=True), log) == [(5, 5, 8), (9, 9, 11)]
    assert questions(log, LastSession().cases(log), 5).items.tolist() == [2, 0]


def test_no_case_is_no_error_until_it_is_asked() -> None:
    for kind in PROTOCOLS.values():
        cases = kind().cases(LOG, VALIDATION)
        assert len(cases) == 0
        with pytest.raises(DataError, match="finds nothing to ask"):
            questions(LOG, cases, 5)


def test_what_came_later_than_the_first_question() -> None:
    """The first question of the last session is at time 30: no training event is later. Of Product at 5: all are."""
    assert LastSession().cases(LOG).later == 0.0
    assert Product().cases(LOG).later == 1.0
    assert Product().cases(replace(LOG, times=None)).later is None
    assert PerStep().cases(LOG, TRAIN).later is None


@pytest.mark.parametrize("kind", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_each_says_what_it_asks_and_leaks(kind: type[Protocol]) -> None:
    assert protocol(kind.name) == kind()
    assert kind.leaks.endswith(".")
    assert "{" not in kind().describe
    assert "no candidates; a cold target is left out" in kind(mask_seen=True, cold="drop").describe
    cases = kind(mask_seen=True, cold="drop").cases(LOG)
    assert (cases.mask_seen, cases.cold, cases.protocol, cases.part) == (True, "drop", kind.name, TEST)


def test_bad_names_and_options() -> None:
    assert protocol("last-item", unit="user", mask_seen=True) == LastItem(unit="user", mask_seen=True)
    with pytest.raises(ConfigError, match="did you mean 'frozen'"):
        protocol("frozn")
    for wrong in (-1, True, "20"):
        with pytest.raises(ConfigError, match="expected so many events, 0 for all"):
            protocol("per-step", latest=wrong)
    assert "of which the latest 20 are shown" in protocol("last-item", latest=20).describe
    with pytest.raises(ConfigError, match="no option 'unit'"):
        protocol("frozen", unit="user")
    with pytest.raises(ConfigError, match=r"cold = 'keep'; expected one of \('miss', 'drop'\)"):
        protocol("frozen", cold="keep")
    for wrong in ({"unit": "usr"}, {"cold": "x"}, {"latest": -3}, {"mask_seen": "yes"}):
        with pytest.raises(ConfigError, match=r"protocol 'last-item': .* expected"):
            LastItem(**wrong)
    with pytest.raises(ConfigError, match="gives the answer away"):
        Cases(np.array([3]), np.array([2]), np.array([4]))


@given(st.integers(0, 10**6), st.sampled_from(list(PROTOCOLS.values())), st.booleans(), st.booleans())
def test_what_holds_on_any_log(seed: int, kind: type[Protocol], first: bool, targets: bool) -> None:
    """A history never reaches a target; a case lies in one user; every target is of the part and may be one."""
    log = random_log(seed, targets=targets)
    cases = kind(first=first).cases(log)
    asked = set()
    for cut, start, stop in zip(cases.cut, cases.start, cases.stop, strict=True):
        assert cut <= start < stop
        user = np.searchsorted(log.users, [cut, start, stop - 1], side="right")
        assert user.min() == user.max()
        events = [e for e in range(start, stop) if log.part[e] == TEST and log.may_be_target()[e]]
        assert events
        asked.update(events)
        if not first:
            offsets = log.sessions if kind in (PerStep, LastItem, Living, Product) else log.users
            assert cut not in offsets
    if kind in (Living, Product) and first:
        assert asked == set(np.flatnonzero((log.part == TEST) & log.may_be_target()))


def test_questions_by_hand() -> None:
    """The targets of user u's later events are 4, 2 and a cold one; 2 is a repeat, and counts once."""
    asked = questions(LOG, Frozen().cases(LOG), 5)
    assert asked.items.tolist() == [4, 2, 0]
    assert asked.repeated.tolist() == [False, True, False]
    assert (asked.cold_targets, asked.all_targets, asked.left_out) == (1, 3, 0)
    place, items = asked.seen(LOG, np.array([0]))
    assert items.tolist() == [1, 2, 3, 1]
    assert place.tolist() == [0, 0, 0, 0]
    asked = questions(LOG, Frozen(cold="drop").cases(LOG), 5)
    assert asked.items.tolist() == [4, 2]
    assert (asked.cold_targets, asked.all_targets) == (1, 3)
    asked = questions(LOG, PerStep(cold="drop").cases(LOG), 5)
    assert asked.cut.tolist() == [4, 7, 10]
    assert asked.repeated.tolist() == [False, True, False]
    assert asked.left_out == 1


def test_events_of_other_parts_are_fed_but_never_targets() -> None:
    """A given split may go back and forth: place 5 is validation here, between the user's test events."""
    part = LOG.part.copy()
    part[5] = VALIDATION
    asked = questions(replace(LOG, part=part), Frozen(cold="drop").cases(replace(LOG, part=part)), 5)
    assert asked.items.tolist() == [4, 2]
    part[7] = VALIDATION
    asked = questions(replace(LOG, part=part), Frozen(cold="drop").cases(replace(LOG, part=part)), 5)
    assert asked.items.tolist() == [4]
    asked = questions(replace(LOG, part=part), Frozen(cold="miss").cases(replace(LOG, part=part), VALIDATION), 5)
    assert asked.items.tolist() == [2]
    assert asked.all_targets == 1


def test_the_fingerprint_tells_other_cases_apart() -> None:
    base = questions(LOG, PerStep().cases(LOG), 5).fingerprint
    assert base == questions(LOG, PerStep().cases(LOG), 5).fingerprint
    others = [
        questions(LOG, PerStep(first=True).cases(LOG), 5),
        questions(LOG, PerStep(mask_seen=True).cases(LOG), 5),
        questions(LOG, PerStep(cold="drop").cases(LOG), 5),
        questions(LOG, PerStep().cases(LOG), 6),
    ]
    assert len({base, *(other.fingerprint for other in others)}) == 5


def test_cases_that_do_not_fit_the_log() -> None:
    with pytest.raises(DataError, match="the log has 11 events"):
        questions(LOG, Cases.at(np.array([11])), 5)
    with pytest.raises(DataError, match="a case lies within one user"):
        questions(LOG, Cases(np.array([7]), np.array([8]), np.array([9])), 5)
    with pytest.raises(DataError, match="an item numbered 5, the model knows 4"):
        questions(LOG, PerStep().cases(LOG), 4)
    cold = replace(LOG, items=np.zeros(11, np.int32))
    with pytest.raises(DataError, match="of 4 targets 4 are no candidates"):
        questions(cold, PerStep(cold="drop").cases(cold), 5)
    assert Cases.at(np.array([3, 5])).stop.tolist() == [4, 6]


def test_thirds_of_training_by_hand() -> None:
    """Counts 5, 3, 2, 2, 0: item 1 starts the first third, 2 the second (5 of 12 before it), the rest is the tail."""
    assert tiers(np.arange(6), np.array([5, 3, 2, 2, 0])).tolist() == [3, 0, 1, 2, 2, 2]
    assert tiers(np.array([1, 2]), np.zeros(2, np.int64)).tolist() == [2, 2]
