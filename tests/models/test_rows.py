"""Rows from flat arrays: against a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.sequences import Sequences
from foretaste.models.contract import Events
from foretaste.models.rows import take


def log_of(sessions_by_user: list[list[list[int]]]) -> Sequences:
    """A log from users, their sessions and their items; item 0 is cold."""
    sessions = [session for user in sessions_by_user for session in user]
    items = np.array([item for session in sessions for item in session], dtype=np.int32)
    ends = np.cumsum([len(session) for session in sessions])
    users = np.cumsum([sum(map(len, user)) for user in sessions_by_user])
    return Sequences(
        items=items,
        users=np.concatenate([[0], users]).astype(np.int64),
        sessions=np.concatenate([[0], ends]).astype(np.int64),
        part=np.zeros(len(items), np.uint8),
        user_numbers=np.arange(1, len(users) + 1, dtype=np.int32),
        times=np.arange(len(items), dtype=np.int64) * 10,
        columns={"dwell": np.arange(len(items)) / 4},
    )


def test_a_batch_by_hand() -> None:
    log = log_of([[[1, 0, 2], [0, 3]], [[4, 5]]])
    events = take(log, np.array([0, 5, 1, 2]), np.array([5, 7, 5, 3]))
    assert events.items.tolist() == [[1, 2, 3], [4, 5, 0], [2, 3, 0], [2, 0, 0]]
    assert events.mask.tolist() == [[True] * 3, [True, True, False], [True, True, False], [True, False, False]]
    assert events.starts.tolist() == [[True, False, True], [True, False, False], [False, True, False], [False] * 3]
    assert events.times is not None
    assert events.times.tolist() == [[0, 20, 40], [50, 60, 0], [20, 40, 0], [20, 0, 0]]
    assert events.columns["dwell"].tolist()[0] == [0, 0.5, 1]


def slow_rows(log: Sequences, start: int, stop: int) -> list[tuple[int, bool, int]]:
    """(item, begins its session, time) of the known events, one by one."""
    out = []
    for place in range(start, stop):
        session = int(np.searchsorted(log.sessions, place, side="right")) - 1
        before = log.items[log.sessions[session] : place]
        if log.items[place]:
            out.append((int(log.items[place]), not before.any(), place * 10))
    return out


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=3), min_size=1, max_size=4
    ),
    st.data(),
)
def test_like_a_plain_loop(users: list[list[list[int]]], data: st.DataObject) -> None:
    log = log_of(users)
    ranges = data.draw(
        st.lists(st.tuples(st.integers(0, len(log)), st.integers(0, len(log))).map(sorted), min_size=1, max_size=5)
    )
    start, stop = (np.array(side, dtype=np.int64) for side in zip(*ranges, strict=True))
    events = take(log, start, stop)
    assert events.times is not None
    for row, (first, last) in enumerate(ranges):
        length = int(events.mask[row].sum())
        found = list(
            zip(
                events.items[row, :length].tolist(),
                events.starts[row, :length].tolist(),
                events.times[row, :length].tolist(),
                strict=True,
            )
        )
        assert found == slow_rows(log, first, last)
        assert not events.items[row, length:].any()


def test_events_of_lists_and_their_pieces() -> None:
    events = Events.of([[1, 2, 3], [4]], times=[[5, 6, 7], [8]])
    assert events.shape == (2, 3)
    assert events.lengths().tolist() == [3, 1]
    assert events.starts.tolist() == [[True, False, False], [True, False, False]]
    late = events.cut(1)
    assert late.items.tolist() == [[2, 3], [0, 0]]
    assert late.times is not None
    assert late.times.tolist() == [[6, 7], [0, 0]]
    assert Events.of([]).shape == (0, 0)
    with pytest.raises(ValueError, match="zip"):
        Events.of([[1, 2]], times=[])
