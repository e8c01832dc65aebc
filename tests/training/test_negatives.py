"""Samplers: their laws by chi-square with fixed seeds, what they exclude by properties, their log Q by counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.models.baselines.gru4rec import GRU4Rec
from foretaste.training.negatives import InBatch, Negatives, Popularity, Sampler, Uniform, generator
from foretaste.training.settings import TrainConfig, sampler_of
from foretaste.training.touched import Past, Touched

COUNTS = [50, 20, 20, 5, 3, 1, 1, 0]


def share(power: float) -> np.ndarray:
    law = np.maximum(COUNTS, 1.0) ** power
    return law / law.sum()


def past(*rows: list[int], n_items: int = 8) -> Past:
    """Of users who have touched these items, 0 for none, and will touch everything."""
    users = np.cumsum([0] + [1 + len(row) + n_items for row in rows])
    items = [item for row in rows for item in [0, *row, *range(1, n_items + 1)]]
    log = Sequences(
        np.array(items, np.int32), users, users, np.zeros(len(items), np.uint8), np.ones(len(rows), np.int32)
    )
    return Touched(log, n_items).at(users[:-1] + [len(row) for row in rows])


def counted(items: Tensor, n_items: int) -> np.ndarray:
    return np.bincount(items.flatten().numpy(), minlength=n_items + 1)[1:]


@pytest.mark.parametrize(
    ("sampler", "law"),
    [(Uniform(8), np.full(8, 1 / 8))] + [(Popularity(COUNTS, power), share(power)) for power in (0.0, 0.5, 0.75, 1.0)],
)
def test_a_sampler_draws_by_its_law(sampler: Sampler, law: np.ndarray) -> None:
    drawn = counted(sampler.draw((400, 500), generator(3)), 8)
    assert chisquare(drawn, law * 200_000).pvalue > 0.01
    np.testing.assert_allclose(sampler.log_q(torch.arange(1, 9)).exp().numpy(), law, rtol=1e-5)


def test_the_chi_square_would_notice_a_wrong_law() -> None:
    drawn = counted(Popularity(COUNTS, 0.75).draw((400, 500), generator(3)), 8)
    assert chisquare(drawn, share(0.8) * 200_000).pvalue < 1e-6


def test_the_alias_table_is_exact_for_a_large_catalogue() -> None:
    """Summed over its columns, the table gives back the law."""
    counts = np.random.default_rng(0).zipf(1.3, 5000).clip(max=10**6)
    sampler = Popularity(counts, 1.0)
    mass = np.zeros(5000)
    np.add.at(mass, np.arange(5000), sampler._keep.double().numpy())
    np.add.at(mass, sampler._other.numpy(), 1 - sampler._keep.double().numpy())
    np.testing.assert_allclose(mass / 5000, counts / counts.sum(), rtol=1e-4, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 6), count=st.integers(1, 7), width=st.integers(0, 9), items=st.integers(2, 9),
    shared=st.booleans(), seed=st.integers(0, 9999),
)  # fmt: skip
def test_no_negative_is_the_target_or_touched(
    n: int, count: int, width: int, items: int, shared: bool, seed: int
) -> None:
    g = generator(seed)
    targets = torch.randint(items, (n,), generator=g)
    lists = torch.randint(items + 1, (n, width), generator=g).tolist()
    exclude = past(*lists, n_items=items)
    for source in (Uniform(items, shared=shared), Popularity(range(items), shared=shared), InBatch(Uniform(items))):
        drawn = source.sample(targets, count, g, exclude=exclude)
        rows = drawn.items.expand(n, -1)
        assert rows.min() >= 1
        assert rows.max() <= items
        for row in range(n):
            barred = {int(targets[row]) + 1, *lists[row]}
            kept = rows[row][drawn.real[row]].tolist()
            assert barred.isdisjoint(kept)
            masked = rows[row][~drawn.real[row]].tolist()
            assert barred.issuperset(masked)


def test_a_user_who_touched_everything_has_no_real_negative_and_no_nan() -> None:
    drawn = Uniform(3).sample(torch.tensor([0]), 4, generator(0), exclude=past([2, 3, 3, 0], n_items=3))
    assert not drawn.real.any()
    assert torch.isfinite(drawn.log_q).all()


def expected_times(drawn: Negatives, items: int) -> tuple[np.ndarray, np.ndarray]:
    """For a batch of equal rows: how often a row really got each item, and what log_q said it would."""
    n = drawn.real.shape[0]
    rows, said = drawn.items.expand(n, -1), drawn.log_q.expand(n, -1)
    got = np.zeros(items)
    np.add.at(got, rows[drawn.real].numpy() - 1, 1 / n)
    claim = np.full(items, np.nan)
    claim[rows[drawn.real].numpy() - 1] = said[drawn.real].exp().numpy()
    return got, claim


@pytest.mark.parametrize("heavy", [False, True])
def test_log_q_of_own_negatives_is_how_often_they_come(heavy: bool) -> None:
    """Redrawn up to eight times: with most of the mass excluded, some clashes remain, and log_q knows it."""
    barred = [1, 2, 3, 4, 5] if heavy else [4, 1]
    n = 100_000
    exclude = past(*[[*barred, barred[0], 0]] * n)
    drawn = Popularity(COUNTS, 1.0).sample(torch.full((n,), 6), 3, generator(5), exclude=exclude)
    got, claim = expected_times(drawn, 8)
    open_items = [i for i in range(8) if i + 1 not in {*barred, 7}]
    np.testing.assert_allclose(got[open_items], claim[open_items], rtol=0.05)
    assert got[[b - 1 for b in barred]].sum() == 0
    assert drawn.log_q_target[0].item() == pytest.approx(
        drawn.log_q[drawn.real][0].item()
        + math.log(share(1.0)[6] / share(1.0)[int(drawn.items[drawn.real][0]) - 1]),
        rel=1e-4,
    )  # fmt: skip


def test_log_q_of_a_pool_is_how_often_it_comes() -> None:
    sampler, targets, exclude = Popularity(COUNTS, 0.75, shared=True), torch.tensor([0]), past([3])
    got = np.zeros(8)
    g = generator(1)
    for _ in range(4000):
        drawn = sampler.sample(targets, 5, g, exclude=exclude)
        np.add.at(got, drawn.items[drawn.real[0]].numpy() - 1, 1 / 4000)
    claim = 5 * share(0.75)
    claim[[0, 2]] = 0  # the target and what was touched
    np.testing.assert_allclose(got, claim, rtol=0.1, atol=0.01)
    assert drawn.items.shape == (5,)
    np.testing.assert_allclose(drawn.log_q.exp(), 5 * share(0.75)[drawn.items - 1], rtol=1e-5)


def test_other_targets_of_the_batch_are_negatives_and_the_own_is_not() -> None:
    targets = torch.tensor([4, 1, 4, 6])  # items 5, 2, 5, 7
    law = Popularity(COUNTS, 1.0)
    drawn = InBatch(law).sample(targets, 0, generator(0), exclude=past([7], [0], [2], [1]))
    assert drawn.items.tolist() == [5, 2, 5, 7]
    assert drawn.real.tolist() == [
        [False, True, False, False],  # 5 is its own target, 7 was touched
        [True, False, True, True],
        [False, False, False, True],
        [True, True, True, False],
    ]
    np.testing.assert_allclose(drawn.log_q.exp(), 3 * share(1.0)[[4, 1, 4, 6]], rtol=1e-5)
    np.testing.assert_allclose(drawn.log_q_target, drawn.log_q)


def test_more_negatives_join_those_of_the_batch() -> None:
    law, extra = Popularity(COUNTS, 1.0), Uniform(8)
    drawn = InBatch(law, extra).sample(torch.tensor([4, 1, 2]), 10, generator(0))
    assert drawn.items.shape == (13,)
    assert drawn.real.shape == (3, 13)
    both = 2 * share(1.0) + 10 / 8
    np.testing.assert_allclose(drawn.log_q.exp(), both[drawn.items - 1], rtol=1e-5)
    alone = InBatch(law, extra).sample(torch.tensor([4, 1, 2]), 0, generator(0))
    assert alone.items.tolist() == [5, 2, 3]


def test_the_law_of_the_batch_is_that_of_targets() -> None:
    """Two rows of clicks on 1 and 2 and a purchase of 3; one of them begins with 4, which nobody asks for."""
    log = Sequences(
        np.array([1, 2, 3, 4, 1, 2, 3], np.int32), np.array([0, 3, 7]), np.array([0, 3, 7]), np.zeros(7, np.uint8),
        np.array([1, 2], np.int32), target=np.array([0, 0, 1, 1, 0, 1, 1], bool),
    )  # fmt: skip
    config = TrainConfig(loss="sampled_softmax", sampler="batch")
    source = sampler_of(GRU4Rec(4, GRU4Rec.Config(scope="user")), log, config)
    assert isinstance(source, InBatch)
    once = np.array([1, 1, 2, 1])  # 2 is asked once, 3 twice; what never is counts as once
    np.testing.assert_allclose(source.law.log_q(torch.arange(1, 5)).exp(), once / once.sum(), rtol=1e-5)


def listed(log: Sequences, places: np.ndarray) -> list[set[int]]:
    """What was touched by each place, by asking for every item: alone, and in a list that all rows share."""
    known, every = Touched(log, 9).at(places), torch.arange(1, 10)
    own, shared = known.holds(every.expand(len(places), -1)), known.holds(every)
    assert torch.equal(own, shared)
    assert torch.equal(known.holds(every[[4, 4, 0]]), own[:, [4, 4, 0]]), "a list with an item twice"
    law = Popularity(range(9), 1.0)
    mass = [float(law.log_q(every[row]).exp().sum()) for row in own]
    np.testing.assert_allclose(known.mass(law.log_q), mass, rtol=1e-5, atol=1e-7)
    return [set(every[row].tolist()) for row in own]


def test_touched_knows_the_past_and_never_the_future() -> None:
    log = Sequences(
        np.array([3, 1, 4, 0, 5, 9], np.int32), np.array([0, 4, 6]), np.array([0, 2, 4, 6]), np.zeros(6, np.uint8),
        np.ones(2, np.int32),
    )  # fmt: skip
    assert listed(log, np.array([2, 1, 4, 3])) == [{3, 1, 4}, {3, 1}, {5}, {3, 1, 4}]


def test_a_log_of_cold_items_alone_has_nothing_touched() -> None:
    log = Sequences(
        np.zeros(3, np.int32), np.array([0, 3]), np.array([0, 3]), np.zeros(3, np.uint8), np.ones(1, np.int32)
    )
    assert listed(log, np.array([0, 2])) == [set(), set()]


@given(seed=st.integers(0, 9999))
def test_touched_is_the_users_past_across_sessions_whatever_follows(seed: int) -> None:
    g = np.random.default_rng(seed)
    lengths = g.integers(1, 7, 4)
    users = np.concatenate([[0], np.cumsum(lengths)])
    size = int(users[-1])
    sessions = np.unique(np.concatenate([users, g.integers(0, size, 3)]))
    log = Sequences(
        g.integers(1, 9, size).astype(np.int32), users, sessions, np.zeros(size, np.uint8), np.ones(4, np.int32)
    )
    places = g.integers(0, size, 5)
    for found, place in zip(listed(log, places), places.tolist(), strict=True):
        first = users[np.searchsorted(users, place, side="right") - 1]
        assert found == set(log.items[first : place + 1].tolist())


def test_the_same_key_draws_the_same_and_another_does_not() -> None:
    def first(*key: int) -> list[int]:
        return Uniform(10**6).draw((4,), generator(*key)).tolist()

    torch.manual_seed(1)
    a = first(0, 2, 17)
    torch.manual_seed(2)
    assert first(0, 2, 17) == a
    assert first(0, 2, 18) != a
    assert first(0, 3, 17) != a


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    Popularity(COUNTS).sample(torch.tensor([0, 1]), 3, generator(0))
    assert torch.equal(before, torch.get_rng_state())


def test_what_cannot_be_meant_is_said_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="at least 2 items, found 1"):
        Uniform(1)
    with pytest.raises(ConfigError, match="at least 1, found 0"):
        Uniform(5).sample(torch.tensor([0]), 0, generator(0))
    with pytest.raises(ConfigError, match="finite and not negative"):
        Popularity([1, -2, 3])
    with pytest.raises(ConfigError, match="finite and not negative"):
        Popularity([1, math.nan, 3])
