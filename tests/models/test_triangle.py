"""The running softmax and the rows of sessions against the plain n x n triangle, and against one row at a time."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foretaste.models.contract import State, seeded
from foretaste.models.triangle import LOWEST, run, running_softmax, windowed_softmax


def nothing(H: int) -> State:
    zero = torch.zeros(1, dtype=torch.float64)
    return {"top": zero + LOWEST, "mass": zero, "sum": torch.zeros(1, H, dtype=torch.float64)}


@given(
    st.lists(st.tuples(st.floats(-300, 300), st.booleans()), min_size=1, max_size=14),
    st.integers(1, 5),
    st.sampled_from([0.0, 1e4, -1e4, 1e9]),
)
def test_the_running_triple_is_the_masked_triangle(row: list[tuple[float, bool]], block: int, level: float) -> None:
    """Equation 18 with -inf above the diagonal, for scores of any size, sessions that end, and any block."""
    found, T = torch.tensor([s + level for s, _ in row], dtype=torch.float64), len(row)
    values = torch.randn(T, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(T))
    begins = torch.tensor([t if b else -1 for t, (_, b) in enumerate(row)]).cummax(0).values
    triangle = torch.full((T, T), -math.inf, dtype=torch.float64)
    for t in range(T):
        triangle[t, max(int(begins[t]), 0) : t + 1] = found[max(int(begins[t]), 0) : t + 1]
    triple = running_softmax(found[None], values[None], begins[None], nothing(3), block)
    mean = (triple["sum"] / triple["mass"][..., None])[0]
    torch.testing.assert_close(mean, triangle.softmax(-1) @ values, rtol=0, atol=1e-9)
    assert torch.equal(triple["top"][0], triangle.amax(-1))


def test_the_running_triple_has_the_triangles_gradient() -> None:
    with seeded(0):
        found, values = torch.randn(2, 1, 9, 1, dtype=torch.float64).mul(20).unbind(0)
    found, values = found[..., 0].requires_grad_(), values.requires_grad_()
    begins = torch.full((1, 9), -1)

    def mean(found: Tensor, values: Tensor) -> Tensor:
        triple = running_softmax(found, values, begins, nothing(1), 4)
        return triple["sum"] / triple["mass"][..., None]

    assert torch.autograd.gradcheck(mean, (found, values))


def test_one_score_far_above_all_others_has_all_the_weight_and_no_nan() -> None:
    found = torch.tensor([[-1e20, 3.0, 1e20, 0.0, -1e20]], dtype=torch.float64, requires_grad=True)
    values = torch.arange(5.0, dtype=torch.float64)[None, :, None]
    triple = running_softmax(found, values, torch.full((1, 5), -1), nothing(1), 2)
    mean = (triple["sum"] / triple["mass"][..., None])[0, :, 0]
    assert mean.tolist() == [0, 1, 2, 2, 2]
    mean.sum().backward()
    assert bool(found.grad.isfinite().all())


def test_a_wide_window_is_the_full_triangle() -> None:
    """query = "last": p_j . h_t over all j <= t, whether some of them stand in the ring or not, in any block."""
    with seeded(1):
        h, p = torch.randn(2, 1, 12, 4, dtype=torch.float64)
    mask = torch.ones(12, 12, dtype=torch.bool).tril()
    wanted = ((h @ p.mT)[0].masked_fill(~mask, -math.inf).softmax(-1) @ h[0])[5:]
    seen = torch.arange(6, 13)[None]
    ring = (torch.cat([torch.zeros(1, 15, 4, dtype=torch.float64), part[:, :5]], 1) for part in (p, h))
    found = windowed_softmax(h[:, 5:], p[:, 5:], seen, *ring, block=3)
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-12)


def test_an_lstm_over_rows_of_any_length_ends_where_each_row_ends() -> None:
    with seeded(2):
        lstm = torch.nn.LSTM(3, 4, batch_first=True).double()
        inputs = torch.randn(4, 6, 3, dtype=torch.float64)
        h, c = torch.randn(2, 4, 4, dtype=torch.float64)
    lengths = [6, 0, 3, 5]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    hidden, cell = run(lstm, inputs, mask, torch.zeros_like(mask), h, c)
    for row, length in enumerate(lengths):
        wanted, wanted_cell = torch.zeros(1, 0, 4), c[row]
        if length:
            wanted, (_, last) = lstm(inputs[row : row + 1, :length], (h[None, row : row + 1], c[None, row : row + 1]))
            wanted_cell = last[0, 0]
        torch.testing.assert_close(hidden[row, :length], wanted[0].double(), rtol=0, atol=1e-12)
        torch.testing.assert_close(cell[row], wanted_cell, rtol=0, atol=1e-12)


def test_sessions_of_one_row_run_as_if_each_had_a_row_of_its_own() -> None:
    with seeded(3):
        lstm = torch.nn.LSTM(3, 4, batch_first=True).double()
        inputs = torch.randn(3, 6, 3, dtype=torch.float64)
        h, c = torch.randn(2, 3, 4, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([6, 0, 4])[:, None]
    starts = torch.zeros_like(mask)
    starts[0, 2] = starts[0, 5] = starts[2, 0] = True  # row 0 runs on, then begins twice; row 2 begins at once
    hidden, cell = run(lstm, inputs, mask, starts, h, c)
    zero = torch.zeros(1, 1, 4, dtype=torch.float64)
    for row, first, last in ((0, 0, 2), (0, 2, 5), (0, 5, 6), (2, 0, 4)):
        before = (h[None, :1], c[None, :1]) if (row, first) == (0, 0) else (zero, zero)
        wanted, (_, end) = lstm(inputs[row : row + 1, first:last], before)
        torch.testing.assert_close(hidden[row, first:last], wanted[0], rtol=0, atol=1e-12)
        if last == (6, 0, 4)[row]:
            torch.testing.assert_close(cell[row], end[0, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(cell[1], c[1])
