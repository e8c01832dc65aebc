"""How drawings look, and how they come into the page and into files.

One drawing is one small canvas: on a telephone they stand one below the other, on a wide screen side by side, and in
both their text can be read. The same row has the same colour, mark and dashes in every drawing. Colours are Okabe and
Ito's, which colour-blind people can tell apart, a little darker where white paper asks for it; more rows than colours
take the next mark and dashes. In the page every colour is a variable of the style sheet, so a drawing follows light and
dark; the files are for light paper.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretaste.errors import ForetasteError
from foretaste.pages.html import Html, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b87f00", "#56a9dd", "#882255")
MARKS, SIGNS = ("o", "s", "^", "D", "v", "P"), "●■▲◆▼✚"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)))
INK, SOFT, RULE, PAPER, NOTHING = "#1b1b20", "#5f5f6b", "#dcdce4", "#fffffe", "#fdfdfd"
VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)", PAPER: "var(--paper)", NOTHING: "none"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(COLOURS)
}
"""Colour in a drawing -> what it is in the page."""
WIDTH = 5.0
"""Inches of every canvas: 360 units, so text of 11 units is 11 pixels on a telephone."""
PIXELS = 200
"""An inch, of the PNG files."""
LONGEST = 22
"""Letters of a row's name in a drawing."""
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": NOTHING,
    "figure.facecolor": NOTHING,
    "savefig.facecolor": NOTHING,
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "axes.formatter.use_mathtext": False,
}


TAG, COLOUR = re.compile(r"<[^>]+>"), re.compile(r"#[0-9a-f]{6}")


class NoMatplotlib(ForetasteError):
    """What draws is not installed."""


@dataclass(frozen=True)
class Look:
    """Of one row, everywhere."""

    colour: str
    mark: str
    dashes: Any
    quiet: bool = False
    """A thin grey line without a mark or a name, behind the others."""

    @property
    def variable(self) -> str:
        """The colour in the page."""
        return VARIABLES[self.colour]

    @property
    def sign(self) -> str:
        """The mark as a letter."""
        return SIGNS[MARKS.index(self.mark)]

    @property
    def line(self) -> dict[str, Any]:
        """How its lines are drawn."""
        if self.quiet:
            return {"color": SOFT, "lw": 0.8, "alpha": 0.4, "zorder": 1}
        return {"color": self.colour, "ls": self.dashes}


def looks(names: Sequence[str]) -> dict[str, Look]:
    """By the order of the grid, so that what is added later changes nothing."""
    out = {}
    for number, name in enumerate(names):
        turn, colour = divmod(number, len(COLOURS))
        out[name] = Look(COLOURS[colour], MARKS[turn % len(MARKS)], DASHES[turn % len(DASHES)])
    return out


def quieted(names: dict[str, Look], loud: Collection[str]) -> dict[str, Look]:
    """Only some rows stand out, where all together could not be told apart."""
    return {name: replace(look, quiet=name not in loud) for name, look in names.items()}


def short(name: str, longest: int = LONGEST) -> str:
    """A name that fits, on one line."""
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"


class Gallery:
    """Every drawing of a report: draws into files below `folder`, and gives what the page shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def show(self, name: str, figure: Figure, title: str, caption: Any = None) -> Html:
        """Write NAME.svg and NAME.png; a figure element with the drawing inside."""
        name = self._free(name)
        figure.draw_without_rendering()  # the first layout does not know all sizes yet
        svg = svg_of(figure, name)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.svg").write_text(svg.replace(f": {NOTHING}", f": {PAPER}"), encoding="utf-8")
        figure.set_facecolor("white")
        figure.savefig(self.folder / f"{name}.png", dpi=PIXELS, metadata={"Software": None})
        words = tag("figcaption", tag("b", title), *([" ", caption] if caption is not None else []))
        return tag("figure", words, inline(svg, title), class_="drawing")

    def _free(self, name: str) -> str:
        """A file name and an id of it: plain letters, and taken once."""
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "drawing"
        found, number = plain, 2
        while found in self.names:
            found, number = f"{plain}-{number}", number + 1
        self.names.append(found)
        return found


@contextmanager
def drawing() -> Iterator[None]:
    """Inside, canvases look as they should; what the fonts lack is no reason to warn."""
    try:
        import matplotlib
    except ImportError:
        raise NoMatplotlib(
            "the report draws with matplotlib, which is not installed: pip install 'foretaste[viz]'; "
            "tables and numbers are written without it"
        ) from None
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def canvas(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure as wide as all are, `height` inches high, with its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04)  # type: ignore[union-attr,call-arg]
    return figure, figure.subplots(rows, columns, **options)


def only(axes: Axes, grid: str) -> None:
    """Rules along one axis ("x" or "y") alone, and no line on the other side."""
    axes.grid(False)
    axes.grid(True, axis=grid)  # type: ignore[arg-type]
    axes.spines["left" if grid == "x" else "bottom"].set_visible(grid != "x")
    axes.tick_params(length=0)


def name_ends(axes: Axes, ends: dict[str, float], names: dict[str, Look], line: float = 0.058) -> None:
    """The name of each line at its right end, pushed apart where they would cover each other.

    ends: name -> where its line ends, on the y axis; quiet ones stay without a name. line: height of a name, as a share
    of the axes.
    """
    low, high = axes.get_ylim()
    wanted = sorted((((y - low) / (high - low or 1)), name) for name, y in ends.items() if not names[name].quiet)
    line = min(line, 1.0 / max(len(wanted), 1))
    places: list[float] = []
    for y, _ in wanted:
        places.append(max(y, places[-1] + line) if places else y)
    top = 1.02
    for number in reversed(range(len(places))):
        places[number] = top = min(places[number], top)
        top -= line
    for (y, name), place in zip(wanted, places, strict=True):
        look = names[name]
        axes.plot([1.0, 1.035], [y, place], transform=axes.transAxes, color=look.colour, lw=0.8, clip_on=False)
        axes.text(1.045, place, short(name, 16), transform=axes.transAxes, color=look.colour, va="center", fontsize=10)


def svg_of(figure: Figure, name: str) -> str:
    """A drawing as SVG whose ids nobody else has; the same drawing gives the same text."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", " ", out.getvalue())  # of a title: no XML has them
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"""(?:url\(|href=")#([^")]+)""", svg))

    def own(found: re.Match[str]) -> str:
        text = re.sub(r' id="([^"]+)"', lambda one: f' id="{name}-{one[1]}"' if one[1] in used else "", found[0])
        return re.sub(r"""(url\(|href=")#""", rf"\1#{name}-", text)

    return TAG.sub(own, svg)


def inline(svg: str, label: str) -> Html:
    """For the page: without a size, fonts and a style sheet of its own, and its colours as variables."""

    def themed(found: re.Match[str]) -> str:
        text = re.sub(r" ?font-family: [^;\"]*;?", "", found[0])
        return COLOUR.sub(lambda colour: VARIABLES.get(colour[0], colour[0]), text)

    head, rest = svg.split(">", 1)
    rest = re.sub(r"<defs>\s*<style.*?</defs>", "", rest, count=1, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None
    drawn = re.sub(r"\n\s*", "\n", TAG.sub(themed, rest)).strip().removesuffix("</svg>")
    return tag("svg", Html(drawn), viewBox=box[1], role="img", aria_label=label)
