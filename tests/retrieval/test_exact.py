"""Exact retrieval: the scores are the model's, and the best of them are the first of a full sort."""

from __future__ import annotations

import pytest
import torch

from foretaste.models.topk import top_k
from foretaste.retrieval.exact import Exact
from tests.battery import every_model, make, random_events, users_of


@every_model
def test_the_scores_are_the_models(name: str, variant: dict[str, object]) -> None:
    model, events = make(name, variant), random_events()
    exact = Exact(model)
    with torch.inference_mode():
        _, state = model(events, model.initial_state(users_of(events)))
        query = model.query(state)
        assert torch.allclose(exact.score(query), model.score(query)[:, 0], atol=1e-12, rtol=1e-12)
        pool = torch.tensor([3, 8, 30])
        assert torch.equal(exact.score(query, pool), model.score(query, pool)[:, 0])


@pytest.mark.parametrize("size", [7, 500, 10_752, 10_900, 40_000])
def test_the_best_k_are_the_first_of_a_stable_sort(size: int) -> None:
    """With few and with many ties, with what is hidden, with a rest that fills no block."""
    rng = torch.Generator().manual_seed(size)
    for levels in (0, 3, 50, 20_000):
        for k in (1, 5, 20):
            scores = torch.randn(6, size, generator=rng)
            if levels:
                scores = torch.randint(levels, (6, size), generator=rng).float()
            scores[0, torch.randint(size, (size // 2,), generator=rng)] = float("-inf")
            values, columns = top_k(scores, k)
            wanted = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
            assert torch.equal(columns, wanted)
            assert torch.equal(values, scores.gather(1, wanted))


def test_a_nan_is_never_lost() -> None:
    scores = torch.randn(3, 40_000, generator=torch.Generator().manual_seed(0))
    scores[1, 777], scores[2, 39_999] = float("nan"), float("nan")
    assert top_k(scores, 20)[0].isnan().any(1).tolist() == [False, True, True]
