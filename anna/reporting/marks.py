"""What the figures are drawn with: lines, histograms, dots and bars in the report's colours."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from anna.reporting import style
from anna.reporting.curves import Floats
from anna.reporting.distributions import Counts
from anna.reporting.style import light, words

WIDTH = 9.6
"""Inches. At 72 points to the inch, text of 10 points is 10 CSS pixels in a column of 690."""


def line(axes: Axes, x: Floats, y: Floats, role: str, label: str | None) -> None:
    """Draw what differs from step to step twice, raw faint and smoothed bold."""
    axes.plot(x, y, color=light(role), linewidth=0.8, alpha=0.3)
    axes.plot(x, smooth(y), color=light(role), linewidth=1.8, label=label)


def smooth(values: Floats, share: float = 0.08) -> Floats:
    """Return the mean over a centred window of `share` of the steps, shorter at both ends, (N,)."""
    window = np.ones(max(1, round(share * len(values)) | 1))
    counts = np.convolve(np.ones_like(values), window, mode="same")
    return np.asarray(np.convolve(values, window, mode="same") / counts)


def histogram(axes: Axes, counts: Counts, edges: Floats, role: str, label: str) -> None:
    """Draw a filled outline whose heights sum to 1; an empty set has a legend entry that says so."""
    total = int(counts.sum())
    heights = counts / max(1, total)
    name = f"{label} ({style.count(total)})" if total else f"{label} (none)"
    axes.stairs(heights, edges, fill=True, color=light(role), alpha=0.35)
    axes.stairs(heights, edges, color=light(role), linewidth=1.6, label=name)


def dots(parts: Mapping[str, Counter[str]], unit: str) -> Figure | None:
    """Draw a row per reason, most first, with a dot and its number per part; counts differ by orders of magnitude."""
    totals = sum(parts.values(), Counter[str]())
    reasons = sorted(+totals, key=lambda reason: (-totals[reason], reason))
    if not reasons:
        return None
    figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * len(reasons)), layout="constrained")
    axes = figure.add_subplot()
    for (name, part), role, marker, shift in zip(parts.items(), ("muted", "negative"), "oD", (-0.2, 0.2), strict=True):
        shown = [(row, part[reason]) for row, reason in enumerate(reasons) if part[reason]]
        # Two dots of one row stand a little apart, so that neither hides the other's number.
        rows = [row + (shift if totals[reasons[row]] > number else 0.0) for row, number in shown]
        numbers = [number for _, number in shown]
        axes.plot(numbers, rows, marker, color=light(role), markersize=6, label=words(name), clip_on=False)
        for row, number in zip(rows, numbers, strict=True):
            axes.annotate(
                style.count(number), (number, row), (7, 0), textcoords="offset points", fontsize=8, va="center"
            )
    axes.set_yticks(range(len(reasons)), [words(reason) for reason in reasons])
    axes.set_ylim(len(reasons) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(0.8, 3 * max(10, totals[reasons[0]]))
    axes.xaxis.set_major_locator(LogLocator(numticks=7))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.set_xlabel(unit)
    axes.legend(loc="lower right")
    return figure


def bars(axes: Axes, names: Sequence[str], lengths: Sequence[float], labels: Sequence[str]) -> None:
    """Draw bars with their names, first at the top, each one's number at its end, and room for it."""
    axes.barh(range(len(names)), lengths, height=0.68, color=light("muted"))
    axes.set_yticks(range(len(names)), [words(name) for name in names])
    axes.grid(axis="y", visible=False)
    most = max(lengths, default=0.0) or 1.0
    for row, (length, label) in enumerate(zip(lengths, labels, strict=True)):
        axes.text(length + most * 0.015, row, label, va="center", fontsize=9, color=light("ink"))
    axes.set_xlim(0, most * 1.22)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))


def legend_above(axes: Axes) -> None:
    """Put the legend where it can hide nothing: at the right, level with the title."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)


def percent(axis: Axis) -> None:
    """Write the axis's shares as percentages."""
    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def thousands(value: float, _: int | None) -> str:
    """Return a number with separators, as matplotlib's formatters ask for it."""
    return f"{value:,.0f}"
