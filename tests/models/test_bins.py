"""Time bins by hand: widths that must not vanish, and times that no clock should give."""

import math

import numpy as np
import pytest
import torch

from foretaste.models.bins import START, TimeBins, scott_width


def test_the_width_is_the_one_that_numpy_calls_scotts() -> None:
    drawn = np.random.default_rng(0).gamma(1, 90, 50_000)
    edges = np.histogram_bin_edges(drawn, bins="scott")  # which fits a whole number of bins into the range
    assert scott_width(drawn) == pytest.approx(edges[1] - edges[0], rel=0.01)


@pytest.mark.parametrize(
    ("gaps", "width", "number"),
    [([], 1, 1), ([5], 1, 6), ([7, 7, 7], 1, 8), ([0, 0], 1, 1), ([-50, -3], 1, 1), ([1, 1, 2] * 300, 1, 3)],
    ids=str,
)
def test_no_bin_is_narrower_than_a_second(gaps: list[int], width: float, number: float) -> None:
    bins = TimeBins(3600.0, 1000)
    bins.fit(np.array(gaps, np.float64))
    assert (float(bins.width), float(bins.number)) == (width, number)


def test_bins_by_hand_with_negative_enormous_and_missing_times() -> None:
    bins = TimeBins(3600.0, 1000)
    bins.width.fill_(10.0)
    bins.number.fill_(4.0)
    seconds = torch.tensor([[0, 9.99, 10, 39.9, 40, 1e30, -7, math.inf, -math.inf, math.nan, 25]])
    first = torch.arange(11)[None] == 10
    assert bins(seconds, first).tolist() == [[1, 1, 2, 4, 4, 4, 1, 4, 1, 1, START]]
    assert bins(torch.tensor([[2**62, -(2**62)]]), first[:, :2]).tolist() == [[4, 1]]


def test_at_most_so_many_bins_and_the_last_takes_the_rest() -> None:
    bins = TimeBins(3600.0, 20)
    bins.fit(np.linspace(0, 3600, 1_000_000))
    assert float(bins.number) == 20
    assert bins(torch.tensor([[3600.0]]), torch.tensor([[False]])).tolist() == [[20]]
