"""The full softmax in blocks, against PyTorch's own cross-entropy: values, gradients, exactness and memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from foretaste.models import products
from foretaste.training.softmax import catalogue_cross_entropy


def sample(n: int, d: int, items: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, d, generator=g, dtype=dtype, requires_grad=True),
        torch.randn(items, d, generator=g, dtype=dtype, requires_grad=True),
        torch.randn(items, generator=g, dtype=dtype, requires_grad=True),
        torch.randint(items, (n,), generator=g),
        torch.rand(n, generator=g, dtype=dtype),
    )


def plain(q: Tensor, e: Tensor, b: Tensor | None, t: Tensor, w: Tensor | None) -> Tensor:
    each = cross_entropy(q @ e.T + (0 if b is None else b), t, reduction="none")
    return each.mean() if w is None else (each * w).sum() / w.sum()


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 9), d=st.integers(1, 5), items=st.integers(1, 40), rows=st.integers(1, 9), tile=st.integers(1, 40),
    biased=st.booleans(), weighted=st.booleans(), double=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_blocks_equal_plain_cross_entropy(
    n: int, d: int, items: int, rows: int, tile: int, biased: bool, weighted: bool, double: bool, seed: int
) -> None:
    q, e, b, t, w = sample(n, d, items, torch.float64 if double else torch.float32, seed)
    inputs = (q, e, b) if biased else (q, e)
    want = plain(q, e, b if biased else None, t, w if weighted else None)
    expected = torch.autograd.grad(3 * want, inputs)
    got = catalogue_cross_entropy(
        q, e, t, b if biased else None, w if weighted else None, block_rows=rows, block_items=tile
    )
    exact = {"rtol": 1e-10, "atol": 1e-12} if double else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(got, want, **exact)
    for ours, theirs in zip(torch.autograd.grad(3 * got, inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, **exact)


def test_gradcheck_of_the_blocks() -> None:
    q, e, b, t, w = sample(5, 3, 7)
    assert torch.autograd.gradcheck(
        lambda q, e, b: catalogue_cross_entropy(q, e, t, b, w, block_rows=2, block_items=3), (q, e, b)
    )


def test_float32_is_as_exact_as_plain_cross_entropy() -> None:
    q, e, b, t, _ = sample(200, 64, 5000, torch.float32)
    true = torch.autograd.grad(plain(q.double(), e.double(), b.double(), t, None), (q, e, b))
    naive = torch.autograd.grad(plain(q, e, b, t, None), (q, e, b))
    ours = torch.autograd.grad(catalogue_cross_entropy(q, e, t, b), (q, e, b))
    for exact, theirs, mine in zip(true, naive, ours, strict=True):
        assert (mine - exact).abs().max() <= 2 * (theirs - exact).abs().max() + 1e-9


@pytest.mark.parametrize(("d", "items", "scale"), [(8, 50, 1.0), (64, 3000, 0.3), (100, 9000, 1.0)])
def test_bfloat16_stays_within_its_bound(d: int, items: int, scale: float) -> None:
    q, e, b, t, w = sample(150, d, items, torch.float32)
    q, e = (scale * q).detach().requires_grad_(), e
    for row in range(0, 150, 50):
        one = slice(row, row + 1)
        exact = catalogue_cross_entropy(q[one], e, t[one], b)
        bound = 3.03 * 2**-8 * float((q[one].norm() * e.norm(dim=1).max()).detach())
        assert abs(float(catalogue_cross_entropy(q[one], e, t[one], b, precision="bfloat16") - exact)) <= bound
    wanted = torch.autograd.grad(catalogue_cross_entropy(q, e, t, b, w), (q, e, b))
    found = torch.autograd.grad(catalogue_cross_entropy(q, e, t, b, w, precision="bfloat16"), (q, e, b))
    for exact, ours in zip(wanted, found, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - exact).norm() <= 0.02 * exact.norm()


def test_bfloat16_stays_within_its_bound_where_every_rounding_goes_one_way() -> None:
    """257 products of 1 + 2^-8 with itself: each factor is rounded down, and so is their sum."""
    q, e = torch.full((1, 257), 1 + 2**-8), torch.stack([torch.full((257,), 1 + 2**-8), torch.zeros(257)])
    exact, rounded = (
        catalogue_cross_entropy(q, e, torch.tensor([1]), precision=way) for way in ("float32", "bfloat16")
    )
    assert 2.5 < exact - rounded <= 3.03 * 2**-8 * float(q.square().sum())


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_what_is_asked_gets_a_gradient(wanted: tuple[bool, ...]) -> None:
    q, e, b, t, _ = sample(4, 3, 11)
    inputs = [x.detach().requires_grad_(want) for x, want in zip((q, e, b), wanted, strict=True)]
    catalogue_cross_entropy(inputs[0], inputs[1], t, inputs[2]).backward()
    true = torch.autograd.grad(plain(q, e, b, t, None), (q, e, b))
    for x, want, exact in zip(inputs, wanted, true, strict=True):
        assert (x.grad is not None) == want
        if x.grad is not None:
            torch.testing.assert_close(x.grad, exact)


def test_without_gradients_it_gives_the_same_value_and_no_graph() -> None:
    q, e, b, t, w = sample(6, 4, 13)
    with torch.no_grad():
        value = catalogue_cross_entropy(q, e, t, b, w)
    assert not value.requires_grad
    assert value.item() == pytest.approx(plain(q, e, b, t, w).item(), rel=1e-12)


def test_backward_twice_adds_the_same_gradient_twice() -> None:
    q, e, b, t, _ = sample(4, 3, 11)
    loss = catalogue_cross_entropy(q, e, t, b)
    loss.backward(retain_graph=True)
    assert e.grad is not None
    once = e.grad.clone()
    loss.backward()
    torch.testing.assert_close(e.grad, 2 * once)


def test_scores_of_any_size_and_no_rows_are_safe() -> None:
    q = torch.tensor([[1e4], [-1e4], [300.0]], requires_grad=True)
    e = torch.linspace(-1, 1, 50)[:, None].requires_grad_()
    t = torch.tensor([0, 49, 49])
    loss = catalogue_cross_entropy(q, e, t, block_items=7)
    torch.testing.assert_close(loss, cross_entropy(q @ e.T, t))
    loss.backward()
    assert q.grad is not None
    torch.testing.assert_close(q.grad[0], torch.tensor([(1 - -1) / 3]))
    empty = catalogue_cross_entropy(torch.zeros(0, 1, requires_grad=True), e, torch.zeros(0, dtype=torch.int64))
    assert empty.item() == 0
    assert catalogue_cross_entropy(q, e, t, weights=torch.zeros(3)).item() == 0


@pytest.mark.parametrize("intel", [False, True])
def test_whoever_makes_the_products_they_are_the_same(monkeypatch: pytest.MonkeyPatch, intel: bool) -> None:
    q, e, b, t, _ = sample(9, 8, 50, torch.float32)
    monkeypatch.setattr(products, "made_by_intel", lambda: intel)
    products.onednn_product.cache_clear()
    try:
        ours = torch.autograd.grad(catalogue_cross_entropy(q, e, t, b, block_items=20), (q, e, b))
        assert not intel or products.onednn_product() is None
    finally:
        products.onednn_product.cache_clear()
    torch.testing.assert_close(ours, torch.autograd.grad(plain(q, e, b, t, None), (q, e, b)), rtol=1e-5, atol=1e-6)


def test_a_target_far_below_another_item_is_exact() -> None:
    """Losses of 60 and 2000 leave the range of exp in float32: the greatest score takes the target's place."""
    q = torch.tensor([[1.0, 0.0], [60.0, 0.0], [2000.0, 0.0]], requires_grad=True)
    e = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], requires_grad=True)
    t = torch.tensor([0, 0, 0])
    ours = catalogue_cross_entropy(q, e, t, block_items=2)
    reference = cross_entropy(q.double() @ e.double().T, t)
    torch.testing.assert_close(ours, reference.float())
    found = torch.autograd.grad(ours, (q, e))
    torch.testing.assert_close(found, torch.autograd.grad(reference, (q, e)))


def test_memory_does_not_grow_with_tokens_times_items() -> None:
    """40,000 items x 2,000 rows are 320 MB of scores; the peak of the whole step stays under 100 MB."""
    program = """
        import torch
        from foretaste.compare.cost import peak_mb
        from foretaste.training.softmax import catalogue_cross_entropy
        def step(n, items):
            q, e = torch.randn(n, 64, requires_grad=True), torch.randn(items, 64, requires_grad=True)
            catalogue_cross_entropy(q, e, torch.randint(items, (n,))).backward()
        step(8, 100)
        before = peak_mb()
        step(2000, 40_000)
        print(peak_mb() - before)
    """
    program = textwrap.dedent(program)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 10 < int(run.stdout) < 100  # the matrix and its gradient alone are 20
