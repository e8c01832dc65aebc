"""Intervals and paired tests against scipy, against themselves, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from foretaste.errors import ConfigError, DataError
from foretaste.evaluation.significance import holm, intervals, paired, sign_test


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=(300, 2))
    found = intervals(values, resamples=4000, seed=1)
    for column in range(2):
        theirs = stats.bootstrap(
            (values[:, column],), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
        ).confidence_interval
        assert found[column] == pytest.approx([theirs.low, theirs.high], abs=0.015)
    assert np.array_equal(found, intervals(values, resamples=4000, seed=1))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for trial in range(300):
        low, high = intervals(rng.normal(size=(60, 1)), resamples=300, seed=trial)[0]
        inside += low <= 0 <= high
    assert 0.90 <= inside / 300 <= 0.975


def test_drawing_users_is_wider_than_drawing_cases() -> None:
    """100 users with ten equal cases each: the interval is sqrt(10) times as wide, that of 100 cases."""
    users = np.random.default_rng(4).normal(size=100)
    values, who = np.repeat(users, 10)[:, None], np.repeat(np.arange(100), 10)
    by_case, by_user = intervals(values)[0], intervals(values, who)[0]
    alone = intervals(users[:, None])[0]
    assert (by_user[1] - by_user[0]) / (by_case[1] - by_case[0]) == pytest.approx(math.sqrt(10), rel=0.1)
    assert by_user == pytest.approx(alone, abs=1e-12)


def test_a_cluster_counts_with_all_its_cases() -> None:
    """Cases of sizes 1 and 3: the mean is over cases, so a draw is 0, 3/4 or 1."""
    low, high = intervals(np.array([[0.0], [1.0], [1.0], [1.0]]), np.array([7, 2, 2, 2]))[0]
    assert (low, high) == (0.0, 1.0)


def test_a_model_with_itself_shows_no_difference() -> None:
    values = np.random.default_rng(5).random(500)
    found = paired(values, values, np.arange(500) // 3)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.p_bootstrap == found.p_randomisation == found.p_sign == 1
    assert (found.wins, found.losses, found.clusters, found.cases) == (0, 0, 167, 500)


def test_a_clear_difference_and_none() -> None:
    rng = np.random.default_rng(6)
    base = rng.random(400)
    better = paired(base + 0.1 + rng.normal(size=400) * 0.1, base)
    assert better.low > 0.08
    assert better.high < 0.12
    assert max(better.p_bootstrap, better.p_randomisation) == pytest.approx(2 / 1001, abs=1e-3)
    assert better.p_sign < 1e-10
    worse = paired(base, base + 0.1)
    assert worse.difference == pytest.approx(-0.1)
    assert worse.losses == 400


def test_the_randomisation_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(7)
    first, second = rng.random(40) + 0.08, rng.random(40)
    theirs = stats.permutation_test(
        (first, second), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=9999, rng=rng
    ).pvalue
    assert paired(first, second, resamples=9999).p_randomisation == pytest.approx(theirs, abs=0.02)


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Two equally good models: each test calls a difference at 5 % in about 5 % of 300 trials."""
    rng = np.random.default_rng(8)
    found = [paired(rng.normal(size=50), rng.normal(size=50), resamples=200, seed=trial) for trial in range(300)]
    for test in ("p_bootstrap", "p_randomisation", "p_sign"):
        assert np.mean([getattr(result, test) <= 0.05 for result in found]) < 0.09


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 1), (9, 9), (12, 30), (2000, 2100), (60_000, 60_500)])
def test_the_sign_test_is_the_binomial(wins: int, losses: int) -> None:
    wanted = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(wanted, rel=1e-7)


def test_a_draw_but_for_the_rounding_is_a_draw() -> None:
    found = paired(np.array([0.1, 0.2, 0.7]), np.array([0.3, 0.0, 0.7]), np.zeros(3))
    assert (found.wins, found.losses) == (0, 0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_among_more_pairs_than_are_given() -> None:
    assert holm([0.01], of=3) == pytest.approx([0.03])
    assert holm([0.02, 0.01], of=3) == pytest.approx([0.04, 0.03])
    assert holm([], of=3) == []


def test_against_the_best_of_many_alike_false_alarms_stay_at_the_level() -> None:
    """Ten models that are alike, 400 times: against the greatest some p falls below 0.05 in up to 5 % of the times, if
    all 45 pairs are counted; in more than 8 % if the nine are."""
    rng, alarms = np.random.default_rng(0), np.zeros(2)
    for _ in range(400):
        means = rng.normal(size=10)
        gaps = (means.max() - np.delete(means, means.argmax())) / np.sqrt(2)
        p = [math.erfc(gap / np.sqrt(2)) for gap in gaps]
        alarms += [min(holm(p)) < 0.05, min(holm(p, of=45)) < 0.05]
    assert alarms[0] / 400 > 0.08
    assert alarms[1] / 400 <= 0.05


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="3 and 2 cases"):
        paired(np.zeros(3), np.zeros(2))
    with pytest.raises(DataError, match="no cases"):
        intervals(np.zeros((0, 1)))
    with pytest.raises(ConfigError, match="level = 95"):
        intervals(np.zeros((2, 1)), level=95)
    with pytest.raises(ConfigError, match="resamples = 0"):
        intervals(np.zeros((2, 1)), resamples=0)
