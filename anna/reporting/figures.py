"""The report's figures, drawn from the facts: one function each, None where there is nothing to draw.

Drawn in the light colours of `style.PALETTE`; `anna.reporting.plots` sets the rest of the style and makes the files.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from anna.params import STAGES
from anna.reporting import style
from anna.reporting.curves import Floats
from anna.reporting.gather import Facts
from anna.reporting.results import smooth
from anna.reporting.style import light, words

WIDTH = 9.6
"""Inches. At 72 points to the inch, text of 10 points is 10 CSS pixels in a column of 690."""

_BINS = 48


def draw_scores(facts: Facts) -> Figure | None:
    """Draw grouped bars: the mean and every category, a bar per model."""
    columns = [name for name in style.COLUMNS if name in facts.means and name != "untrained_with_examples"]
    categories = list(dict.fromkeys(category for name in columns for category in facts.means[name]))
    if not categories:
        return None
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.add_subplot()
    width = 0.84 / len(columns)
    for place, name in enumerate(columns):
        heights = [facts.summary.get(name, {}).get("mean"), *(facts.means[name].get(each) for each in categories)]
        shown = [(at, height) for at, height in enumerate(heights) if height is not None]
        label, role = style.COLUMNS[name]
        axes.bar(
            [at + (place - (len(columns) - 1) / 2) * width for at, _ in shown],
            [height for _, height in shown],
            width=width,
            color=light(role),
            edgecolor=light("surface"),
            linewidth=0.8,
            label=label,
        )
    axes.axhline(0, color=light("muted"), linewidth=0.8)
    axes.axvline(0.5, color=light("grid"), linewidth=0.8)
    axes.set_xticks(range(len(categories) + 1), ["Mean", *(_wrap(category) for category in categories)])
    axes.set_xlim(-0.5, len(categories) + 0.5)
    axes.set_ylabel("mean main score (0 to 1)")
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper left", ncols=len(columns), columnspacing=1.4, handlelength=1.1)
    return figure


def draw_training(facts: Facts) -> Figure | None:
    """Draw loss and its terms, validation, gradient norm and learning rate against queries seen.

    What differs from step to step is drawn twice, raw faint and smoothed bold.
    """
    if not len(facts.curve):
        return None
    values, validation = facts.curve.values, facts.validation
    labels = ["loss (nats)", *(["validation\nnDCG@10"] * bool(len(validation.ndcg))), "gradient norm", "learning rate"]
    heights = [3.0, *([1.15] * (len(labels) - 1))]
    figure = Figure(figsize=(WIDTH, 1.02 * sum(heights)), layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(labels), 1, sharex=True, height_ratios=heights))
    for name, label, role in (
        ("loss", "loss", "ink"),
        ("info_nce", "InfoNCE", "positive"),
        ("soft_label_ce", "soft labels of groups", "negative"),
        ("batch_soft_label_ce", "soft labels of batches", "candidate"),
    ):
        _line(panels[0], values["queries"], values[name], role, label)
    if len(validation.ndcg):
        panels[1].plot(*validation, color=light("ink"), linewidth=1.6, marker="o", markersize=4)
    _line(panels[-2], values["queries"], values["gradient_norm"], "muted", None)
    panels[-1].plot(values["queries"], values["learning_rate"], color=light("muted"), linewidth=1.6)
    for axes, label in zip(panels, labels, strict=True):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0, top=1 if axes is panels[1] and len(validation.ndcg) else None)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5 if axes is panels[0] else 3))
    panels[-1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1e}" if value else "0"))
    panels[-1].set_xlim(left=0)
    panels[-1].xaxis.set_major_formatter(FuncFormatter(_thousands))
    panels[-1].set_xlabel("queries seen")
    figure.align_ylabels(panels)
    panels[0].legend(loc="upper right", ncols=2)
    return figure


def draw_spread(facts: Facts) -> Figure | None:
    """Draw histograms of fused scores: positives against candidates before the filter, against negatives after."""
    spread = facts.spread
    scores = np.concatenate([spread.positives, spread.others])
    if not len(scores):
        return None
    bins = np.histogram_bin_edges(scores, _BINS)
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    panels: list[Axes] = list(figure.subplots(2, 1, sharex=True, sharey=True))
    _histogram(panels[0], spread.others, bins, "candidate", "other candidates")
    _histogram(panels[0], spread.positives, bins, "positive", "labelled positives")
    _histogram(panels[1], spread.negatives, bins, "negative", "hard negatives kept")
    _histogram(panels[1], spread.group_positives, bins, "positive", "positives of the groups")
    for axes, title in zip(panels, ("Before the filter", "After: what the student is trained on"), strict=True):
        axes.set_title(title)
        _percent(axes.yaxis)
        axes.set_ylabel("share of each set")
        _legend_above(axes)
    panels[1].set_xlabel("fused score (weighted sum of z-scores within the query)")
    return figure


def draw_entropy(facts: Facts) -> Figure | None:
    """Draw histograms of the soft labels' entropy as a share of log n, over all candidates and over the groups."""
    shares = {
        "all candidates of a query": ("candidate", facts.entropies.candidates),
        "its training group": ("positive", facts.entropies.groups),
    }
    finite = {name: (role, values[np.isfinite(values)]) for name, (role, values) in shares.items()}
    if not any(len(values) for _, values in finite.values()):
        return None
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.add_subplot()
    for name, (role, values) in finite.items():
        _histogram(axes, values, np.linspace(0, 1, 41), role, name)
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    axes.set_xlim(0, 1)
    axes.set_xlabel("entropy as a share of log n: 0 % is one-hot, 100 % uniform")
    axes.set_ylabel("share of queries")
    _legend_above(axes)
    return figure


