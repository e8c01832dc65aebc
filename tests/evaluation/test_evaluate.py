"""A whole evaluation against the slow one, for every protocol and scope; and what it must never do."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foretaste import EventLog, Recommender, splits
from foretaste.data.sequences import TEST, TRAIN, Sequences
from foretaste.errors import ConfigError, DataError, SavedFileError
from foretaste.evaluation.evaluate import evaluate
from foretaste.evaluation.protocols import PROTOCOLS, Cases, Frozen, LastSession, Living, PerStep, Product, Protocol
from foretaste.evaluation.ranking import MISS, ScoreError
from foretaste.evaluation.report import Evaluation, compare
from tests.evaluation.stubs import Bag, Counter, Fixed, Scope, random_log, slow_evaluation, slow_metrics

every_protocol = pytest.mark.parametrize("kind", PROTOCOLS.values(), ids=list(PROTOCOLS))


def infinite(ranks: np.ndarray) -> list[float]:
    return [math.inf if place == MISS else float(place) for place in ranks]


def assert_as_slow(found: Evaluation, model: Bag | Counter, log: Sequences, cases: Cases, k: int) -> None:
    slow = slow_evaluation(model, log, cases)
    assert found.items.tolist() == [item for case in slow for item in case.targets]
    assert np.diff(found.offsets).tolist() == [len(case.targets) for case in slow]
    assert infinite(found.pessimistic) == [place for case in slow for place in case.pessimistic]
    assert infinite(found.optimistic) == [place for case in slow for place in case.optimistic]
    assert found.history.tolist() == [case.history for case in slow]
    assert found.repeated.tolist() == [item in case.seen for case in slow for item in case.targets]
    for name, values in (("pessimistic", found.means()), ("optimistic", found.means(optimistic=True))):
        metrics = [slow_metrics(getattr(case, name), k) for case in slow]
        for metric in metrics[0]:
            assert values[metric] == pytest.approx(sum(case[metric] for case in metrics) / len(slow), abs=1e-12), metric
    shown = {item for case in slow for item in case.top[:k]}
    assert found.facts.coverage == len(shown) / model.n_items
    repeats = [sum(item in case.seen for item in case.top[:k]) / max(1, len(case.top[:k])) for case in slow]
    assert found.lists[f"repeats@{k}"].tolist() == pytest.approx(repeats)


@every_protocol
@pytest.mark.parametrize("scope", ["session", "user"])
@pytest.mark.parametrize("make", [Bag, Counter])
def test_equal_to_the_slow_evaluation(kind: type[Protocol], scope: Scope, make: type[Bag] | type[Counter]) -> None:
    for seed, (first, mask_seen) in enumerate(itertools.product([True, False], [True, False])):
        log = random_log(seed, targets=seed % 2 == 0)
        model = make(20, scope)
        cases = kind(first=first, mask_seen=mask_seen, cold="drop" if seed == 3 else "miss").cases(log)
        found = evaluate(model, log, cases, cutoffs=(5,), lists=True)
        assert_as_slow(found, model, log, cases, 5)


@every_protocol
@pytest.mark.parametrize("scope", ["session", "user"])
def test_the_latest_events_alone(kind: type[Protocol], scope: Scope) -> None:
    """A model is shown so many of them, whatever came before; what is masked goes by the whole history."""
    log = random_log(5)
    for model in (Bag(20, scope), Counter(20, scope)):
        for latest in (1, 3, 100):
            cases = kind(latest=latest, mask_seen=True).cases(log)
            found = evaluate(model, log, cases, cutoffs=(5,), lists=True, chunk=2)
            assert_as_slow(found, model, log, cases, 5)
            assert found.history.max() <= latest
    whole = evaluate(model, log, kind(mask_seen=True).cases(log), cutoffs=(5,))
    assert np.array_equal(found.pessimistic, whole.pessimistic)
    with pytest.raises(DataError):
        compare(found, {"whole": whole}, "recall@5")


@pytest.mark.parametrize(("tokens", "chunk", "block"), [(1, 1, 1), (7, 2, 3), (30, 5, 4), (8192, 512, 128)])
def test_batches_chunks_and_blocks_change_nothing(tokens: int, chunk: int, block: int) -> None:
    log, model = random_log(7), Bag(20, "user")
    for kind in (Product, Frozen):
        cases = kind().cases(log)
        whole = evaluate(model, log, cases)
        parts = evaluate(model, log, cases, tokens=tokens, chunk=chunk, block=block)
        assert np.array_equal(whole.pessimistic, parts.pessimistic)
        assert np.array_equal(whole.optimistic, parts.optimistic)
        assert np.array_equal(whole.history, parts.history)


def test_each_row_is_fed_once_and_never_beyond_its_last_cut() -> None:
    log, model = random_log(3, n_users=6), Bag(20, "user")
    for kind in (Frozen, LastSession, Product):
        cases = kind().cases(log)
        model.fed.clear()
        evaluate(model, log, cases)
        wanted = []
        for user, (start, stop) in enumerate(itertools.pairwise(log.users)):
            cuts = [cut for cut in cases.cut if start <= cut < stop]
            if cuts and any(log.items[start : max(cuts)]):
                wanted.append([item for item in log.items[start : max(cuts)].tolist() if item])
            assert user < log.n_users
        assert sorted(model.fed) == sorted(wanted)


@every_protocol
def test_the_future_moves_nothing(kind: type[Protocol]) -> None:
    """With every event after a cut changed, targets apart, each case keeps its ranks."""
    log, model = random_log(11), Bag(20, "user")
    cases = kind().cases(log)
    case = len(cases) // 2
    one = replace(cases, cut=cases.cut[[case]], start=cases.start[[case]], stop=cases.stop[[case]], cold="miss")
    items = log.items.copy()
    items[one.stop[0] :] = np.random.default_rng(1).integers(1, 21, len(items) - one.stop[0])
    before, after = evaluate(model, log, one), evaluate(model, replace(log, items=items), one)
    assert np.array_equal(before.pessimistic, after.pessimistic)


def test_a_user_model_lives_on_where_a_session_model_starts_afresh() -> None:
    """Two sessions of one user; the counter of the session knows nothing at the first event of the second, but where a
    service is asked, for which the first session is open until then."""
    log = Sequences(
        np.array([1, 2, 1, 3], np.int32), np.array([0, 4]), np.array([0, 2, 4]), np.array([0, 0, 2, 2], np.uint8),
        np.array([1], np.int32),
    )  # fmt: skip
    by_user, by_session, served = (
        evaluate(Counter(3, scope), log, kind().cases(log))
        for scope, kind in (("user", Living), ("session", Living), ("session", Product))
    )
    assert by_user.pessimistic.tolist() == [2, 3]
    assert by_session.pessimistic.tolist() == [3, 3]
    assert served.pessimistic.tolist() == [2, 3]
    assert by_user.history.tolist() == [2, 3]
    assert by_session.history.tolist() == [0, 1]
    assert served.history.tolist() == [2, 1]
    assert by_session.facts.fingerprint != served.facts.fingerprint


def test_random_scores_hit_by_chance_and_constant_ones_never_or_always() -> None:
    log = random_log(0, n_items=200, n_users=400)
    cases = PerStep(cold="drop").cases(log)
    found = evaluate(Fixed(200), log, cases, cutoffs=(50,))
    n = len(found)
    assert n > 500
    assert abs(found.means()["hr@50"] - 0.25) < 4 * math.sqrt(0.25 * 0.75 / n)
    constant = evaluate(Fixed(torch.ones(200)), log, cases, cutoffs=(50,))
    assert constant.means()["recall@50"] == 0
    assert constant.means(optimistic=True)["recall@50"] == 1
    assert constant.ties == 1


def test_cold_targets_are_misses_or_left_out() -> None:
    log = random_log(5)
    asked = (log.part == TEST) & (np.arange(len(log)) > 0)
    missed, dropped = (evaluate(Fixed(torch.ones(20)), log, Product(cold=cold).cases(log)) for cold in ("miss", "drop"))
    share = (log.items[asked] == 0).mean()
    assert missed.cold == dropped.cold == share
    assert missed.means(optimistic=True)["recall@20"] == pytest.approx(1 - share)
    assert dropped.means(optimistic=True)["recall@20"] == 1
    assert len(dropped) == len(missed) - (log.items[asked] == 0).sum()
    assert "left out" in dropped.table()
    assert any("not asked" in note for note in dropped.facts.notes)


def test_a_masked_target_is_a_certain_miss() -> None:
    log = random_log(5)
    found = evaluate(Fixed(torch.ones(20)), log, Product(mask_seen=True).cases(log), lists=True)
    assert found.repeated.any()
    assert set(found.optimistic[found.repeated]) == {MISS}
    assert set(found.optimistic[~found.repeated & (found.items > 0)]) == {1}
    assert found.means()["repeats@20"] == 0


def test_nan_names_the_model_the_case_and_what_to_do() -> None:
    log, model = random_log(2), Bag(20)
    model.table[7, 2] = math.nan
    wanted = r"big bag: the scores of case \d+ .* NaN .* its table.* lower learning rate"
    for block in (None, 1):
        with pytest.raises(ScoreError, match=wanted):
            evaluate(model, log, PerStep().cases(log), name="big bag", block=block)


def test_the_model_is_left_as_it_was() -> None:
    model = Bag(20)
    model.add_module("part", torch.nn.Dropout())
    model.train()
    model.part.eval()
    log = random_log(1)
    evaluate(model, log, PerStep().cases(log))
    assert model.training
    assert not model.part.training
    with pytest.raises(ConfigError, match="cutoffs"):
        evaluate(model, log, PerStep().cases(log), cutoffs=(0, 5))
    model.table.fill_(math.nan)
    with pytest.raises(ScoreError):
        evaluate(model, log, PerStep().cases(log))
    assert model.training


def test_dropout_is_off() -> None:
    class Noisy(Bag):
        def forward(self, events, state, at=None):  # type: ignore[no-untyped-def]
            assert not self.training
            assert torch.is_inference_mode_enabled()
            return super().forward(events, state, at)

    log = random_log(1)
    evaluate(Noisy(20).train(), log, PerStep().cases(log))


def test_progress_counts_up_to_all_cases() -> None:
    seen: list[tuple[int, int]] = []
    log = random_log(1)
    found = evaluate(Bag(20), log, PerStep().cases(log), block=4, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (len(found), len(found))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_log_of_another_vocabulary_and_a_list_of_everything() -> None:
    log = random_log(1)
    with pytest.raises(DataError, match="the model knows 12 items"):
        evaluate(Bag(12), log, PerStep().cases(log))
    found = evaluate(Bag(20), log, PerStep().cases(log), cutoffs=(20,))
    assert "a list of 20 holds all 20 items" in found.table()
    assert any("training events" in note for note in evaluate(Bag(20), log, PerStep().cases(log, TRAIN)).facts.notes)


def test_few_users_are_told_of() -> None:
    def told(users: int) -> list[str]:
        ends = 3 * np.arange(users + 1)
        log = Sequences(
            np.tile(np.array([1, 2, 3], np.int32), users), ends, ends, np.full(3 * users, TEST, np.uint8),
            np.arange(users, dtype=np.int32),
        )  # fmt: skip
        return [note for note in evaluate(Bag(3), log, PerStep().cases(log), cutoffs=(1,)).facts.notes if "few" in note]

    assert told(29) == ["29 users (or sessions without a user) are few: the true interval is wider than the one shown"]
    assert not told(30)


def test_a_session_model_that_is_asked_from_nothing_is_named() -> None:
    log = random_log(3)
    last = log.sessions[:-1][np.searchsorted(log.sessions, log.users[1:]) - 1]  # where each user's last session begins
    part = (np.arange(len(log)) >= np.repeat(last, np.diff(log.users))) * TEST
    log = replace(log, part=part.astype(np.uint8))

    def said(scope: Scope, protocol: Protocol) -> bool:
        found = evaluate(Counter(20, scope), log, protocol.cases(log), name="counter")
        return any("counter reads one session and has seen nothing of it" in note for note in found.facts.notes)

    assert said("session", LastSession())
    assert not said("session", PerStep())
    assert not said("user", LastSession())


def test_a_history_of_nothing_is_explained() -> None:
    log = random_log(3)
    text = evaluate(Bag(20), log, PerStep(first=True).cases(log)).table()
    assert "\n0 (none, or all cold)  " in text


def test_a_model_told_of_the_future_is_marked() -> None:
    class Told(Bag):
        causal = False

    log = random_log(1)
    assert "no service can reach this figure" in evaluate(Told(20), log, PerStep().cases(log)).table()


def test_the_breakdown_adds_up() -> None:
    log = random_log(4, n_users=60)
    found = evaluate(Bag(20), log, Frozen().cases(log), cutoffs=(3, 5))
    parts = found.breakdown()
    assert sum(row["size"] for row in parts["history"]) == len(found)
    total = sum(row["size"] * row["recall@5"] for row in parts["history"]) / len(found)
    assert total == pytest.approx(found.means()["recall@5"])
    for name in ("popularity", "repeats"):
        assert sum(row["size"] for row in parts[name]) == len(found.items)
        hits = sum(row["size"] * row["recall@5"] for row in parts[name])
        assert hits == pytest.approx((found.pessimistic <= 5).sum())
    cold = next(row for row in parts["popularity"] if row["label"] == "cold")
    assert (cold["size"], cold["recall@5"]) == (found.facts.cold_targets, 0)


def test_candidates_that_training_has_not_seen_are_told() -> None:
    """Item 3 is of the validation part alone, 4 of the test alone; each is one of the two targets."""
    clicks = {
        "user": [1] * 4 + [2] * 4,
        "item": [1, 2, 3, 4, 2, 1, 1, 3],
        "time": range(8),
        "part": ["train", "train", "valid", "test"] * 2,
    }
    log = EventLog.read(clicks, user="user", item="item", time="time", split="part")
    prepared = log.prepare(splits.Given())
    told = "50.00 % of the targets are candidates that no event of the training has"
    for refit in (False, True):
        found = Recommender("pop").fit(prepared, refit=refit).evaluate(prepared, protocol="last-item")
        assert found.cold == 0.5
        assert any(note.startswith(told) for note in found.facts.notes) is not refit


def test_the_table_shows_both_values_where_they_differ() -> None:
    log = random_log(4, n_items=100, n_users=60)
    table = evaluate(Fixed(torch.ones(100)), log, PerStep(cold="drop").cases(log), cutoffs=(20,)).table()
    line = next(line for line in table.splitlines() if line.startswith("recall@20"))
    assert line.split() == ["recall@20", "0.00", "0.00", "to", "0.00", "100.00"]
    assert "ties     in 100.00 % of the cases" in table
    assert "later than the first question" in table
    distinct = evaluate(Fixed(torch.arange(100.0)), log, PerStep().cases(log), lists=True).table()
    assert "if ties go well" not in distinct
    assert ["coverage@20", "20.00"] in [line.split() for line in distinct.splitlines()]


def test_as_dict_is_json_and_holds_the_means() -> None:
    log = random_log(4)
    found = evaluate(Bag(20), log, PerStep().cases(log), cutoffs=(10, 5), lists=True)
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["cutoffs"] == [5, 10]
    assert plain["cases"] == len(found)
    assert plain["cold_are"] == "miss"
    for name, value in found.means().items():
        shown = plain["metrics"][name]
        assert shown["value"] == value
        assert shown["low"] <= value <= shown["high"]
        assert shown["optimistic"] >= value


def test_saved_ranks_are_the_same_evaluation(tmp_path: Path) -> None:
    log = random_log(4)
    found = evaluate(Bag(20), log, PerStep().cases(log), lists=True)
    path = found.save_ranks(tmp_path / "ranks.npz")
    again = Evaluation.load_ranks(path)
    assert again.facts == found.facts
    assert again.means() == found.means()
    assert again.table() == found.table()
    assert again.against(found).difference == 0
    assert [file.name for file in tmp_path.iterdir()] == ["ranks.npz"]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SavedFileError, match="truncated or another kind"):
        Evaluation.load_ranks(path)
    with pytest.raises(SavedFileError, match="cannot be read"):
        Evaluation.load_ranks(tmp_path / "none.npz")
    with pytest.raises(SavedFileError, match="could not be written"):
        found.save_ranks(tmp_path / "ranks.npz" / "inside a file.npz")


def test_models_are_compared_on_the_same_cases_only() -> None:
    log = random_log(4, n_users=80)
    cases = PerStep().cases(log)
    good, bad, bag = (evaluate(model, log, cases) for model in (Counter(20), Fixed(torch.ones(20)), Bag(20)))
    cut = replace(cases, cut=cases.cut[1:], start=cases.start[1:], stop=cases.stop[1:])
    with pytest.raises(DataError, match="not asked the same cases"):
        good.against(evaluate(Bag(20), log, cut))
    with pytest.raises(ConfigError, match="did you mean 'recall@20'"):
        good.against(bad, "recal@20")
    found = good.against(bad, "mrr")
    assert found.difference == pytest.approx(good.means()["mrr"] - bad.means()["mrr"])
    assert found.low <= found.difference <= found.high
    assert found.clusters == len(set(good.clusters))
    table = compare(good, {"bad": bad, "bag": bag, "itself": good}, "mrr")
    assert table["itself"][1] == 1
    assert table["bad"][1] == pytest.approx(min(1, 3 * table["bad"][0].p_randomisation))


def test_users_beyond_those_of_the_model_are_strangers() -> None:
    log, model = random_log(4), Bag(20, "user")
    model.n_users = 0
    strangers = replace(log, user_numbers=np.zeros(log.n_users, np.int32))
    one, other = (evaluate(model, each, Product().cases(each)) for each in (log, strangers))
    assert np.array_equal(one.pessimistic, other.pessimistic)
