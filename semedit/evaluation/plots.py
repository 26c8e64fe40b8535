"""An evaluation as plots, PNG and SVG. Needs matplotlib: `pip install 'semedit[plots]'`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator, PercentFormatter

from semedit.evaluation.results import Evaluation
from semedit.evaluation.series import (
    BINS,
    MUST_NOT_CHANGE,
    Line,
    Routing,
    TradeOff,
    histogram,
    mean_lines,
    rate_lines,
    routings,
    trade_off,
)

INK, EDGE, GRID, SURFACE, REFERENCE = "#37352f", "#b5b3ad", "#e9e8e4", "#ffffff", "#777570"
# after Okabe and Ito, "Color Universal Design" (2008), but without black and yellow, which vanish on one of the themes
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#8c6d31")
MARKERS = "osD^vPX*"
# each colour of a plot, and what stands for it on a dark page
_DARK_COLOURS = ("#4aa8e8", "#ff8a45", "#2cc295", "#e39ac5", "#f0b429", "#8fd0f7", "#b18be0", "#c9a65e")
DARK = {
    **dict(zip(COLOURS, _DARK_COLOURS, strict=True)),
    **{INK: "#e6e4df", EDGE: "#5a5853", GRID: "#33322e", SURFACE: "#1b1a18", REFERENCE: "#9b9890"},
}
_MARKER: dict[str, Any] = {"markersize": 8, "markeredgecolor": SURFACE, "markeredgewidth": 0.5}
_WIDTH = 4.9  # inches: shrunk to a telephone, letters are still large enough to be read
_STYLE: dict[Any, Any] = {
    "font.size": 11.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.0,
    "text.color": INK,
    "text.parse_math": False,  # names of methods are anyone's
    "axes.labelcolor": INK,
    "axes.edgecolor": EDGE,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "lines.linewidth": 1.8,
    "xtick.minor.size": 0,
    "figure.facecolor": SURFACE,
    "axes.facecolor": SURFACE,
    "svg.hashsalt": "semedit",  # with the same names in it, the same evaluation gives the same file
    "svg.fonttype": "none",
}


def draw(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Draws what there is to draw into a folder, each plot as PNG and as SVG.

    `retention`: edit retention, generality and test retention over the number of edits. `overrides`: true against
    false overrides as the threshold falls. `scores`: the scope scores by kind of probe. `time`: time per answer over
    the number of edits. One evaluation gives the same files each time.

    Args:
        evaluation: what is drawn.
        folder: made where there is none.

    Returns:
        The files. A plot for which the evaluation has no figures is not among them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        figures = {
            "retention": _retention(evaluation),
            "overrides": _overrides(evaluation),
            "scores": _scores(evaluation),
            "time": _time(evaluation),
        }
        return [path for name, figure in figures.items() if figure for path in _save(figure, folder / name)]


def _retention(evaluation: Evaluation) -> Figure | None:
    titles = {
        "edit_retention": "Edit retention: past edits still right",
        "generality": "Generality: past edits right in other words",
        "test_retention": "Test retention: unrelated answers unchanged",
    }
    lines = {metric: drawn for metric in titles if (drawn := rate_lines(evaluation, metric))}
    if not lines:
        return None
    figure, panels = _stacked(len(lines), each=2.7)
    for axes, metric in zip(panels, lines, strict=True):
        _plot_lines(axes, lines[metric], evaluation)
        axes.set_title(titles[metric])
        axes.set_ylim(-0.04, 1.06)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _legend(figure, panels)
    return figure


def _time(evaluation: Evaluation) -> Figure | None:
    lines = mean_lines(evaluation, "seconds_per_answer")
    if not lines:
        return None
    figure, (axes,) = _stacked(1, each=3)
    _plot_lines(axes, lines, evaluation)
    seconds = [value for line in lines for value in line.values]
    axes.set_title("Time per answer")
    axes.set_yscale("log")
    axes.set_ylim(min(seconds) / 1.6, max(seconds) * 1.6)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _duration(value)))
    _legend(figure, [axes])
    return figure


def _overrides(evaluation: Evaluation) -> Figure | None:
    found = routings(evaluation)
    curves = {
        kind: [(routing, curve) for routing in found if (curve := trade_off(routing, kind))]
        for kind in MUST_NOT_CHANGE
    }
    curves = {kind: drawn for kind, drawn in curves.items() if drawn}
    if not curves:
        return None
    figure, panels = _stacked(len(curves), each=2.7)
    for axes, (kind, drawn) in zip(panels, curves.items(), strict=True):
        marks = [_plot_trade_off(axes, routing, curve, evaluation) for routing, curve in drawn]
        count = drawn[0][1].count
        axes.set_title(f"{drawn[0][1].inside.capitalize()} against {kind.replace('_', ' ')} ({count:,})")
        axes.set_xscale("log")
        axes.set_xlim(0.4 / count, 1.2)
        axes.set_xticks([0.5 / count, *(share for share in (0.0001, 0.001, 0.01, 0.1, 1) if share > 1 / count)])
        axes.set_ylim(-0.04, 1.06)
        axes.xaxis.set_major_formatter(FuncFormatter(_share_or_none(0.5 / count)))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylabel("true overrides")
        axes.legend(
            handles=marks,
            loc="lower right",
            title="at the threshold in force",
            alignment="left",
            frameon=True,
            framealpha=0.85,
            edgecolor="none",
        )
    panels[-1].set_xlabel("false overrides (logarithmic)")
    _legend(figure, panels)
    return figure


def _plot_trade_off(axes: Axes, routing: Routing, curve: TradeOff, evaluation: Evaluation) -> Line2D:
    """Draws a curve with its threshold; gives the handle that says what it reaches there."""
    look = _look(routing.methods[0], evaluation)
    none = 0.5 / curve.count  # where a logarithmic axis shows "none"
    false, true = curve.chosen
    axes.plot(
        np.maximum(curve.false, none),
        curve.true,
        drawstyle="steps-post",
        color=look["color"],
        label=_label(routing),
    )
    mark = {**look, **_MARKER, "markersize": 10, "linestyle": ""}
    axes.plot([max(false, none)], [true], **mark)
    return Line2D([], [], **mark, label=f"{true:.2%} true, {false:.2%} false")


def _scores(evaluation: Evaluation) -> Figure | None:
    found = routings(evaluation)
    kinds = list(dict.fromkeys(kind for routing in found for kind in routing.kinds()))
    if not kinds:
        return None
    figure, panels = _stacked(len(kinds), each=1.25, sharex=True)
    for axes, kind in zip(panels, kinds, strict=True):
        for i, routing in enumerate(found):
            unscored, counts = histogram(routing, kind)
            colour = _look(routing.methods[0], evaluation)["color"]
            axes.stairs(counts, np.linspace(0, 1, BINS + 1), baseline=0.1, color=colour, alpha=0.3, fill=True)
            axes.stairs(
                counts, np.linspace(0, 1, BINS + 1), baseline=0.1, color=colour, linewidth=1.5, label=_label(routing)
            )
            width = 0.06 / len(found)
            axes.bar(-0.13 + i * width, unscored, width, align="edge", color=colour, alpha=0.6)
            axes.axvline(routing.threshold, color=colour, linestyle="--", linewidth=1.5)
        axes.set_title(kind.replace("_", " ").capitalize(), fontsize=11)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(visible=False, axis="x")
    panels[-1].set_xticks([-0.1, 0, 0.25, 0.5, 0.75, 1], ["none", "0", "0.25", "0.5", "0.75", "1"])
    panels[-1].set_xlabel("scope score (dashed: the threshold in force)")
    figure.supylabel("questions (logarithmic)", fontsize=11.5)
    _legend(figure, panels)
    return figure


def _stacked(count: int, *, each: float, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, one below the other, `each` inches high."""
    figure = Figure(figsize=(_WIDTH, each * count + 0.9))
    figure.set_layout_engine("constrained", h_pad=0.1)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(count, 1, squeeze=False, sharex=sharex).flat)


