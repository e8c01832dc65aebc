"""Names beside the points of a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretaste.pages.drawings import PAPER, Look, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ASIDE, CORNERS = ((1, 0), (-1, 0), (0, 1), (0, -1)), ((1, 1), (-1, 1), (0.5, 1), (-0.5, 1))
BESIDE = (*ASIDE, *CORNERS, *((across, -up) for across, up in CORNERS))
"""Where a name can stand beside its point, the best first: in halves of its width and height."""
AWAY = tuple(
    (across, up) for up in range(-9, 10) for across in (-4, -3, -2.2, -1.5, 0, 1.5, 2.2, 3, 4) if across or abs(up) > 1
)
"""Where it can stand farther off, with a line to its point."""
MARK, BAR, GAP = 6, 2, 7
"""Pixels: half of a mark, half of a bar's width, and from a mark to its name."""
WIDER = 1.06
"""A name is a little wider in the picture, which has more pixels, than where it is measured."""
OUTSIDE, ON_A_MARK, ON_A_BAR, ON_A_NAME = 10.0, 3.0, 0.7, 6.0
"""What a pixel of a name costs outside the frame, on a mark, a bar, another name."""
LED, LONG, CROSSING = 20.0, 0.7, 60.0
"""What a line costs, and each pixel of it, and each mark or name that it crosses."""
ROUNDS = 4
"""Of putting each name where it is best, given all others."""
ALONG = np.linspace(0.0, 1.0, 24)
"""Where a line is looked at."""
Pair = NDArray[np.float64]
"""x, y; or width, height."""
Boxes = NDArray[np.float64]
"""left, low, right, high (or a line: x, y, x, y), in the last axis of as many as there are; no line is nan."""


class Point(NamedTuple):
    """What has a name: where it is, with its interval, and what is said after the name."""

    x: float
    y: float
    low: float
    high: float
    name: str
    more: str = ""


def name_points(figure: Any, axes: Axes, points: Sequence[Point], names: Mapping[str, Look]) -> None:
    """A name beside each point where it covers least of the marks, intervals and names of others.

    From a name that has to go far a line leads to its point.
    """
    figure.draw_without_rendering()
    frame = np.array(axes.get_window_extent().extents)
    at = axes.transData.transform([(point.x, point.y) for point in points])  # [points, 2]
    marks = np.hstack([at - MARK, at + MARK])  # [points, 4]
    ends = [axes.transData.transform([(point.x, point.low), (point.x, point.high)]) for point in points]
    bars = np.array([[low[0] - BAR, low[1], high[0] + BAR, high[1]] for low, high in ends])  # [points, 4]
    labels = [_label(axes, point, names) for point in points]
    renderer = figure.canvas.get_renderer()
    sizes = [label.get_window_extent(renderer) for label in labels]
    places = [_places(at[n], np.array([WIDER * size.width / 2, size.height / 2])) for n, size in enumerate(sizes)]
    fixed = [_fixed(*place, n, frame, marks, bars) for n, place in enumerate(places)]
    chosen = [int(cost.argmin()) for cost in fixed]
    for _ in range(ROUNDS):
        for n, place in enumerate(places):
            others = [(boxes[chosen[m]], lines[chosen[m]]) for m, (boxes, lines) in enumerate(places) if m != n]
            chosen[n] = int((fixed[n] + _moving(*place, others)).argmin())
    back = axes.transData.inverted()
    for label, point, (boxes, lines), choice in zip(labels, points, places, chosen, strict=True):
        label.set_position(back.transform(boxes[choice, :2]))
        if choice >= len(BESIDE):
            (x, y), colour = back.transform(lines[choice, 2:]), names[point.name].colour
            axes.plot([point.x, x], [point.y, y], color=colour, lw=0.7, zorder=1)


def _label(axes: Axes, point: Point, names: Mapping[str, Look]) -> Any:
    behind = {"facecolor": PAPER, "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
    return axes.text(
        point.x, point.y, short(point.name, 16) + point.more, fontsize=10, color=names[point.name].colour,
        in_layout=False, bbox=behind, verticalalignment="bottom",
    )  # fmt: skip


def _places(at: Pair, half: Pair) -> tuple[Boxes, Boxes]:
    """Boxes and lines [places, 4] where a name can stand beside its point, the best first; half: of its size."""
    away = sorted(AWAY, key=lambda step: float(np.abs(step) @ half) + GAP * abs(step[1]))
    middle = at + np.array([*BESIDE, *away]) * (half + GAP)  # [places, 2]
    boxes = np.hstack([middle - half, middle + half])
    near = np.clip(at, boxes[:, :2], boxes[:, 2:])  # where a line from the point meets the box
    lines = np.hstack([np.broadcast_to(at, near.shape), near])
    lines[: len(BESIDE)] = np.nan
    return boxes, lines


def _fixed(boxes: Boxes, lines: Boxes, own: int, frame: Boxes, marks: Boxes, bars: Boxes) -> NDArray[np.float64]:
    """What each place costs [places] whatever the other names do."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    cost = OUTSIDE * (area - _overlap(boxes, frame[None])[:, 0])
    cost += ON_A_MARK * _overlap(boxes, marks).sum(1) + ON_A_BAR * _overlap(boxes, bars).sum(1)
    cost += CROSSING * _crossed(lines, np.delete(marks, own, axis=0)).sum(1)
    far = np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1])
    return cost + np.where(np.isnan(far), 0.0, LED + LONG * far)


def _moving(boxes: Boxes, lines: Boxes, others: Sequence[tuple[Boxes, Boxes]]) -> NDArray[np.float64]:
    """What each place costs [places] for where the other names stand."""
    if not others:
        return np.zeros(len(boxes))
    theirs, leading = np.stack([box for box, _ in others]), np.stack([line for _, line in others])
    crossed = _crossed(lines, theirs).sum(1) + _crossed(leading, boxes).sum(0)
    return np.asarray(ON_A_NAME * _overlap(boxes, theirs).sum(1) + CROSSING * crossed)


def _overlap(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """The area that each of boxes (n, 4) shares with each of others (m, 4): [n, m]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.maximum(high - low, 0.0).prod(-1))


def _crossed(lines: Boxes, boxes: Boxes) -> NDArray[np.bool_]:
    """Which of lines (n, 4) go through which of boxes (m, 4): [n, m]."""
    on = lines[:, None, :2] + ALONG[:, None] * (lines[:, None, 2:] - lines[:, None, :2])  # [n, along, 2]
    inside = (boxes[:, None, None, :2] < on) & (on < boxes[:, None, None, 2:])  # [m, n, along, 2]
    return np.asarray(inside.all(-1).any(-1).T)
