"""The figures of benchmarks/scope.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, PercentFormatter

from scope_reliability import BINS

COLOURS = ("#0b6e99", "#d9730d")
INK = "#37352f"
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b5b3ad",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9e8e4",
    "svg.hashsalt": "semedit",
}


@dataclass(frozen=True)
class Curve:
    """False and true overrides of one classifier as its threshold falls, and where its own threshold lies."""

    false: np.ndarray
    true: np.ndarray
    chosen: tuple[float, float]


def draw_overrides(panels: Mapping[str, tuple[int, Mapping[str, Curve]]], path: Path) -> None:
    """True against false overrides, a panel for each pair of categories.

    Args:
        panels: for each title the number of queries out of scope, and a curve for each classifier.
        path: the figure is written beside it as PNG and as SVG.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4 * columns, 3.9 * rows + 0.7), layout="constrained")
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, (title, (count, curves)) in zip(grid, panels.items(), strict=False):
            _overrides(axes, title, count, curves)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        handles.append(Line2D([], [], color=INK, marker="o", markersize=8, linestyle=""))
        labels.append("default threshold")
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        _save(figure, path)


def _overrides(axes: Axes, title: str, count: int, curves: Mapping[str, Curve]) -> None:
    nearest_to_none = 0.5 / count  # where a logarithmic axis shows "none"
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        false = np.maximum(curve.false, nearest_to_none)
        axes.plot(false, curve.true, drawstyle="steps-post", color=colour, linewidth=2, label=name)
        x, y = max(curve.chosen[0], nearest_to_none), curve.chosen[1]
        axes.plot([x], [y], "o", color=colour, markersize=9, markeredgecolor="white")
        axes.annotate(
            f"{y:.1%} true, {curve.chosen[0]:.2%} false",
            (x, y),
            xytext=(9, -13) if x < 0.05 else (-9, 7),
            ha="left" if x < 0.05 else "right",
            textcoords="offset points",
            color=colour,
            fontsize=9,
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.set_xscale("log")
    axes.set_xlim(nearest_to_none * 0.8, 1.1)
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_title(title, loc="left", fontweight="bold", fontsize=10.5)
    axes.set_xlabel("false overrides (logarithmic; the left edge is none)")
    axes.set_ylabel("true overrides")


def draw_reliability(bins: Sequence[tuple[float, float, int]], error: float, path: Path) -> None:
    """How often a score is right, and how often it is given.

    Args:
        bins: mean score, share that is right and count of each bin.
        error: the expected calibration error.
        path: the figure is written beside it as PNG and as SVG.
    """
    scores, right, counts = (np.array(values) for values in zip(*bins, strict=True))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], "--", color="#b5b3ad", label="scores that mean what they say")
        above.plot(scores, right, "o-", color=COLOURS[0], linewidth=2, markersize=7, label="the classifier")
        above.set_ylim(-0.02, 1.03)
        above.set_ylabel("share in scope")
        above.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        above.set_title(
            f"Reliability: expected calibration error {error:.3f}", loc="left", fontweight="bold", fontsize=11
        )
        above.legend(frameon=False, loc="upper left")
        width = 1 / BINS
        below.bar(np.floor(np.minimum(scores, 0.999) * BINS) * width, counts, width, align="edge", color=COLOURS[0])
        below.set_yscale("log")
        below.set_ylabel("queries")
        below.set_xlabel("score of a query's best candidate")
        below.set_xlim(0, 1)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path.with_name(path.name + ".png"), dpi=160)
    figure.savefig(path.with_name(path.name + ".svg"), metadata={"Date": None})
