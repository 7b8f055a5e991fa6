"""The charts of a report, by matplotlib, as SVG that takes its ink from the page, so that it is readable in light and dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_WIDTH = 4.2  # inches: at the width of a telephone a chart keeps its size, and its letters theirs
_INK = "#010203"  # stands for the page's own
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    # A host may have a dollar in its name.
    "text.parse_math": False,
}
GREEN, RED, BLUE = "#3a9d5d", "#d1603d", "#4a7fc1"


@matplotlib.rc_context(_STYLE)
def draw_bars(name: str, bars: Mapping[str, Sequence[float]], series: Sequence[tuple[str, str]], unit: str) -> Markup:
    """Bars that lie, the first above: of each name its values, one for each of the series, which are labels and colours."""
    figure, axes = _begin(height=0.8 + 0.24 * len(bars))
    left = np.zeros(len(bars))
    for (label, colour), values in zip(series, np.array(list(bars.values())).reshape(-1, len(series)).T, strict=True):
        axes.barh(range(len(bars)), values, left=left, color=colour, label=label)
        left += values
    axes.set_yticks(range(len(bars)), [_shorten(bar) for bar in bars])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=left.max(initial=0) >= 1 and unit == "images"))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if left.max(initial=0) >= 4 else f"{value:g}")
    if len(series) > 1:
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(series))
    return _to_svg(name, figure)


@matplotlib.rc_context(_STYLE)
def draw_lightness(counts: np.ndarray) -> Markup:
    """The histogram of L*, from counts of whole steps, int64 (101,)."""
    figure, axes = _begin(height=2.6)
    axes.bar(range(len(counts)), 100 * counts / max(1, counts.sum()), width=1, color=BLUE)
    axes.set_xlabel("L*")
    axes.set_ylabel("% of the pixels")
    return _to_svg("lightness", figure)


@matplotlib.rc_context(_STYLE)
def draw_colours(counts: np.ndarray, limit: float) -> Markup:
    """The histogram of a* and b*, int64 (N, N), from -limit to limit each, on a logarithmic scale."""
    figure, axes = _begin(height=3.4)
    shares = np.ma.masked_equal(counts.T / max(1, counts.sum()), 0)
    if shares.count():
        extent = (-limit, limit, -limit, limit)
        norm = LogNorm(shares.min(), max(shares.max(), 1.0001 * shares.min()))
        picture = axes.imshow(shares, origin="lower", extent=extent, norm=norm, cmap="viridis", interpolation="nearest")
        figure.colorbar(picture, ax=axes, label="share of the pixels", format="%g", shrink=0.8)
    axes.set_xlabel("a*, green to red")
    axes.set_ylabel("b*, blue to yellow")
    return _to_svg("colours", figure)


@matplotlib.rc_context(_STYLE)
def draw_classes(sizes: Sequence[int]) -> Markup:
    """Images of each class, the largest first."""
    figure, axes = _begin(height=2.6)
    axes.fill_between(np.arange(1, len(sizes) + 1), sorted(sizes, reverse=True), step="mid", color=BLUE)
    axes.set_yscale("log" if max(sizes) > 20 * min(sizes) else "linear")
    axes.set_ylim(bottom=0.8 if axes.get_yscale() == "log" else 0)
    axes.set_xlabel("classes, the largest first")
    axes.set_ylabel("images")
    return _to_svg("classes", figure)


def _begin(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _to_svg(name: str, figure: Figure) -> Markup:
    file = io.StringIO()
    # Each its own names inside, as they share a page.
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's browser has its own letters
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # As wide as its place, and no wider than it was made.
    return Markup(
        re.sub(r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', r'<svg \1style="max-width:\2pt" role="img"', svg, count=1)
    )


def _shorten(text: str) -> str:
    return text if len(text) <= 28 else text[:27] + "…"
