"""Shared parts against plain formulas."""

import pytest
import torch
from torch import Tensor

from foretaste.models import layers
from foretaste.models.layers import Users, additive_scores, at_length, masked_softmax, rows_of, slide, weighted_rows


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_()


@pytest.mark.parametrize("cached", [1, 40, 2**17])
def test_additive_scores_and_their_gradients(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "CACHED", cached)
    queries, keys, v = some(5, 4), some(7, 4, seed=1), some(4, seed=2)
    flat = torch.tensor([[0, 6, 6], [1, 2, 3], [0, 0, 0], [5, 4, 3], [6, 0, 2]])
    wanted = torch.sigmoid(queries[:, None] + keys[flat]) @ v
    torch.testing.assert_close(additive_scores(queries, keys, flat, v), wanted)
    assert torch.autograd.gradcheck(lambda q, k, v: additive_scores(q, k, flat, v), (queries, keys, v))


def test_weighted_rows_and_their_gradients() -> None:
    weights, rows = some(3, 2), some(4, 5, seed=1)
    flat = torch.tensor([[0, 3], [1, 1], [2, 0]])
    wanted = (weights[..., None] * rows[flat]).sum(1)
    torch.testing.assert_close(weighted_rows(weights, rows, flat), wanted)
    assert torch.autograd.gradcheck(lambda w, r: weighted_rows(w, r, flat), (weights, rows))


@pytest.mark.parametrize("shape", [(), (0,), (50,), (6, 9), (2, 0, 3)])
def test_rows_and_their_gradients_are_those_of_an_index_to_the_last_bit(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(4)
    for width in ((), (7,)):
        table = torch.randn(11, *width, generator=rng, requires_grad=True)
        index = torch.randint(11, shape, generator=rng)  # with repeats: their gradients add up, in order
        found, wanted = rows_of(table, index), table[index]
        assert torch.equal(found, wanted)
        given = torch.randn(wanted.shape, generator=rng)
        assert torch.equal(*(torch.autograd.grad(part, table, given)[0] for part in (found, wanted)))


def test_a_user_never_seen_has_the_mean_and_costs_no_pass_over_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users(3, 2).double()
    with torch.no_grad():
        users.weight[1:] = torch.tensor([[1.0, 2.0], [3.0, 4.0], [8.0, 0.0]])
    asked = torch.tensor([[0, 2], [0, 0]])
    found = users(asked)
    assert found.tolist() == [[[4, 2], [3, 4]], [[4, 2], [4, 2]]]
    (grad,) = torch.autograd.grad(found.sum(), users.weight)
    assert grad.tolist() == [[0, 0], [0, 0], [1, 1], [0, 0]]
    users.eval()
    assert users(asked).equal(found)
    assert list(users.state_dict()) == ["weight"]
    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "sum", lambda *_: pytest.fail("taken anew"))
        assert users(asked).equal(found)
    with torch.no_grad():
        users.weight[1] = torch.tensor([7.0, 2.0])
    assert users(asked)[0].tolist() == [[6, 2], [3, 4]]
    users.load_state_dict({"weight": torch.ones(4, 2)})
    assert users(asked)[0].tolist() == [[1, 1], [1, 1]]
    users.weight.data[1] = 4
    assert users.train().eval()(asked)[0].tolist() == [[2, 2], [1, 1]]
    assert users.float()(asked).dtype == torch.float32
    with torch.inference_mode():
        assert users.double()(asked)[0].tolist() == [[2, 2], [1, 1]]
        assert Users(2, 1).eval()(asked[:1, :1]).isfinite().all()
    users(asked).sum().backward()  # what was taken without gradients does no harm
    assert Users(0, 2).eval()(asked[:1, :1]).tolist() == [[[0, 0]]]  # nobody is known


def test_masked_softmax_of_nothing_is_zero_and_of_huge_scores_is_finite() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [1e30, 1e30, 0.0], [5.0, 6.0, 7.0]])
    mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    found = masked_softmax(scores, mask)
    torch.testing.assert_close(found[0, :2], torch.tensor([1.0, 2.0]).softmax(0))
    assert found[0, 2] == 0
    assert found[1].tolist() == [0.5, 0.5, 0.0]
    assert found[2].tolist() == [0.0, 0.0, 0.0]


def test_slide_keeps_the_newest() -> None:
    ring = torch.tensor([[0.0, 0.0, 9.0], [7.0, 8.0, 9.0]])[..., None]
    new = torch.tensor([[1.0, 2.0], [1.0, 2.0]])[..., None]
    assert slide(ring, new, torch.tensor([1, 2]))[..., 0].tolist() == [[0, 9, 1], [9, 1, 2]]
    assert slide(ring, new, torch.tensor([0, 0])).equal(ring)


def test_at_length_is_the_state_before_where_nothing_came() -> None:
    outputs = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])[..., None]
    before = torch.tensor([7.0, 8.0, 9.0])[:, None]
    assert at_length(outputs, before, torch.tensor([2, 0, 1])).tolist() == [[2], [8], [5]]
