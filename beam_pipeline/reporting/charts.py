"""The charts of a report as SVG, in the text colour of the page, for light and dark themes."""

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

from beam_pipeline.dataset_info import MeasureCounts

_WIDTH = 4.2  # inches: on a phone a chart keeps its size and its text stays legible
_INK = "#010203"  # replaced by the page's text colour
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"),
        _INK,
    ),
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
}
_BLUE, _RED = "#4a7fc1", "#c1584a"


@matplotlib.rc_context(_STYLE)
def draw_lightness(counts: np.ndarray) -> Markup:
    """Return the histogram of L*.

    Args:
      counts: Pixels by L* in steps of 1 from 0, int64 (101,).
    """
    figure, axes = _begin(height=3.2)
    axes.bar(range(len(counts)), 100 * counts / max(1, counts.sum()), width=1, color=_BLUE)
    axes.set_xlabel("L*, black to white")
    axes.set_ylabel("% of the pixels")
    return _to_svg("Histogram of L*", figure)


@matplotlib.rc_context(_STYLE)
def draw_colours(counts: np.ndarray, limit: float) -> Markup:
    """Return the histogram of a* and b*, on a logarithmic scale.

    Args:
      counts: Pixels by a* (rows) and b* (columns), each from -limit to limit, int64 (N, N).
      limit: The largest value of a* and of b*.
    """
    figure, axes = _begin(height=3.2)
    shares = np.ma.masked_equal(100 * counts.T / max(1, counts.sum()), 0)
    if shares.count():
        picture = axes.imshow(
            shares,
            origin="lower",
            extent=(-limit, limit, -limit, limit),
            norm=LogNorm(shares.min(), max(shares.max(), 1.0001 * shares.min())),
            cmap="viridis",
            interpolation="nearest",
        )
        figure.colorbar(picture, ax=axes, label="% of the pixels", format="%g", shrink=0.9)
    axes.set_xlabel("a*, green to red")
    axes.set_ylabel("b*, blue to yellow")
    return _to_svg("Histogram of a* and b*", figure)


@matplotlib.rc_context(_STYLE)
def draw_measure(name: str, counts: MeasureCounts, thresholds: Mapping[str, float]) -> Markup:
    """Return the histogram of a measure: examples, on them the filtered images, and thresholds.

    Args:
      name: The name of the measure. `tint` has a scale of square roots.
      counts: The numbers of images.
      thresholds: Values to mark, by label.
    """
    figure, axes = _begin(height=2.4)
    edges, examples, filtered = (
        np.array(values) for values in (counts.edges, counts.examples, counts.filtered)
    )
    share = 100 / max(1, examples.sum() + filtered.sum())
    both = examples + filtered
    # Up to the last bin with images, or the thresholds.
    last = np.flatnonzero(both).max(initial=0) + 1
    right = max([edges[last], *(1.2 * value for value in thresholds.values())])
    style: dict[str, Any] = {"align": "edge", "width": np.diff(edges)}
    axes.bar(edges[:-1], examples * share, color=_BLUE, label="examples", **style)
    if filtered.any():
        axes.bar(
            edges[:-1],
            filtered * share,
            bottom=examples * share,
            color=_RED,
            label="filtered",
            **style,
        )
        axes.legend(frameon=False, ncols=2, loc="upper right")
    if name == "tint":
        axes.set_xscale("function", functions=(np.sqrt, np.square))
        axes.set_xticks([value for value in (0, 100, 500, 1000, 2000, 4000) if value <= right])
    axes.set_xlim(edges[0], right)
    # Room for the legend and labels above the bars.
    axes.set_ylim(0, 1.6 * share * max(1, both.max()))
    for label, value in thresholds.items():
        axes.axvline(value, color=_INK, linestyle="--", linewidth=1)
        text = f" {label} {value:g}"
        axes.text(value, 1.0, text, transform=axes.get_xaxis_transform(), rotation=90, va="top")
    axes.set_xlabel(name)
    axes.set_ylabel("% of the images")
    return _to_svg(f"Histogram of {name}", figure)


@matplotlib.rc_context(_STYLE)
def draw_classes(sizes: Sequence[int]) -> Markup:
    """Return a chart of the number of images of each class, the largest class first."""
    figure, axes = _begin(height=3.2)
    ranks = np.arange(1, len(sizes) + 1)
    axes.fill_between(ranks, sorted(sizes, reverse=True), step="mid", color=_BLUE)
    axes.set_yscale("log" if max(sizes) > 20 * min(sizes) else "linear")
    axes.set_ylim(bottom=0.8 if axes.get_yscale() == "log" else 0)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("classes, the largest first")
    axes.set_ylabel("images")
    return _to_svg("Images of each class", figure)


def _begin(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="compressed")
    return figure, figure.subplots()


def _to_svg(name: str, figure: Figure) -> Markup:
    file = io.StringIO()
    # The element IDs of charts on one page must differ.
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser uses its own fonts
        metadata = {"Date": None, "Creator": None}
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # The chart fills its container, up to its original width.
    svg = re.sub(
        r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"',
        rf'<svg \1style="max-width:\2pt" role="img" aria-label="{name}"',
        svg,
        count=1,
    )
    return Markup(svg)