def _plot_lines(axes: Axes, lines: Sequence[Line], evaluation: Evaluation) -> None:
    for line in lines:
        look = _look(line.method, evaluation)
        # the reference above the others, through whose gaps they show
        order = 3 if line.method == "unedited" else 2
        axes.plot(line.edits, line.values, **look, label=line.method, zorder=order, **_MARKER)
        if line.low and len(line.edits) == 1:  # a band would have no width
            axes.vlines(line.edits, line.low, line.high, color=look["color"], alpha=0.5)
        elif line.low:
            axes.fill_between(line.edits, line.low, line.high, color=look["color"], alpha=0.08, linewidth=0)
    axes.set_xscale("symlog", linthresh=1)  # logarithmic, with a place for no edits
    axes.xaxis.set_major_locator(FixedLocator(sorted({edits for line in lines for edits in line.edits})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("edits (logarithmic)")


def _label(routing: Routing) -> str:
    return textwrap.fill(", ".join(routing.methods), 48)


def _look(method: str, evaluation: Evaluation) -> dict[str, Any]:
    """The same colour and marker for a method in every plot."""
    if method == "unedited":
        return {"color": REFERENCE, "marker": ".", "linestyle": "--"}
    number = [row.method for row in evaluation.rows if row.method != "unedited"].index(method)
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One for all panels, above them."""
    named = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = 3 if max(map(len, named)) <= 20 else 1
    figure.legend(list(named.values()), list(named), loc="outside upper left", ncols=min(columns, len(named)))


def _share_or_none(none: float) -> Callable[[float, int], str]:
    return lambda share, _: "none" if share <= none else f"{100 * share:g}%"


def _duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{1000 * seconds:g} ms"


def _save(figure: Figure, path: Path) -> list[Path]:
    """Writes a PNG and an SVG, each wholly or not at all: another method may be drawn, and read, beside this one."""
    looks: dict[str, dict[str, Any]] = {
        ".png": {"dpi": 160, "metadata": {"Software": None}},
        ".svg": {"metadata": {"Creator": None, "Date": None, "Format": None, "Type": None}},
    }
    for suffix, look in looks.items():
        unfinished = path.with_suffix(f".{os.getpid()}{suffix}")
        figure.savefig(unfinished, **look)
        os.replace(unfinished, path.with_suffix(suffix))
    return [path.with_suffix(suffix) for suffix in looks]
