"""Names beside the points of a figure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foretaste.pages.drawings import PAPER, Look, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ASIDE, UP, DOWN = ((1, 0), (-1, 0)), ((1, 1), (-1, 1), (0.5, 1), (-0.5, 1)), ((1, -1), (-1, -1), (0.5, -1), (-0.5, -1))
AROUND = (*ASIDE, (0, 1), (0, -1), *UP, *DOWN)
"""Places of a name beside its point."""
WIDER = 1.06
"""A name is a little wider in the picture, which has more pixels, than where it is measured."""
Box = tuple[float, float, float, float]


def name_points(
    figure: Any, axes: Any, points: Sequence[tuple[float, float, str, str]], names: Mapping[str, Look]
) -> None:
    """A name beside each point, and what is said after it, where they cover least of the others.

    A point is x, y, name and what is said after it; from a name that had to go far a line leads to its point.
    """
    figure.draw_without_rendering()
    taken = [_around(*_pixels(axes, x, y), 7, 7) for x, y, *_ in points]
    renderer, frame = figure.canvas.get_renderer(), axes.get_window_extent()
    for x, y, name, more in sorted(points, key=lambda point: -point[1]):
        behind = {"facecolor": PAPER, "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
        colour = names[name].colour
        label = axes.text(x, y, short(name, 16) + more, fontsize=10, color=colour, in_layout=False, bbox=behind)
        box = label.get_window_extent(renderer)
        wide, high = WIDER * box.width, box.height
        px, py = _pixels(axes, x, y)
        tried = []
        for turn, (far, (dx, dy)) in enumerate(itertools.product((1, 2, 3, 4), AROUND)):
            cx, cy = px + dx * (wide / 2 + 8), py + dy * far * (high / 2 + 8)
            place = _around(cx, cy, wide / 2, high / 2)
            covered = sum(_overlap(place, other) for other in taken)
            outside = wide * high - _overlap(place, (frame.x0, frame.y0, frame.x1, frame.y1))
            tried.append((covered + 10 * outside, turn, place))
        _, turn, place = min(tried)
        left, low = axes.transData.inverted().transform((place[0], place[1]))
        label.set_position((left, low))
        label.set_verticalalignment("bottom")
        if turn >= len(AROUND):
            end = axes.transData.inverted().transform(((place[0] + place[2]) / 2, (place[1] + place[3]) / 2))
            axes.plot([x, end[0]], [y, end[1]], color=colour, lw=0.6, zorder=1)
        taken.append(place)


def _pixels(axes: Axes, x: float, y: float) -> tuple[float, float]:
    px, py = axes.transData.transform((x, y))
    return float(px), float(py)


def _around(x: float, y: float, wide: float, high: float) -> Box:
    return x - wide, y - high, x + wide, y + high


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