def draw_ingest_drops(facts: Facts) -> Figure | None:
    """Draw how many rows of the sources were not kept, by reason and use."""
    parts: dict[str, Counter[str]] = {"train": Counter(), "held_out": Counter()}
    for drop in facts.ingest_drops:
        parts[drop.part][drop.reason] += drop.rows
    return _dots(parts, "rows (log scale)")


def draw_filter_drops(facts: Facts) -> Figure | None:
    """Draw how many candidates did not become hard negatives, and how many queries gave no group, by reason."""
    counted = facts.stages.get("filter", {})
    parts = {name: Counter(counted.get(key, {})) for name, key in (("candidates", "drops"), ("queries", "query_drops"))}
    return _dots(parts, "candidates, or queries (log scale)")


def draw_cost(facts: Facts) -> Figure | None:
    """Draw the time of every stage and the rows it wrote."""
    names = [name for name in STAGES[:-1] if name in facts.costs]
    if not names:
        return None
    seconds = [float(facts.costs[name]["seconds"]) for name in names]
    rows = [_rows_of(facts, name) for name in names]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.3 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _bars(left, names, seconds, [style.duration(value) for value in seconds])
    _bars(right, names, [float(number or 0) for number in rows], [style.count(number) for number in rows])
    left.set_xlabel("wall time (s)")
    right.set_xlabel("rows of the training tables written")
    return figure


_WRITTEN: Mapping[str, Sequence[str]] = {
    "ingest": ("corpus", "queries", "qrels"),
    "retrieve_bm25": ("bm25_run",),
    "retrieve_dense": ("dense_run",),
    "rerank": ("reranker_run",),
    "label": ("labels",),
    "filter": ("groups", "drops"),
}
"""Tables of each stage; the stages that are absent write models and scores."""


def _rows_of(facts: Facts, stage: str) -> int | None:
    rows = {table.path.removeprefix("data/").removesuffix(".parquet"): table.rows for table in facts.tables}
    written = [rows[name] for name in _WRITTEN.get(stage, ()) if name in rows]
    return sum(written) if written else None


def _line(axes: Axes, x: Floats, y: Floats, role: str, label: str | None) -> None:
    axes.plot(x, y, color=light(role), linewidth=0.8, alpha=0.3)
    axes.plot(x, smooth(y), color=light(role), linewidth=1.8, label=label)


def _histogram(axes: Axes, values: Floats, bins: Floats, role: str, label: str) -> None:
    """Draw a filled outline whose heights sum to 1; an empty set has a legend entry that says so."""
    heights = np.histogram(values, bins)[0] / max(1, len(values))
    name = f"{label} ({style.count(len(values))})" if len(values) else f"{label} (none)"
    axes.stairs(heights, bins, fill=True, color=light(role), alpha=0.35)
    axes.stairs(heights, bins, color=light(role), linewidth=1.6, label=name)


def _dots(parts: Mapping[str, Counter[str]], unit: str) -> Figure | None:
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
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.set_xlabel(unit)
    axes.legend(loc="lower right")
    return figure


def _bars(axes: Axes, names: Sequence[str], lengths: Sequence[float], labels: Sequence[str]) -> None:
    axes.barh(range(len(names)), lengths, height=0.68, color=light("muted"))
    _finish_bars(axes, names, np.array(lengths), labels)


def _finish_bars(axes: Axes, names: Sequence[str], ends: Floats, labels: Sequence[str]) -> None:
    """Name the bars, first at the top, write each one's number at its end, and leave room for it."""
    axes.set_yticks(range(len(names)), [words(name) for name in names])
    axes.grid(axis="y", visible=False)
    most = float(ends.max()) if len(ends) and ends.max() > 0 else 1.0
    for row, (end, label) in enumerate(zip(ends, labels, strict=True)):
        axes.text(float(end) + most * 0.015, row, label, va="center", fontsize=9, color=light("ink"))
    axes.set_xlim(0, most * 1.22)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))


def _legend_above(axes: Axes) -> None:
    """Put the legend where it can hide nothing: at the right, level with the title."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)


def _percent(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def _thousands(value: float, _: int | None) -> str:
    return f"{value:,.0f}"


def _wrap(category: str) -> str:
    """Break a name before each inner capital: `PairClassification` takes two lines."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "\n", category)
