"""The process behind the simulated log "returning": an interest that comes back long after it was shown.

A user's life has cycles of CYCLE events. Each begins with SHOWN events of one interest, drawn anew; then comes noise;
once a bell rings, and the next event is of the cycle's interest again. All noise is drawn alike, and so are the
interests of other cycles: they tell nothing. In training the bell rings at any time, so that the link can be learnt
step by step; in the newest rows not before FAR events of noise. Whoever sees less than that knows no more than chance;
whoever keeps every event, or a memory of what was once dense among noise, can know. Ten cycles are a thousand events.
"""

from __future__ import annotations

import numpy as np

from foretaste.data.processes import MARKERS, TEST_FROM, Drawn, pick, spread
from foretaste.errors import ConfigError

CYCLE = 104
"""Events from one interest to the next."""
SHOWN = 8
"""Events that show the interest."""
FAR = 72
"""Least number of events between those and the bell, from LATE_FROM on."""
SESSION = 8
"""Events a session."""
LATE_FROM = 0.6
"""From this row on the bell rings late: in the test part, and in the validation part before it, where there is one."""


def returning(rng: np.random.Generator, n_rows: int, length: int, n_items: int, k: int) -> Drawn:
    """See the first lines of this file. Asked: the event after each bell, never the first of a session."""
    if length % CYCLE or not length:
        raise ConfigError(f"simulated log 'returning': length = {length}; take a multiple of {CYCLE}")
    if n_items < 2 + MARKERS * k:
        raise ConfigError(f"simulated log 'returning': n_items = {n_items}; take at least {2 + MARKERS * k}")
    bell, others = 0, np.arange(1, n_items)  # labels
    favourites = rng.permutation(others)[: MARKERS * k].reshape(MARKERS, k)
    shape = n_rows, length // CYCLE  # rows, cycles
    interest = rng.integers(MARKERS, size=shape)
    items = rng.choice(others, size=(*shape, CYCLE))
    shown = pick(rng, np.repeat(favourites[interest.ravel()], SHOWN, axis=0), n_items)
    items[..., :SHOWN] = np.where(shown == bell, others[-1], shown).reshape(*shape, SHOWN)
    late = (np.arange(n_rows) / n_rows)[:, None]  # [R, 1] whole rows are test
    times = np.array([t for t in range(SHOWN, CYCLE - 1) if t % SESSION != SESSION - 1])  # the answer is in its session
    rings = np.where(late < LATE_FROM, rng.choice(times, shape), rng.choice(times[times >= SHOWN + FAR], shape))
    row, cycle = np.indices(shape)
    items[row, cycle, rings] = bell
    items[row, cycle, rings + 1] = pick(rng, favourites[interest.ravel()], n_items).reshape(shape)
    asked = np.arange(CYCLE) == rings[..., None] + 1  # [R, cycles, CYCLE]
    laws = spread(favourites, n_items)  # [M, I]
    test = np.broadcast_to(late >= TEST_FROM, shape)
    blind = laws.mean(0, keepdims=True)  # [1, I] neither noise nor earlier cycles tell the interest
    known = {"recent": blind, "session": blind}
    return Drawn(
        items.reshape(n_rows, length), late, asked.reshape(n_rows, length), laws[interest[test]], known, SESSION
    )
